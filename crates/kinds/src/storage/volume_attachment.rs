//! `volumeattachments` in `storage.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A volume on a node.
pub(crate) struct VolumeAttachment(pub(crate) Facts);

impl Kind for VolumeAttachment {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
