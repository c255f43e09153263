//! `pods` in `v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Containers that run together on one node.
pub(crate) struct Pod(pub(crate) Facts);

impl Kind for Pod {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
