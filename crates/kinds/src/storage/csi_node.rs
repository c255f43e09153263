//! `csinodes` in `storage.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Storage drivers on a node.
pub(crate) struct CSINode(pub(crate) Facts);

impl Kind for CSINode {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
