//! The Pod Security Standards: which checks there are, at which level, and how each changed.
//!
//! A check is a function from a pod to what is wrong with it. Facts, versions and words are those of
//! `k8s.io/pod-security-admission/policy`, as of Kubernetes 1.36.

use std::collections::BTreeSet;

use skiff_object::Tree;

use super::policy::{Level, Rules, Version};

mod baseline;
mod restricted;
#[cfg(test)]
mod tests;

/// A pod, or the template of one.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    /// `metadata`
    pub metadata: &'a Tree,
    /// `spec`
    pub spec: &'a Tree,
}

impl<'a> Pod<'a> {
    /// Every container, in the order in which messages name them.
    fn containers(self) -> impl Iterator<Item = &'a Tree> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| self.spec.list_at(&[list]))
    }

    /// The names of the containers that are `bad`.
    fn named(self, bad: impl Fn(&Tree) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| bad(container)).map(|container| container.str_at(&["name"])).collect()
    }

    fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let annotations = self.metadata.get("annotations").and_then(Tree::as_map).into_iter();
        annotations.flat_map(skiff_object::Map::iter).map(|(key, value)| (key.as_str(), value.as_str().unwrap_or("")))
    }

    fn is_windows(self) -> bool {
        self.spec.str_at(&["os", "name"]) == "windows"
    }

    fn is_in_user_namespace(self) -> bool {
        self.spec.bool_at(&["hostUsers"]) == Some(false)
    }
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In a few words.
    pub reason: String,
    /// Which containers, which values.
    pub detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Self> {
        Some(Self { reason: reason.into(), detail: detail.into() })
    }
}

type Run = fn(Pod<'_>) -> Option<Violation>;

/// How a check is since a minor version; it may stand in for another one of the level below.
struct Since {
    minor: u32,
    run: Run,
    instead_of: &'static str,
}

struct Check {
    id: &'static str,
    level: Level,
    since: &'static [Since],
}

const fn since(minor: u32, run: Run) -> Since {
    Since { minor, run, instead_of: "" }
}

const fn instead(minor: u32, run: Run, instead_of: &'static str) -> Since {
    Since { minor, run, instead_of }
}

const fn baseline(id: &'static str, since: &'static [Since]) -> Check {
    Check { id, level: Level::Baseline, since }
}

const fn restricted(id: &'static str, since: &'static [Since]) -> Check {
    Check { id, level: Level::Restricted, since }
}

/// Every check, in the order in which messages name what they find.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[since(0, baseline::app_armor_profile)]),
    baseline("capabilities_baseline", &[since(0, baseline::capabilities)]),
    baseline("hostNamespaces", &[since(0, baseline::host_namespaces)]),
    baseline("hostPathVolumes", &[since(0, baseline::host_path_volumes)]),
    baseline("hostPorts", &[since(0, baseline::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[since(34, baseline::probe_hosts)]),
    baseline("privileged", &[since(0, baseline::privileged)]),
    baseline("procMount", &[since(0, baseline::proc_mount), since(35, baseline::proc_mount_outside_user_namespaces)]),
    baseline(
        "seLinuxOptions",
        &[since(0, baseline::se_linux_options), since(31, baseline::se_linux_options_with_engine)],
    ),
    baseline(
        "seccompProfile_baseline",
        &[since(0, baseline::seccomp_annotations), since(19, baseline::seccomp_profile)],
    ),
    baseline(
        "sysctls",
        &[
            since(0, baseline::sysctls_since_0),
            since(27, baseline::sysctls_since_27),
            since(29, baseline::sysctls_since_29),
            since(32, baseline::sysctls_since_32),
        ],
    ),
    baseline("windowsHostProcess", &[since(0, baseline::windows_host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[since(8, restricted::privilege_escalation), since(25, restricted::privilege_escalation_but_windows)],
    ),
    restricted(
        "capabilities_restricted",
        &[
            instead(22, restricted::capabilities, "capabilities_baseline"),
            instead(25, restricted::capabilities_but_windows, "capabilities_baseline"),
        ],
    ),
    restricted("procMount_restricted", &[instead(35, baseline::proc_mount, "procMount")]),
    restricted("restrictedVolumes", &[instead(0, restricted::volumes, "hostPathVolumes")]),
    restricted(
        "runAsNonRoot",
        &[since(0, restricted::run_as_non_root), since(35, restricted::run_as_non_root_outside_user_namespaces)],
    ),
    restricted(
        "runAsUser",
        &[since(23, restricted::run_as_user), since(35, restricted::run_as_user_outside_user_namespaces)],
    ),
    restricted(
        "seccompProfile_restricted",
        &[
            instead(19, restricted::seccomp_profile, "seccompProfile_baseline"),
            instead(25, restricted::seccomp_profile_but_windows, "seccompProfile_baseline"),
        ],
    ),
];

/// Everything that a pod has against it by these rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Violation>);

impl Findings {
    /// `reason, reason`
    pub fn reasons(&self) -> String {
        self.0.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// `reason (detail), reason (detail)`
    pub fn details(&self) -> String {
        let show = |one: &Violation| match one.detail.as_str() {
            "" => one.reason.clone(),
            detail => format!("{} ({detail})", one.reason),
        };
        self.0.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

/// Runs the checks of a level in a version.
pub fn evaluate(rules: Rules, pod: Pod<'_>) -> Findings {
    if rules.level == Level::Privileged {
        return Findings::default();
    }
    let minor = match rules.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    let current: Vec<(&str, &Since)> = CHECKS
        .iter()
        .filter(|check| check.level <= rules.level)
        .filter_map(|check| Some((check.id, check.since.iter().rev().find(|since| since.minor <= minor)?)))
        .collect();
    let runs = |id: &str| current.iter().all(|(_, since)| since.instead_of != id);
    Findings(current.iter().filter(|(id, _)| runs(id)).filter_map(|(_, since)| (since.run)(pod)).collect())
}

/// `"a", "b"`
fn quoted<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    items.into_iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
}

const fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// `pod and container "a"`: who sets something that is not allowed, if anybody.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".into()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

/// A field of the security context of a pod or container, unless it is null.
fn context<'a>(of: &'a Tree, field: &str) -> Option<&'a Tree> {
    of.at(&["securityContext", field]).filter(|value| !value.is_null())
}

/// The `type` of a profile that is set.
fn profile<'a>(of: &'a Tree, field: &str) -> Option<&'a str> {
    context(of, field).map(|profile| profile.str_at(&["type"]))
}

/// Sorted and each once.
type Values<'a> = BTreeSet<&'a str>;
