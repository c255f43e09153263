//! `validatingadmissionpolicybindings` in `admissionregistration.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
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

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "matchResources"], fill::match_resources);
    }
}
