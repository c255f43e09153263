//! `events` in `events.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Something that happened to an object.
pub(crate) struct Event(pub(crate) Facts);

impl Kind for Event {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
