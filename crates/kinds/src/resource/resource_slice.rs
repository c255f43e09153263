//! `resourceslices` in `resource.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// Devices that a driver offers.
pub(crate) struct ResourceSlice(pub(crate) Facts);

impl Kind for ResourceSlice {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
