//! `services` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A stable address for a set of pods.
pub(crate) struct Service(pub(crate) Facts);

impl Kind for Service {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
