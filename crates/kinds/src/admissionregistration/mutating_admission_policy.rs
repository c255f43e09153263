//! `mutatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
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

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "failurePolicy", "Fail");
        fill::text(spec, "reinvocationPolicy", "Never");
        fill::each(spec, &["matchConstraints"], fill::match_resources);
    }
}
