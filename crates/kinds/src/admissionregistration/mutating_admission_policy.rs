//! `mutatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Changes requests by expressions.
pub(crate) struct MutatingAdmissionPolicy(pub(crate) Facts);

impl Kind for MutatingAdmissionPolicy {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
