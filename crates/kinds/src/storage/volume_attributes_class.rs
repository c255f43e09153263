//! `volumeattributesclasses` in `storage.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Attributes of a volume that can change.
pub(crate) struct VolumeAttributesClass(pub(crate) Facts);

impl Kind for VolumeAttributesClass {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
