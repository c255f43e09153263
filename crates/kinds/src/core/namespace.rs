//! `namespaces` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A scope for names.
pub(crate) struct Namespace(pub(crate) Facts);

impl Kind for Namespace {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
