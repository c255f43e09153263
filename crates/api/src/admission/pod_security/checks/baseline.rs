//! The checks of the baseline level.

use std::collections::BTreeSet;

use skiff_object::Tree;

use super::{Pod, Values, Violation, containers, context, plural, profile, quoted, setters};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The profile types that neither disable nor leave open what is enforced.
pub(super) fn is_good_profile(ty: &str) -> bool {
    matches!(ty, "RuntimeDefault" | "Localhost")
}

pub(super) fn app_armor_profile(pod: Pod<'_>) -> Option<Violation> {
    let bad = |of: &Tree| profile(of, "appArmorProfile").is_some_and(|ty| !is_good_profile(ty));
    let names = pod.named(bad);
    let mut values: Values<'_> = std::iter::once(pod.spec)
        .chain(pod.containers())
        .filter(|of| bad(of))
        .filter_map(|of| profile(of, "appArmorProfile"))
        .collect();
    let annotations: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, _)| key.starts_with(APP_ARMOR_ANNOTATION))
        .filter(|(_, value)| !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/")))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(bad(pod.spec), &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    if who.is_empty() {
        return None;
    }
    let all: Vec<&str> =
        std::mem::take(&mut values).into_iter().chain(annotations.iter().map(String::as_str)).collect();
    Violation::new(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", all.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(all)),
    )
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn added(container: &Tree) -> impl Iterator<Item = &str> {
    container.list_at(&["securityContext", "capabilities", "add"]).iter().filter_map(Tree::as_str)
}

pub(super) fn capabilities(pod: Pod<'_>) -> Option<Violation> {
    let bad = |name: &&str| !CAPABILITIES.contains(name);
    let names = pod.named(|container| added(container).any(|name| bad(&name)));
    let values: Values<'_> = pod.containers().flat_map(added).filter(bad).collect();
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(values));
    Violation::new("non-default capabilities", detail)
}

pub(super) fn host_namespaces(pod: Pod<'_>) -> Option<Violation> {
    let set =
        ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec.bool_at(&[field]) == Some(true));
    let shown: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if shown.is_empty() { None } else { Violation::new("host namespaces", shown.join(", ")) }
}

pub(super) fn host_path_volumes(pod: Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec.list_at(&["volumes"]).iter();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.get("hostPath").is_some_and(|source| !source.is_null()))
        .map(|volume| volume.str_at(&["name"]))
        .collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(names));
    Violation::new("hostPath volumes", detail)
}

pub(super) fn host_ports(pod: Pod<'_>) -> Option<Violation> {
    let ports = |container: &Tree| -> Vec<i64> {
        let ports = container.list_at(&["ports"]).iter();
        ports.filter_map(|port| port.int_at(&["hostPort"])).filter(|port| *port != 0).collect()
    };
    let names = pod.named(|container| !ports(container).is_empty());
    // As texts: that is how they are ordered.
    let all: BTreeSet<String> = pod.containers().flat_map(ports).map(|port| port.to_string()).collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", all.len()),
        all.into_iter().collect::<Vec<_>>().join(", ")
    );
    Violation::new("hostPort", detail)
}

const HANDLERS: [&[&str]; 5] = [
    &["livenessProbe"],
    &["readinessProbe"],
    &["startupProbe"],
    &["lifecycle", "postStart"],
    &["lifecycle", "preStop"],
];

pub(super) fn probe_hosts(pod: Pod<'_>) -> Option<Violation> {
    fn hosts(container: &Tree) -> impl Iterator<Item = &str> {
        HANDLERS
            .into_iter()
            .filter_map(|path| container.at(path))
            .flat_map(|handler| [handler.str_at(&["httpGet", "host"]), handler.str_at(&["tcpSocket", "host"])])
            .filter(|host| !host.is_empty())
    }
    let names: Values<'_> = pod.named(|container| hosts(container).next().is_some()).into_iter().collect();
    let all: Values<'_> = pod.containers().flat_map(hosts).collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
        quoted(all)
    );
    Violation::new("probe or lifecycle host", detail)
}

pub(super) fn privileged(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| context(container, "privileged").and_then(Tree::as_bool) == Some(true));
    if names.is_empty() {
        return None;
    }
    Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

pub(super) fn proc_mount(pod: Pod<'_>) -> Option<Violation> {
    fn bad(container: &Tree) -> Option<&str> {
        context(container, "procMount").and_then(Tree::as_str).filter(|ty| *ty != "Default")
    }
    let names = pod.named(|container| bad(container).is_some());
    let values: Values<'_> = pod.containers().filter_map(bad).collect();
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(values));
    Violation::new("procMount", detail)
}

pub(super) fn proc_mount_outside_user_namespaces(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_in_user_namespace() { None } else { proc_mount(pod) }
}

pub(super) fn se_linux_options(pod: Pod<'_>) -> Option<Violation> {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn se_linux_options_with_engine(pod: Pod<'_>) -> Option<Violation> {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux(pod: Pod<'_>, types: &[&str]) -> Option<Violation> {
    let field = |of: &'_ Tree, name: &str| -> bool {
        context(of, "seLinuxOptions").is_some_and(|options| !options.str_at(&[name]).is_empty())
    };
    let bad_type = |of: &Tree| context(of, "seLinuxOptions").is_some_and(|o| !types.contains(&o.str_at(&["type"])));
    let bad = |of: &Tree| bad_type(of) || field(of, "user") || field(of, "role");
    let who = setters(bad(pod.spec), &pod.named(bad))?;
    let everybody = || std::iter::once(pod.spec).chain(pod.containers());
    let found: Values<'_> = everybody()
        .filter(|of| bad_type(of))
        .filter_map(|of| context(of, "seLinuxOptions"))
        .map(|options| options.str_at(&["type"]))
        .collect();
    let mut what = Vec::new();
    if !found.is_empty() {
        what.push(format!("{} {}", plural("type", "types", found.len()), quoted(found)));
    }
    for name in ["user", "role"] {
        if everybody().any(|of| field(of, name)) {
            what.push(format!("{name} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Violation::new("seLinuxOptions", detail)
}

/// Before 1.19 the profile was an annotation.
pub(super) fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    let keys = std::iter::once(SECCOMP_POD_ANNOTATION.to_owned())
        .chain(pod.containers().map(|one| format!("{SECCOMP_CONTAINER_ANNOTATION}{}", one.str_at(&["name"]))));
    let found: BTreeSet<String> = keys
        .filter_map(|key| pod.annotations().find(|(name, _)| *name == key))
        .filter(|(_, value)| {
            !(matches!(*value, "runtime/default" | "docker/default") || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if found.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", found.len());
    Violation::new("seccompProfile", format!("forbidden {word} {}", found.into_iter().collect::<Vec<_>>().join(", ")))
}

pub(super) fn seccomp_profile(pod: Pod<'_>) -> Option<Violation> {
    let bad = |of: &Tree| profile(of, "seccompProfile").is_some_and(|ty| !is_good_profile(ty));
    let who = setters(bad(pod.spec), &pod.named(bad))?;
    let everybody = std::iter::once(pod.spec).chain(pod.containers());
    let values: Values<'_> = everybody.filter(|of| bad(of)).filter_map(|of| profile(of, "seccompProfile")).collect();
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    Violation::new("seccompProfile", detail)
}

/// Safe sysctls by the minor version in which they became so.
const SYSCTLS: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

fn sysctls(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    let is_safe = |name: &str| SYSCTLS.iter().any(|(since, safe)| *since <= minor && *safe == name);
    let names = pod.spec.list_at(&["securityContext", "sysctls"]).iter().map(|one| one.str_at(&["name"]));
    let bad: Vec<&str> = names.filter(|name| !is_safe(name)).collect();
    if bad.is_empty() { None } else { Violation::new("forbidden sysctls", bad.join(", ")) }
}

pub(super) fn sysctls_since_0(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 0)
}

pub(super) fn sysctls_since_27(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 27)
}

pub(super) fn sysctls_since_29(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 29)
}

pub(super) fn sysctls_since_32(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, 32)
}

pub(super) fn windows_host_process(pod: Pod<'_>) -> Option<Violation> {
    let bad = |of: &Tree| of.bool_at(&["securityContext", "windowsOptions", "hostProcess"]) == Some(true);
    let who = setters(bad(pod.spec), &pod.named(bad))?;
    Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
