//! What must hold for volumes, of pods and of persistent volumes.

use std::collections::{HashMap, HashSet};

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::env::{VOLUME_FIELDS, field, resource_field};
use crate::checks::resources::quantity;
use crate::checks::{Found, each, given, maybe_one_of, needed, only_if_given, required, within};

/// Every kind of source, in the order in which upstream looks for them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "quobyte",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
    "local",
];

/// How long a token lives: ten minutes at least, and not longer than 32 bits count.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

/// The volumes of a pod; gives those that are well formed by name.
pub(super) fn volumes<'t>(found: &mut Found, spec: &'t Tree, path: Path<'_>) -> HashMap<&'t str, &'t Tree> {
    let mut all: HashMap<&str, &Tree> = HashMap::new();
    each(spec, "volumes", path, |volume, path| {
        let mut wrong = Found::new();
        source(&mut wrong, volume, path);
        let text = volume.str_at(&["name"]);
        needed(&mut wrong, volume, "name", path, name::dns1123_label);
        if all.contains_key(text) {
            wrong.push(FieldError::duplicate(path.child("name"), text));
        }
        if wrong.is_empty() {
            all.insert(text, volume);
        }
        found.append(&mut wrong);
    });
    all
}

/// Exactly one kind of source.
fn source(found: &mut Found, volume: &Tree, path: Path<'_>) {
    let mut count = 0;
    for kind in SOURCES {
        let Some(source) = given(volume, kind) else { continue };
        count += 1;
        if count > 1 {
            found.push(FieldError::forbidden(path.child(kind), "may not specify more than 1 volume type"));
        } else {
            volume_source(found, kind, source, path.child(kind));
        }
    }
    if count == 0 {
        found.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// What a kind of source needs to name; the rest is the driver's.
const NEEDED: [(&str, &[&str]); 18] = [
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("azureFile", &["secretName", "shareName"]),
    ("configMap", &["name"]),
    ("quobyte", &["registry", "volume"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
];

/// One source, of a pod's volume or of a persistent volume.
pub(crate) fn volume_source(found: &mut Found, kind: &str, source: &Tree, path: Path<'_>) {
    if let Some((_, fields)) = NEEDED.iter().find(|(one, _)| *one == kind) {
        for field in *fields {
            required(found, source, field, path);
        }
    }
    match kind {
        "emptyDir" if quantity(source.get("sizeLimit")).is_some_and(|limit| limit.is_negative()) => {
            let why = "SizeLimit field must be a valid resource quantity";
            found.push(FieldError::forbidden(path.child("sizeLimit"), why));
        }
        "hostPath" => host_path(found, source, path),
        "nfs" => {
            let text = source.str_at(&["path"]);
            if !text.is_empty() && !text.starts_with('/') {
                found.push(FieldError::invalid(path.child("path"), text, "must be an absolute path"));
            }
        }
        "rbd" | "cephfs" if source.list_at(&["monitors"]).is_empty() => {
            found.push(FieldError::required(path.child("monitors"), ""));
        }
        "secret" | "configMap" | "downwardAPI" => {
            mode(found, source, "defaultMode", path);
            each(source, "items", path, |item, path| match kind {
                "downwardAPI" => downward_file(found, item, path),
                _ => key_to_path(found, item, path),
            });
        }
        "projected" => projected(found, source, path),
        "csi" => {
            crate::storage::csi_driver::driver_name(found, source, "driver", path);
            within(source, "nodePublishSecretRef", path, |reference, path| {
                required(found, reference, "name", path);
            });
        }
        "ephemeral" => match given(source, "volumeClaimTemplate") {
            None => found.push(FieldError::required(path.child("volumeClaimTemplate"), "")),
            Some(template) => claim_template(found, template, path.child("volumeClaimTemplate")),
        },
        "image" => {
            required(found, source, "reference", path);
            maybe_one_of(found, source, "pullPolicy", path, &["Always", "IfNotPresent", "Never"]);
        }
        "local" => {
            if let Some(text) = required(found, source, "path", path) {
                backsteps(found, text, path.child("path"));
            }
        }
        _ => {}
    }
}

fn claim_template(found: &mut Found, template: &Tree, path: Path<'_>) {
    let metadata = path.child("metadata");
    found.extend(name::labels(template.at(&["metadata", "labels"]), metadata.child("labels")));
    found.extend(name::annotations(template.at(&["metadata", "annotations"]), metadata.child("annotations")));
    let spec = template.get("spec").unwrap_or(&Tree::Null);
    crate::core::persistent_volume_claim::claim_spec(found, spec, path.child("spec"));
}

fn host_path(found: &mut Found, source: &Tree, path: Path<'_>) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(text) = required(found, source, "path", path) {
        backsteps(found, text, path.child("path"));
    }
    only_if_given(found, source, "type", path, &TYPES);
}

fn key_to_path(found: &mut Found, item: &Tree, path: Path<'_>) {
    required(found, item, "key", path);
    file(found, item, path);
}

/// Where a file goes below its volume, and who may read it.
fn file(found: &mut Found, item: &Tree, path: Path<'_>) {
    if let Some(text) = required(found, item, "path", path) {
        descending(found, text, path.child("path"));
        if text.starts_with("..") && !text.starts_with("../") {
            found.push(FieldError::invalid(path.child("path"), text, "must not start with '..'"));
        }
    }
    mode(found, item, "mode", path);
}

fn downward_file(found: &mut Found, item: &Tree, path: Path<'_>) {
    file(found, item, path);
    match (given(item, "fieldRef"), given(item, "resourceFieldRef")) {
        (Some(_), Some(_)) => {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            found.push(FieldError::invalid(path, "resource", why));
        }
        (Some(source), None) => field(found, source, &VOLUME_FIELDS, path.child("fieldRef")),
        (None, Some(source)) => resource_field(found, source, true, path.child("resourceFieldRef")),
        (None, None) => {
            found.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
        }
    }
}

const PROJECTIONS: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

fn projected(found: &mut Found, source: &Tree, path: Path<'_>) {
    mode(found, source, "defaultMode", path);
    let mut paths = HashSet::new();
    each(source, "sources", path, |one, path| {
        let mut count = 0;
        for kind in PROJECTIONS {
            let Some(projection) = given(one, kind) else { continue };
            let path = path.child(kind);
            count += 1;
            if count > 1 {
                found.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
                continue;
            }
            self::projection(found, kind, projection, path);
            let own = ["path", "keyPath", "certificateChainPath", "credentialBundlePath"];
            let own = own.iter().map(|field| projection.str_at(&[field]));
            let items = projection.list_at(&["items"]).iter().map(|item| item.str_at(&["path"]));
            for place in own.chain(items).filter(|place| !place.is_empty()) {
                if !paths.insert(place) {
                    let what = projection.str_at(&["name"]);
                    let what = if what.is_empty() { place } else { what };
                    found.push(FieldError::invalid(path, what, "conflicting duplicate paths"));
                }
            }
        }
        if count == 0 {
            found.push(FieldError::required(path, "must specify a volume type"));
        }
    });
}

fn projection(found: &mut Found, kind: &str, projection: &Tree, path: Path<'_>) {
    match kind {
        "secret" | "configMap" => {
            required(found, projection, "name", path);
            each(projection, "items", path, |item, path| key_to_path(found, item, path));
        }
        "downwardAPI" => each(projection, "items", path, |item, path| downward_file(found, item, path)),
        "serviceAccountToken" => {
            let seconds = projection.int_at(&["expirationSeconds"]).unwrap_or(0);
            let why = if seconds < TOKEN_SECONDS.0 {
                Some("may not specify a duration less than 10 minutes")
            } else if seconds > TOKEN_SECONDS.1 {
                Some("may not specify a duration larger than 2^32 seconds")
            } else {
                None
            };
            if let Some(why) = why {
                found.push(FieldError::invalid(path.child("expirationSeconds"), seconds, why));
            }
            file(found, projection, path);
        }
        "clusterTrustBundle" => {
            match (given(projection, "name"), given(projection, "signerName")) {
                (None, None) => {
                    found.push(FieldError::required(path, "either name or signerName must be specified"));
                }
                (Some(name), Some(_)) => {
                    let why = "only one of name and signerName may be used";
                    found.push(FieldError::invalid(path, name.as_str().unwrap_or(""), why));
                }
                _ => {}
            }
            file(found, projection, path);
        }
        "podCertificate" => {
            let types = ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
            crate::checks::only(found, projection, "keyType", path, &types);
            required(found, projection, "signerName", path);
            let places = ["credentialBundlePath", "keyPath", "certificateChainPath"];
            if places.iter().all(|field| projection.str_at(&[field]).is_empty()) {
                let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
                found.push(FieldError::required(path, why));
            }
            for field in places {
                let text = projection.str_at(&[field]);
                if !text.is_empty() {
                    descending(found, text, path.child(field));
                }
            }
        }
        _ => {}
    }
}

fn mode(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    if let Some(mode) = object.int_at(&[field]).filter(|mode| !(0..=0o777).contains(mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        found.push(FieldError::invalid(path.child(field), mode, why));
    }
}

/// Whether a path climbs.
pub(crate) fn has_backsteps(text: &str) -> bool {
    text.split('/').any(|part| part == "..")
}

fn backsteps(found: &mut Found, text: &str, path: Path<'_>) {
    if has_backsteps(text) {
        found.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}

/// A path that stays below where it starts.
pub(super) fn descending(found: &mut Found, text: &str, path: Path<'_>) {
    if text.starts_with('/') {
        found.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    backsteps(found, text, path);
}
