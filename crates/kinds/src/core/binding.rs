//! `bindings` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Ties a pod to a node; answered and forgotten.
pub(crate) struct Binding(pub(crate) Facts);

impl Kind for Binding {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
