//! `deviceclasses` in `resource.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// A kind of device that can be claimed.
pub(crate) struct DeviceClass(pub(crate) Facts);

impl Kind for DeviceClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
