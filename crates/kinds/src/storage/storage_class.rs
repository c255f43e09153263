//! `storageclasses` in `storage.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// How storage is made.
pub(crate) struct StorageClass(pub(crate) Facts);

impl Kind for StorageClass {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
