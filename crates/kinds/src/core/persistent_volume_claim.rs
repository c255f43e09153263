//! `persistentvolumeclaims` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A wish for storage.
pub(crate) struct PersistentVolumeClaim(pub(crate) Facts);

impl Kind for PersistentVolumeClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
