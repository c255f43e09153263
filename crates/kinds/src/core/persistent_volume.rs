//! `persistentvolumes` in `v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::time::Time;
use skiff_object::{Map, Tree, name};

use crate::checks::{self, Found, SPEC, resources};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill, pod_spec, rules};

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
        let spec = checks::spec(object);
        if spec.list_at(&["accessModes"]).is_empty() {
            found.push(FieldError::required(SPEC.child("accessModes"), ""));
        }
        super::persistent_volume_claim::access_modes(&mut found, spec, SPEC);
        capacity(&mut found, spec);
        let known = ["Delete", "Recycle", "Retain"];
        checks::maybe_one_of(&mut found, spec, "persistentVolumeReclaimPolicy", SPEC, &known);
        placed(&mut found, spec);
        source(&mut found, spec);
        let recycled = spec.str_at(&["persistentVolumeReclaimPolicy"]) == "Recycle";
        if spec.str_at(&["hostPath", "path"]) == "/" && recycled {
            let why = "may not be 'recycle' for a hostPath mount of '/'";
            found.push(FieldError::forbidden(SPEC.child("persistentVolumeReclaimPolicy"), why));
        }
        checks::formed(&mut found, spec, "storageClassName", SPEC, name::dns1123_subdomain);
        checks::only_if_given(&mut found, spec, "volumeMode", SPEC, &["Block", "Filesystem"]);
        if checks::given(spec, "volumeAttributesClassName").is_some() {
            const FIELD: &str = "volumeAttributesClassName";
            if spec.str_at(&[FIELD]).is_empty() {
                let why = "an empty string is disallowed";
                found.push(FieldError::required(SPEC.child(FIELD), why));
            }
            checks::formed(&mut found, spec, FIELD, SPEC, name::dns1123_subdomain);
            if checks::given(spec, "csi").is_none() {
                let why = "has to be specified when using volumeAttributesClassName";
                found.push(FieldError::required(SPEC.child("csi"), why));
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let [wanted, before] = [new, old].map(checks::spec);
        let sources = |spec: &Tree| -> Vec<(String, Tree)> {
            let all = spec.as_map().into_iter().flat_map(Map::iter);
            let mut all: Vec<_> = all
                .filter(|(key, value)| is_source(key.as_str()) && !value.is_null())
                .map(|(key, value)| (key.as_str().to_owned(), value.clone()))
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        let (mut now, had) = (sources(wanted), sources(before));
        // Secrets of drivers may be named later.
        for (kind, source) in &mut now {
            if let Some((_, old)) = had.iter().find(|(one, _)| one == kind && one == "csi") {
                for field in [
                    "controllerPublishSecretRef",
                    "nodeStageSecretRef",
                    "nodePublishSecretRef",
                    "controllerExpandSecretRef",
                    "nodeExpandSecretRef",
                ] {
                    rules::keep(source, old, &[field]);
                }
            }
        }
        if now != had {
            let why = "spec.persistentvolumesource is immutable after creation";
            found.push(FieldError::forbidden("spec.persistentvolumesource", why));
        }
        checks::immutable(&mut found, new, old, &["spec", "volumeMode"]);
        if !rules::same(before.get("nodeAffinity"), None)
            && !rules::same(wanted.get("nodeAffinity"), before.get("nodeAffinity"))
        {
            let value = BadValue::from(wanted.get("nodeAffinity"));
            let why = "field is immutable, except for updating from beta label to GA";
            found.push(FieldError::invalid(SPEC.child("nodeAffinity"), value, why));
        }
        let class = |spec: &Tree| spec.str_at(&["volumeAttributesClassName"]).to_owned();
        if !class(before).is_empty() && class(wanted).is_empty() {
            let why = "update from non-nil value to nil is forbidden";
            found.push(FieldError::forbidden(SPEC.child("volumeAttributesClassName"), why));
        }
        found
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

fn capacity(found: &mut Found, spec: &Tree) {
    let path = SPEC.child("capacity");
    let entries = spec.get("capacity").and_then(Tree::as_map);
    if entries.is_none_or(Map::is_empty) {
        found.push(FieldError::required(path, ""));
        return;
    }
    if spec.at(&["capacity", "storage"]).is_none() || entries.is_some_and(|entries| entries.len() > 1) {
        let value = BadValue::from(spec.get("capacity"));
        found.push(FieldError::not_supported(path, value, &["storage"]));
    }
    checks::entries(spec, "capacity", SPEC, |resource, value, path| {
        let Some(amount) = resources::quantity(Some(value)) else { return };
        resources::amount(found, resource, amount, path);
        if amount.nanos() == 0 {
            found.push(FieldError::invalid(path, amount.to_string(), "must be greater than zero"));
        }
    });
}

/// Which nodes reach it; a local volume has to say.
fn placed(found: &mut Found, spec: &Tree) {
    let path = SPEC.child("nodeAffinity");
    match checks::given(spec, "nodeAffinity").map(|affinity| checks::given(affinity, "required")) {
        Some(Some(selector)) => pod_spec::node_selector(found, selector, path.child("required")),
        Some(None) => {
            found.push(FieldError::required(path.child("required"), "must specify required node constraints"))
        }
        None if checks::given(spec, "local").is_some() => {
            found.push(FieldError::required(path, "Local volume requires node affinity"));
        }
        None => {}
    }
}

fn source(found: &mut Found, spec: &Tree) {
    let mut count = 0;
    for (kind, source) in spec.as_map().into_iter().flat_map(Map::iter) {
        if !is_source(kind.as_str()) || source.is_null() {
            continue;
        }
        count += 1;
        let path = SPEC.child(kind.as_str());
        if count > 1 {
            found.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
            continue;
        }
        pod_spec::volumes::volume_source(found, kind.as_str(), source, path);
        if kind.as_str() == "csi" {
            checks::required(found, source, "volumeHandle", path);
        }
    }
    if count == 0 {
        found.push(FieldError::required(SPEC, "must specify a volume type"));
    }
}
