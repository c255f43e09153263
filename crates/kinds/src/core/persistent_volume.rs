//! `persistentvolumes` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A piece of storage.
pub(crate) struct PersistentVolume(pub(crate) Facts);

impl Kind for PersistentVolume {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
