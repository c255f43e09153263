//! `daemonsets` in `apps/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// One pod on every node.
pub(crate) struct DaemonSet(pub(crate) Facts);

impl Kind for DaemonSet {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
