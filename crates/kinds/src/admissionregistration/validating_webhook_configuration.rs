//! `validatingwebhookconfigurations` in `admissionregistration.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Who is asked to refuse requests.
pub(crate) struct ValidatingWebhookConfiguration(pub(crate) Facts);

impl Kind for ValidatingWebhookConfiguration {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }
}
