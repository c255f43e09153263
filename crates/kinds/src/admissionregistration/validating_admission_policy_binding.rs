//! `validatingadmissionpolicybindings` in `admissionregistration.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Where a validating policy applies.
pub(crate) struct ValidatingAdmissionPolicyBinding(pub(crate) Facts);

impl Kind for ValidatingAdmissionPolicyBinding {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
