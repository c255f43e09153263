//! `podtemplates` in `v1`.

use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// A pod to be, on its own.
pub(crate) struct PodTemplate(pub(crate) Facts);

impl Kind for PodTemplate {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        pod_spec::template(fill::within(object, "template"));
    }
}
