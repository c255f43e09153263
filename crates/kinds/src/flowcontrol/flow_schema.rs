//! `flowschemas` in `flowcontrol.apiserver.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Which requests belong to which priority level.
pub(crate) struct FlowSchema(pub(crate) Facts);

impl Kind for FlowSchema {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        fill::number(fill::within(object, "spec"), "matchingPrecedence", 1_000);
    }
}
