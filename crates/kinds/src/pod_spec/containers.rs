//! What must hold for the containers of a pod.

use std::collections::{HashMap, HashSet};

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::env::{env, env_from};
use super::probes::{lifecycle, probes};
use super::security::container_security;
use super::validate::protocol;
use super::volumes::{descending, has_backsteps};
use crate::checks::resources::{Strictness, requirements};
use crate::checks::{
    Found, at_most, each, given, invalid, invalid_number, maybe_one_of, only, only_if_given, required,
};
use crate::rules;

/// How many rules about restarts a container may have, and how many exit codes each.
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What containers refer to.
pub(super) struct Surroundings<'a> {
    /// The volumes of the pod by name.
    pub(super) volumes: &'a HashMap<&'a str, &'a Tree>,
    /// The names of its claims for devices.
    pub(super) claims: &'a HashSet<&'a str>,
}

const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// All containers of a pod spec.
pub(super) fn containers(found: &mut Found, spec: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    if spec.list_at(&["containers"]).is_empty() {
        found.push(FieldError::required(path.child("containers"), ""));
    }
    let mut names = HashSet::new();
    let mut host_ports = HashSet::new();
    for list in LISTS {
        each(spec, list, path, |one, path| {
            container(found, one, around, path);
            let text = one.str_at(&["name"]);
            if !text.is_empty() && !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
            match list {
                "ephemeralContainers" => ephemeral(found, one, spec, path),
                "initContainers" if one.str_at(&["restartPolicy"]) != "Always" => not_sidecar(found, one, path),
                _ => {
                    lifecycle(found, one, spec, path);
                    probes(found, one, path);
                }
            }
            restarts(found, one, path);
            if list != "ephemeralContainers" {
                let sidecar_or_main = list == "containers" || one.str_at(&["restartPolicy"]) == "Always";
                if sidecar_or_main {
                    conflicting_ports(found, one, &mut host_ports, path.child("ports"));
                }
                if spec.bool_at(&["hostNetwork"]) == Some(true) {
                    each(one, "ports", path, |port, path| {
                        let [host, own] = ["hostPort", "containerPort"].map(|field| port.int_at(&[field]).unwrap_or(0));
                        // Templates may leave it to the pod.
                        if host != 0 && host != own {
                            let why = "must match `containerPort` when `hostNetwork` is true";
                            found.push(FieldError::invalid(path.child("hostPort"), host, why));
                        }
                    });
                }
            }
        });
    }
}

fn not_sidecar(found: &mut Found, container: &Tree, path: Path<'_>) {
    let why = "may not be set for init containers without restartPolicy=Always";
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if given(container, field).is_some() {
            found.push(FieldError::forbidden(path.child(field), why));
        }
    }
}

fn ephemeral(found: &mut Found, container: &Tree, spec: &Tree, path: Path<'_>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    const NOT_ALLOWED: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let target = container.str_at(&["targetContainerName"]);
    let known = |list: &&str| spec.list_at(&[list]).iter().any(|one| one.str_at(&["name"]) == target);
    if !target.is_empty() && !LISTS[..2].iter().any(known) {
        found.push(FieldError::not_found(path.child("targetContainerName"), target));
    }
    for field in NOT_ALLOWED {
        if !rules::same(container.get(field), None) {
            found.push(FieldError::forbidden(path.child(field), WHY));
        }
    }
    each(container, "volumeMounts", path, |mount, path| {
        for field in ["subPath", "subPathExpr"] {
            if !mount.str_at(&[field]).is_empty() {
                found.push(FieldError::forbidden(path.child(field), WHY));
            }
        }
    });
}

/// What happens when the container ends.
fn restarts(found: &mut Found, container: &Tree, path: Path<'_>) {
    only_if_given(found, container, "restartPolicy", path, &["Always", "Never", "OnFailure"]);
    let rules = container.list_at(&["restartPolicyRules"]);
    if !rules.is_empty() && given(container, "restartPolicy").is_none() {
        let why = "must specify restartPolicy when restart rules are used";
        found.push(FieldError::required(path.child("restartPolicy"), why));
    }
    at_most(found, container, "restartPolicyRules", path, RESTART_RULES_MAX);
    each(container, "restartPolicyRules", path, |rule, path| {
        only(found, rule, "action", path, &["Restart", "RestartAllContainers"]);
        let Some(codes) = given(rule, "exitCodes") else {
            found.push(FieldError::required(path.child("exitCodes"), "must be specified"));
            return;
        };
        let path = path.child("exitCodes");
        only(found, codes, "operator", path, &["In", "NotIn"]);
        at_most(found, codes, "values", path, EXIT_CODES_MAX);
    });
}

fn conflicting_ports<'t>(
    found: &mut Found,
    container: &'t Tree,
    taken: &mut HashSet<(&'t str, &'t str, i64)>,
    path: Path<'_>,
) {
    for (index, port) in container.list_at(&["ports"]).iter().enumerate() {
        let number = port.int_at(&["hostPort"]).unwrap_or(0);
        let key = (port.str_at(&["protocol"]), port.str_at(&["hostIP"]), number);
        if number != 0 && !taken.insert(key) {
            let value = BadValue::Text(format!("{}/{}/{number}", key.0, key.1));
            found.push(FieldError::duplicate(path.index(index).child("hostPort"), value));
        }
    }
}

fn container(found: &mut Found, container: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    if let Some(text) = required(found, container, "name", path) {
        invalid(found, path.child("name"), text, name::dns1123_label(text));
    }
    if let Some(image) = required(found, container, "image", path)
        && image.trim() != image
    {
        let why = "must not have leading or trailing whitespace";
        found.push(FieldError::invalid(path.child("image"), image, why));
    }
    match container.str_at(&["terminationMessagePolicy"]) {
        "" => found.push(FieldError::required(path.child("terminationMessagePolicy"), "")),
        _ => only(found, container, "terminationMessagePolicy", path, &["File", "FallbackToLogsOnError"]),
    }
    ports(found, container, path);
    env(found, container, around, path);
    env_from(found, container, path);
    mounts(found, container, around, path);
    devices(found, container, around, path);
    match container.str_at(&["imagePullPolicy"]) {
        "" => found.push(FieldError::required(path.child("imagePullPolicy"), "")),
        _ => only(found, container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"]),
    }
    if let Some(resources) = given(container, "resources") {
        let path = path.child("resources");
        requirements(found, resources, Strictness::default(), path);
        claims(found, resources, around, path);
    }
    resize_policy(found, container, path);
    container_security(found, container, path);
}

fn claims(found: &mut Found, resources: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    let mut seen = HashSet::new();
    each(resources, "claims", path, |claim, path| {
        let text = claim.str_at(&["name"]);
        if text.is_empty() {
            found.push(FieldError::required(path, ""));
            return;
        }
        if !seen.insert((text, claim.str_at(&["request"]))) {
            found.push(FieldError::duplicate(path, text));
        }
        if !around.claims.contains(text) {
            found.push(FieldError::not_found(path, text));
        }
    });
}

fn resize_policy(found: &mut Found, container: &Tree, path: Path<'_>) {
    let list = path.child("resizePolicy");
    let mut seen = HashSet::new();
    for policy in container.list_at(&["resizePolicy"]) {
        let [resource, restart] = ["resourceName", "restartPolicy"].map(|field| policy.str_at(&[field]));
        if !seen.insert(resource) {
            found.push(FieldError::duplicate(list, resource));
        }
        for (value, known) in [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            if value.is_empty() {
                found.push(FieldError::required(list, ""));
            } else if !known.contains(&value) {
                found.push(FieldError::not_supported(list, value, &known));
            }
        }
    }
}

fn ports(found: &mut Found, container: &Tree, path: Path<'_>) {
    let mut names = HashSet::new();
    each(container, "ports", path, |one, path| {
        let text = one.str_at(&["name"]);
        if !text.is_empty() {
            let wrong = name::port_name(text);
            if wrong.is_empty() && !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
            invalid(found, path.child("name"), text, wrong);
        }
        match one.int_at(&["containerPort"]).unwrap_or(0) {
            0 => found.push(FieldError::required(path.child("containerPort"), "")),
            number => invalid_number(found, path.child("containerPort"), number, name::port_number(number)),
        }
        if let Some(number) = one.int_at(&["hostPort"]).filter(|number| *number != 0) {
            invalid_number(found, path.child("hostPort"), number, name::port_number(number));
        }
        protocol(found, one, path);
    });
}

fn mounts(found: &mut Found, container: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    let mut places = HashSet::new();
    let devices = container.list_at(&["volumeDevices"]);
    each(container, "volumeMounts", path, |mount, path| {
        let text = mount.str_at(&["name"]);
        if text.is_empty() {
            found.push(FieldError::required(path.child("name"), ""));
        }
        if !around.volumes.contains_key(text) {
            found.push(FieldError::not_found(path.child("name"), text));
        }
        let place = mount.str_at(&["mountPath"]);
        if place.is_empty() {
            found.push(FieldError::required(path.child("mountPath"), ""));
        }
        if !places.insert(place) {
            found.push(FieldError::invalid(path.child("mountPath"), place, "must be unique"));
        }
        if devices.iter().any(|device| device.str_at(&["name"]) == text) {
            let why = "must not already exist in volumeDevices";
            found.push(FieldError::invalid(path.child("name"), text, why));
        }
        if devices.iter().any(|device| device.str_at(&["devicePath"]) == place) {
            let why = "must not already exist as a path in volumeDevices";
            found.push(FieldError::invalid(path.child("mountPath"), place, why));
        }
        for field in ["subPath", "subPathExpr"] {
            let text = mount.str_at(&[field]);
            if !text.is_empty() {
                descending(found, text, path.child(field));
            }
        }
        let expression = mount.str_at(&["subPathExpr"]);
        if !mount.str_at(&["subPath"]).is_empty() && !expression.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            found.push(FieldError::invalid(path.child("subPathExpr"), expression, why));
        }
        propagation(found, mount, container, path);
    });
}

/// Who sees what is mounted below a mount, and who may write there.
fn propagation(found: &mut Found, mount: &Tree, container: &Tree, path: Path<'_>) {
    only_if_given(found, mount, "mountPropagation", path, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.bool_at(&["securityContext", "privileged"]) == Some(true);
    if mount.str_at(&["mountPropagation"]) == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        found.push(FieldError::forbidden(path.child("mountPropagation"), why));
    }
    maybe_one_of(found, mount, "recursiveReadOnly", path, &["Disabled", "Enabled", "IfPossible"]);
    if !matches!(mount.str_at(&["recursiveReadOnly"]), "Enabled" | "IfPossible") {
        return;
    }
    let path = path.child("recursiveReadOnly");
    if mount.bool_at(&["readOnly"]) != Some(true) {
        found.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
    }
    if !matches!(mount.str_at(&["mountPropagation"]), "" | "None") {
        let why = "may only be specified when mountPropagation is None or not specified";
        found.push(FieldError::forbidden(path, why));
    }
}

fn devices(found: &mut Found, container: &Tree, around: &Surroundings<'_>, path: Path<'_>) {
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    each(container, "volumeDevices", path, |device, path| {
        let [text, place] = ["name", "devicePath"].map(|field| device.str_at(&[field]));
        if text.is_empty() {
            found.push(FieldError::required(path.child("name"), ""));
        }
        if !names.insert(text) {
            found.push(FieldError::invalid(path.child("name"), text, "must be unique"));
        }
        match around.volumes.get(text) {
            None => found.push(FieldError::not_found(path.child("name"), text)),
            Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().all(|kind| given(volume, kind).is_none()) => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                found.push(FieldError::invalid(path.child("name"), text, why));
            }
            Some(_) => {}
        }
        if place.is_empty() {
            found.push(FieldError::required(path.child("devicePath"), ""));
        }
        if !places.insert(place) {
            found.push(FieldError::invalid(path.child("devicePath"), place, "must be unique"));
        }
        if has_backsteps(place) {
            let why = "can not contain backsteps ('..')";
            found.push(FieldError::invalid(path.child("devicePath"), place, why));
        }
    });
}
