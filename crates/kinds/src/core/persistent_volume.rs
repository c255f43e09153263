//! `persistentvolumes` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::pod_spec;
use crate::rules;
use crate::table::Column;

/// A piece of storage.
pub(crate) struct PersistentVolume(pub(crate) Facts);

impl Kind for PersistentVolume {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::text(fill::within(object, "status"), "phase", "Pending");
        let spec = fill::within(object, "spec");
        fill::text(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill::absent(spec, "volumeMode", "Filesystem");
        fill::round_resources(spec, &["capacity"]);
        pod_spec::volume_source(spec);
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
        let claim = match object.at(&["spec", "claimRef"]) {
            Some(claim @ Tree::Map(_)) => format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"])),
            _ => String::new(),
        };
        vec![
            cells::name(object),
            cells::text_or(object, &["spec", "capacity", "storage"], "0"),
            cells::access_modes(object, &["spec", "accessModes"]),
            cells::text(object, &["spec", "persistentVolumeReclaimPolicy"]),
            phase.into(),
            claim.into(),
            class.into(),
            cells::text_or(object, &["spec", "volumeAttributesClassName"], "<unset>"),
            cells::text(object, &["status", "reason"]),
            cells::age(object, now),
            cells::text_or(object, &["spec", "volumeMode"], "<unset>"),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        if spec.list_at(&["accessModes"]).is_empty() {
            found.push(FieldError::required(SPEC.child("accessModes"), ""));
        }
        if spec.get("capacity").and_then(Tree::as_map).is_none_or(|capacity| capacity.is_empty()) {
            found.push(FieldError::required(SPEC.child("capacity"), ""));
        }
        let known = ["Delete", "Recycle", "Retain"];
        checks::maybe_one_of(&mut found, spec, "persistentVolumeReclaimPolicy", SPEC, &known);
        checks::maybe_one_of(&mut found, spec, "volumeMode", SPEC, &["Block", "Filesystem"]);
        let sources = spec.as_map().map_or(0, |spec| spec.keys().filter(|key| is_source(key.as_str())).count());
        match sources {
            0 => found.push(FieldError::required(SPEC, "must specify a volume type")),
            1 => {}
            _ => found.push(FieldError::forbidden(SPEC, "may not specify more than 1 volume type")),
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Capacity", "string", "How much fits."),
    Column::new("Access Modes", "string", "How it can be mounted."),
    Column::new("Reclaim Policy", "string", "What becomes of it after its claim."),
    Column::new("Status", "string", "Whether it is in use."),
    Column::new("Claim", "string", "The claim it is bound to."),
    Column::new("StorageClass", "string", "The class it belongs to."),
    Column::new("VolumeAttributesClass", "string", "The attributes it has."),
    Column::new("Reason", "string", "Why it is as it is."),
    cells::AGE,
    Column::wide("VolumeMode", "string", "Whether it is a file system or a device."),
];

/// Everything in the spec that does not say something about the volume is where it comes from.
fn is_source(field: &str) -> bool {
    !matches!(
        field,
        "capacity"
            | "accessModes"
            | "claimRef"
            | "persistentVolumeReclaimPolicy"
            | "storageClassName"
            | "mountOptions"
            | "volumeMode"
            | "nodeAffinity"
            | "volumeAttributesClassName"
    )
}
