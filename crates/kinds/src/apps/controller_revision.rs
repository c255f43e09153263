//! `controllerrevisions` in `apps/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A past state of a DaemonSet or StatefulSet.
pub(crate) struct ControllerRevision(pub(crate) Facts);

impl Kind for ControllerRevision {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
