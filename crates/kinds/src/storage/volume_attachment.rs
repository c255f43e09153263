//! `volumeattachments` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// A volume on a node.
pub(crate) struct VolumeAttachment(pub(crate) Facts);

impl Kind for VolumeAttachment {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["spec", "attacher"]),
            cells::text(object, &["spec", "source", "persistentVolumeName"]),
            cells::text(object, &["spec", "nodeName"]),
            (object.bool_at(&["status", "attached"]) == Some(true)).into(),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Attacher", "string", "Who attaches."),
    Column::new("PV", "string", "What is attached."),
    Column::new("Node", "string", "To which node."),
    Column::new("Attached", "boolean", "Whether it is."),
    cells::AGE,
];
