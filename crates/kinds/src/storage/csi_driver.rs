//! `csidrivers` in `storage.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// A storage driver.
pub(crate) struct CSIDriver(pub(crate) Facts);

impl Kind for CSIDriver {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}
