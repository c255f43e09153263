//! What must hold for environment variables and where their values come from.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Map, Tree, name};

use super::containers::Surroundings;
use super::volumes::descending;
use crate::checks::resources::quantity;
use crate::checks::{Found, each, formed, given, invalid, needed, required};

/// What the environment can tell of a pod.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a volume can tell of a pod.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// What is known of pods, though not everybody may tell it.
const OTHER_FIELDS: [&str; 5] =
    ["spec.restartPolicy", "spec.schedulerName", "spec.hostNetwork", "status.phase", "spec.host"];
/// What can be told of a container's resources.
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn env(found: &mut Found, container: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    each(container, "env", path, |one, path| {
        needed(found, one, "name", path, name::env_var_name);
        let Some(source) = given(one, "valueFrom") else { return };
        let path = path.child("valueFrom");
        let sources: Vec<_> =
            source.as_map().into_iter().flat_map(Map::iter).filter(|(_, value)| !value.is_null()).collect();
        for (kind, source) in &sources {
            let path = path.child(kind.as_str());
            match kind.as_str() {
                "fieldRef" => field(found, source, &ENV_FIELDS, path),
                "resourceFieldRef" => resource_field(found, source, false, path),
                "configMapKeyRef" | "secretKeyRef" => {
                    required(found, source, "name", path);
                    needed(found, source, "key", path, name::config_map_key);
                }
                "fileKeyRef" => file_key(found, source, around, path),
                _ => {}
            }
        }
        let why = match (sources.len(), one.str_at(&["value"])) {
            (0, _) => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            }
            (_, value) if !value.is_empty() => "may not be specified when `value` is not empty",
            (1, _) => return,
            _ => "may not have more than one field specified at a time",
        };
        found.push(FieldError::invalid(path, "", why));
    });
}

pub(super) fn env_from(found: &mut Found, container: &Tree, path: Path<'_>) {
    each(container, "envFrom", path, |one, path| {
        formed(found, one, "prefix", path, name::env_var_name);
        let mut count = 0;
        for kind in ["configMapRef", "secretRef"] {
            if let Some(source) = given(one, kind) {
                count += 1;
                required(found, source, "name", path.child(kind));
            }
        }
        match count {
            0 => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                found.push(FieldError::invalid(path, "", why));
            }
            1 => {}
            _ => {
                let why = "may not have more than one field specified at a time";
                found.push(FieldError::invalid(path, "", why));
            }
        }
    });
}

/// A variable in a file of an emptyDir volume.
fn file_key(found: &mut Found, source: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    needed(found, source, "key", path, name::env_var_name);
    if let Some(volume) = required(found, source, "volumeName", path) {
        match around.volumes.get(volume) {
            None => found.push(FieldError::not_found(path.child("volumeName"), volume)),
            Some(source) if given(source, "emptyDir").is_none() => {
                let why = "referenced volume must be of type emptyDir";
                found.push(FieldError::invalid(path.child("volumeName"), volume, why));
            }
            Some(_) => {}
        }
    }
    if let Some(text) = required(found, source, "path", path) {
        descending(found, text, path.child("path"));
    }
}

/// A field of the pod, one of these; labels and annotations also one by one.
pub(super) fn field(found: &mut Found, source: &Tree, known: &[&str], path: Path<'_>) {
    required(found, source, "apiVersion", path);
    let Some(text) = required(found, source, "fieldPath", path) else { return };
    let subscript = text.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let path = path.child("fieldPath");
    match subscript {
        Some((parent @ ("metadata.annotations" | "metadata.labels"), key)) => {
            let key_to_judge = if parent.ends_with("annotations") { key.to_lowercase() } else { key.to_owned() };
            invalid(found, path, key, name::qualified_name(&key_to_judge));
        }
        Some((parent, _)) => {
            found.push(FieldError::invalid(path, parent, "does not support subscript"));
        }
        None if known.contains(&text) => {}
        None if [&ENV_FIELDS[..], &VOLUME_FIELDS[..], &OTHER_FIELDS[..]].iter().any(|all| all.contains(&text)) => {
            found.push(FieldError::not_supported(path, text, known));
        }
        None => {
            let why = format!("error converting fieldPath: field label not supported: {text}");
            found.push(FieldError::invalid(path, text, why));
        }
    }
}

/// What a container asks for, in parts of a divisor.
pub(super) fn resource_field(found: &mut Found, source: &Tree, in_volume: bool, path: Path<'_>) {
    const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    if in_volume && source.str_at(&["containerName"]).is_empty() {
        found.push(FieldError::required(path.child("containerName"), ""));
        return;
    }
    let Some(resource) = required(found, source, "resource", path) else { return };
    let pages = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    if !RESOURCES.contains(&resource) && !pages {
        found.push(FieldError::not_supported(path.child("resource"), resource, &RESOURCES));
    }
    let Some(divisor) = quantity(source.get("divisor")).filter(|divisor| !divisor.is_zero()) else { return };
    let text = divisor.to_string();
    let kind = resource.split_once('.').map_or("", |(_, kind)| kind);
    let (fine, shown, what) = match kind {
        "cpu" => (matches!(text.as_str(), "1" | "1m"), "1m and 1", "cpu"),
        "memory" => (BYTES.split(", ").any(|one| one == text), BYTES, "memory"),
        "ephemeral-storage" => (BYTES.split(", ").any(|one| one == text), BYTES, "local ephemeral storage"),
        _ if pages => (BYTES.split(", ").any(|one| one == text), BYTES, "hugepages"),
        _ => return,
    };
    if !fine {
        let why = format!("only divisor's values {shown} are supported with the {what} resource");
        found.push(FieldError::invalid(path.child("divisor"), BadValue::from(text), why));
    }
}
