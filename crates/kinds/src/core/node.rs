//! `nodes` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A machine that runs pods.
pub(crate) struct Node(pub(crate) Facts);

impl Kind for Node {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
