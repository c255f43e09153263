//! `mutatingwebhookconfigurations` in `admissionregistration.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Who is asked to change requests.
pub(crate) struct MutatingWebhookConfiguration(pub(crate) Facts);

impl Kind for MutatingWebhookConfiguration {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }
}
