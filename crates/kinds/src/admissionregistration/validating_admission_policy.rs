//! `validatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
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

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "failurePolicy", "Fail");
        fill::each(spec, &["matchConstraints"], fill::match_resources);
    }
}
