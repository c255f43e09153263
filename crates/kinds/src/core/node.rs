//! `nodes` in `v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// A machine that runs pods.
pub(crate) struct Node(pub(crate) Facts);

impl Kind for Node {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for list in ["capacity", "allocatable"] {
            fill::round_resources(object, &["status", list]);
        }
        let capacity = object.at(&["status", "capacity"]).cloned();
        if let Some(capacity @ Tree::Map(_)) = capacity {
            fill::absent(fill::within(object, "status"), "allocatable", capacity);
        }
    }
}
