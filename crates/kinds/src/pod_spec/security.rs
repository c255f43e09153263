//! Security contexts, and what an operating system rules out.

use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::volumes::descending;
use crate::checks::{Found, each, formed, given, invalid_number, only, only_if_given, within};

/// How long the name of an AppArmor profile may be.
const APP_ARMOR_BYTES_MAX: usize = 4_095;
/// How long the name of a kernel parameter may be.
const SYSCTL_BYTES_MAX: usize = 253;

/// The security context of a pod, and what it shares with its node.
pub(super) fn pod_security(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let flag = |field: &str| spec.bool_at(&[field]) == Some(true);
    let spec_path = path;
    if spec.bool_at(&["hostUsers"]) == Some(false) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if flag(field) {
                found.push(FieldError::forbidden(spec_path.child(field), "when `hostUsers` is false"));
            }
        }
    }
    let path = path.child("securityContext");
    if flag("shareProcessNamespace") && flag("hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        found.push(FieldError::invalid(path.child("shareProcessNamespace"), true, why));
    }
    let Some(context) = given(spec, "securityContext") else { return };
    ids(found, context, path);
    for id in context.list_at(&["supplementalGroups"]).iter().filter_map(Tree::as_int) {
        invalid_number(found, path.child("supplementalGroups"), id, id_range(id));
    }
    only_if_given(found, context, "supplementalGroupsPolicy", path, &["Merge", "Strict"]);
    only_if_given(found, context, "fsGroupChangePolicy", path, &["Always", "OnRootMismatch"]);
    only_if_given(found, context, "seLinuxChangePolicy", path, &["MountOption", "Recursive"]);
    sysctls(found, context, path, flag("hostNetwork"), flag("hostIPC"));
    profiles(found, context, path);
}

/// The security context of a container.
pub(super) fn container_security(found: &mut Found, container: &Tree, path: Path<'_>) {
    within(container, "securityContext", path, |context, path| {
        ids(found, context, path);
        only_if_given(found, context, "procMount", path, &["Default", "Unmasked"]);
        profiles(found, context, path);
        if context.bool_at(&["allowPrivilegeEscalation"]) != Some(false) {
            return;
        }
        if context.bool_at(&["privileged"]) == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            found.push(FieldError::invalid(path, BadValue::from(context), why));
        }
        let added = context.list_at(&["capabilities", "add"]);
        if added.iter().any(|one| one.as_str() == Some("CAP_SYS_ADMIN")) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            found.push(FieldError::invalid(path, BadValue::from(context), why));
        }
    });
}

fn id_range(id: i64) -> Vec<String> {
    name::in_range(id, 0, i64::from(i32::MAX))
}

fn ids(found: &mut Found, context: &Tree, path: Path<'_>) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = context.int_at(&[field]) {
            invalid_number(found, path.child(field), id, id_range(id));
        }
    }
}

fn profiles(found: &mut Found, context: &Tree, path: Path<'_>) {
    for (field, what) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        within(context, field, path, |profile, path| {
            match profile.str_at(&["type"]) {
                "" => {
                    let why = format!("type is required when {field} is set");
                    found.push(FieldError::required(path.child("type"), why));
                }
                _ => only(found, profile, "type", path, &["Localhost", "RuntimeDefault", "Unconfined"]),
            }
            local_profile(found, profile, what, path);
        });
    }
    within(context, "windowsOptions", path, |options, path| {
        for field in ["gmsaCredentialSpecName", "gmsaCredentialSpec", "runAsUserName"] {
            if given(options, field).is_some() && options.str_at(&[field]).is_empty() {
                let why = format!("{field} cannot be an empty string");
                found.push(FieldError::invalid(path.child(field), "", why));
            }
        }
        formed(found, options, "gmsaCredentialSpecName", path, name::dns1123_subdomain);
    });
}

fn local_profile(found: &mut Found, profile: &Tree, what: &str, path: Path<'_>) {
    let local = profile.str_at(&["type"]) == "Localhost";
    let path = path.child("localhostProfile");
    let given = given(profile, "localhostProfile").map(|text| text.as_str().unwrap_or(""));
    match given {
        None if local => {
            found.push(FieldError::required(path, format!("must be set when {what} type is Localhost")));
        }
        None => {}
        Some(text) if !local => {
            let why = format!("can only be set when {what} type is Localhost");
            found.push(FieldError::invalid(path, text, why));
        }
        Some(text) if what == "seccomp" => descending(found, text, path),
        Some(text) => {
            if text.trim() != text {
                found.push(FieldError::invalid(path, text, "must not be padded with whitespace"));
            } else if text.is_empty() {
                found.push(FieldError::required(path, format!("must be set when {what} type is Localhost")));
            }
            if text.len() > APP_ARMOR_BYTES_MAX {
                found.push(FieldError::too_long(path, APP_ARMOR_BYTES_MAX));
            }
        }
    }
}

fn sysctls(found: &mut Found, context: &Tree, path: Path<'_>, host_network: bool, host_ipc: bool) {
    let mut names = HashSet::new();
    each(context, "sysctls", path, |sysctl, path| {
        let path = path.child("name");
        let text = sysctl.str_at(&["name"]);
        if text.is_empty() {
            found.push(FieldError::required(path, ""));
        } else if text.len() > SYSCTL_BYTES_MAX || !text.split(['.', '/']).all(is_sysctl_segment) {
            let why = format!(
                "must have at most {SYSCTL_BYTES_MAX} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            found.push(FieldError::invalid(path, text, why));
        } else if !names.insert(text) {
            found.push(FieldError::duplicate(path, text));
        }
        let dotted = text.replace('/', ".");
        let of_network = dotted.starts_with("net.");
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix))
            || dotted == "kernel.sem";
        for (wrong, field) in [(host_network && of_network, "hostNetwork"), (host_ipc && of_ipc, "hostIPC")] {
            if wrong {
                let why = format!("may not be specified when '{field}' is true");
                found.push(FieldError::invalid(path, text, why));
            }
        }
    });
}

fn is_sysctl_segment(segment: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(segment.bytes().next())
        && edge(segment.bytes().last())
        && segment.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_'))
}

const NOT_FOR_WINDOWS_POD: [&str; 12] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
    "shareProcessNamespace",
];

const NOT_FOR_WINDOWS_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// What the operating system that a pod is for rules out.
pub(super) fn operating_system(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let Some(os) = given(spec, "os") else { return };
    let context_path = path.child("securityContext");
    let contexts = |found: &mut Found, judge: &dyn Fn(&mut Found, &Tree, Path<'_>)| {
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            each(spec, list, path, |container, path| {
                within(container, "securityContext", path, |context, path| {
                    judge(found, context, path);
                })
            });
        }
    };
    match os.str_at(&["name"]) {
        "" => found.push(FieldError::required(path.child("os").child("name"), "cannot be empty")),
        "linux" => {
            let judge = |found: &mut Found, context: &Tree, path: Path<'_>| {
                if given(context, "windowsOptions").is_some() {
                    let why = "windows options cannot be set for a linux pod";
                    found.push(FieldError::forbidden(path.child("windowsOptions"), why));
                }
            };
            within(spec, "securityContext", path, |context, path| judge(found, context, path));
            contexts(found, &judge);
        }
        "windows" => {
            const WHY: &str = "cannot be set for a windows pod";
            let set = |object: &Tree, field: &str| {
                given(object, field).is_some_and(|value| *value != Tree::Bool(false) || field == "hostUsers")
            };
            for field in ["hostPID", "hostIPC", "hostUsers"] {
                if set(spec, field) {
                    found.push(FieldError::forbidden(path.child(field), WHY));
                }
            }
            let context = spec.get("securityContext").unwrap_or(&Tree::Null);
            for field in NOT_FOR_WINDOWS_POD {
                let owner = if field == "shareProcessNamespace" { spec } else { context };
                if given(owner, field).is_some() {
                    found.push(FieldError::forbidden(context_path.child(field), WHY));
                }
            }
            contexts(found, &|found, context, path| {
                for field in NOT_FOR_WINDOWS_CONTAINER {
                    if given(context, field).is_some() {
                        found.push(FieldError::forbidden(path.child(field), WHY));
                    }
                }
            });
        }
        _ => only(found, os, "name", path.child("os"), &["linux", "windows"]),
    }
}
