//! The checks of the restricted level.

use skiff_object::Tree;

use super::baseline::{added, is_good_profile};
use super::{Pod, Values, Violation, containers, context, plural, profile, quoted, setters};

pub(super) fn privilege_escalation(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|one| context(one, "allowPrivilegeEscalation").and_then(Tree::as_bool) != Some(false));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    Violation::new("allowPrivilegeEscalation != false", detail)
}

pub(super) fn privilege_escalation_but_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

pub(super) fn capabilities(pod: Pod<'_>) -> Option<Violation> {
    let drops_all = |container: &Tree| {
        let dropped = container.list_at(&["securityContext", "capabilities", "drop"]);
        dropped.iter().any(|name| name.as_str() == Some("ALL"))
    };
    let bad = |name: &&str| *name != "NET_BIND_SERVICE";
    let missing = pod.named(|container| !drops_all(container));
    let adding = pod.named(|container| added(container).any(|name| bad(&name)));
    let values: Values<'_> = pod.containers().flat_map(added).filter(bad).collect();
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(values));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { Violation::new("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn capabilities_but_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { capabilities(pod) }
}

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(super) fn volumes(pod: Pod<'_>) -> Option<Violation> {
    let has = |volume: &Tree, source: &&str| volume.get(source).is_some_and(|source| !source.is_null());
    let bad = || {
        let volumes = pod.spec.list_at(&["volumes"]).iter();
        volumes.filter(|volume| !VOLUMES.iter().any(|source| has(volume, source)))
    };
    let names: Vec<&str> = bad().map(|volume| volume.str_at(&["name"])).collect();
    let types: Values<'_> = bad()
        .map(|volume| RESTRICTED_VOLUMES.into_iter().find(|source| has(volume, source)).unwrap_or("unknown"))
        .collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(names.iter().copied()),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(types)
    );
    Violation::new("restricted volume types", detail)
}

pub(super) fn run_as_non_root(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let said = |of: &Tree| context(of, "runAsNonRoot").and_then(Tree::as_bool);
    if let Some(who) = setters(said(pod.spec) == Some(false), &pod.named(|one| said(one) == Some(false))) {
        return Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.named(|container| said(container).is_none() && said(pod.spec) != Some(true));
    if silent.is_empty() {
        return None;
    }
    Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

pub(super) fn run_as_non_root_outside_user_namespaces(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_in_user_namespace() { None } else { run_as_non_root(pod) }
}

pub(super) fn run_as_user(pod: Pod<'_>) -> Option<Violation> {
    let is_root = |of: &Tree| context(of, "runAsUser").and_then(Tree::as_int) == Some(0);
    let who = setters(is_root(pod.spec), &pod.named(is_root))?;
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

pub(super) fn run_as_user_outside_user_namespaces(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_in_user_namespace() { None } else { run_as_user(pod) }
}

pub(super) fn seccomp_profile(pod: Pod<'_>) -> Option<Violation> {
    let bad = super::baseline::seccomp_profile(pod);
    if bad.is_some() {
        return bad;
    }
    let is_set = profile(pod.spec, "seccompProfile").is_some_and(is_good_profile);
    let silent = pod.named(|container| !is_set && profile(container, "seccompProfile").is_none());
    if silent.is_empty() {
        return None;
    }
    let who = containers(&silent);
    let detail =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    Violation::new("seccompProfile", detail)
}

pub(super) fn seccomp_profile_but_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { seccomp_profile(pod) }
}
