//! `persistentvolumeclaims` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::selector::label;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        if spec.list_at(&["accessModes"]).is_empty() {
            found.push(FieldError::required(SPEC.child("accessModes"), "at least 1 access mode is required"));
        }
        access_modes(&mut found, spec);
        if spec.at(&["resources", "requests", "storage"]).is_none() {
            found.push(FieldError::required("spec.resources[storage]", ""));
        }
        checks::maybe_one_of(&mut found, spec, "volumeMode", SPEC, &["Block", "Filesystem"]);
        found.extend(label::validate(spec.get("selector"), SPEC.child("selector")));
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let mut rest = new.get("spec").cloned().unwrap_or_default();
        let before = old.get("spec").unwrap_or(&Tree::Null);
        rules::keep(&mut rest, before, &["resources", "requests"]);
        rules::keep(&mut rest, before, &["volumeAttributesClassName"]);
        // The binder fills these in once.
        for field in ["volumeName", "storageClassName"] {
            if before.str_at(&[field]).is_empty() {
                rules::keep(&mut rest, before, &[field]);
            }
        }
        if !rules::same(Some(&rest), Some(before)) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                       bound claims";
            found.push(FieldError::forbidden(SPEC, why));
        }
        found
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

fn access_modes(found: &mut Vec<FieldError>, spec: &Tree) {
    let known = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in spec.list_at(&["accessModes"]).iter().filter_map(Tree::as_str) {
        if !known.contains(&mode) {
            found.push(FieldError::not_supported(SPEC.child("accessModes"), mode, &known));
        }
    }
}
