//! `priorityclasses` in `scheduling.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// How important a pod is.
pub(crate) struct PriorityClass(pub(crate) Facts);

impl Kind for PriorityClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        fill::absent(object, "preemptionPolicy", "PreemptLowerPriority");
    }
}
