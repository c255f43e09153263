//! `storageclasses` in `storage.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

/// How storage is made.
pub(crate) struct StorageClass(pub(crate) Facts);

impl Kind for StorageClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::absent(object, "reclaimPolicy", "Delete");
        fill::absent(object, "volumeBindingMode", "Immediate");
    }
}
