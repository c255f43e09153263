//! `csistoragecapacities` in `storage.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// How much storage there is to hand out.
pub(crate) struct CSIStorageCapacity(pub(crate) Facts);

impl Kind for CSIStorageCapacity {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
