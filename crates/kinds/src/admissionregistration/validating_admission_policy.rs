//! `validatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Refuses requests by expressions.
pub(crate) struct ValidatingAdmissionPolicy(pub(crate) Facts);

impl Kind for ValidatingAdmissionPolicy {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
