//! `persistentvolumeclaims` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::pod_spec;
use crate::rules;
use crate::table::Column;

/// A wish for storage.
pub(crate) struct PersistentVolumeClaim(pub(crate) Facts);

impl Kind for PersistentVolumeClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(fill::within(object, "status"), "phase", "Pending");
        pod_spec::volume_claim_spec(fill::within(object, "spec"));
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        object.set(&["status", "phase"], "Pending");
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let class = match object.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
            "" => object.str_at(&["spec", "storageClassName"]),
            class => class,
        };
        let phase = if cells::is_deleting(object) { "Terminating" } else { object.str_at(&["status", "phase"]) };
        let volume = object.str_at(&["spec", "volumeName"]);
        let bound = |cell: Tree| if volume.is_empty() { "".into() } else { cell };
        vec![
            cells::name(object),
            phase.into(),
            volume.into(),
            bound(cells::text_or(object, &["status", "capacity", "storage"], "0")),
            bound(cells::access_modes(object, &["status", "accessModes"])),
            class.into(),
            cells::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
            cells::age(object, now),
            cells::text_or(object, &["spec", "volumeMode"], "<unset>"),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Status", "string", "Whether it is bound."),
    Column::new("Volume", "string", "The volume it is bound to."),
    Column::new("Capacity", "string", "How much fits."),
    Column::new("Access Modes", "string", "How it can be mounted."),
    Column::new("StorageClass", "string", "The class it asks for."),
    Column::new("VolumeAttributesClass", "string", "The attributes it asks for."),
    cells::AGE,
    Column::wide("VolumeMode", "string", "Whether it is a file system or a device."),
];
