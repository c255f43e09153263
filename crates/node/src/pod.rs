//! A pod as the kubelet reads it: computed once per version, shared by every part.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use skiff_base::Timestamp;

/// What a container is to its pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Runs to completion before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, runs beside the apps.
    Sidecar,
    /// An ordinary container.
    App,
    /// Added by `kubectl debug`; never restarted.
    Ephemeral,
}

/// One container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct ContainerSpec {
    pub(crate) role: Role,
    pub(crate) container: Container,
    /// The container whose process namespace an ephemeral container joins.
    pub(crate) target: Option<String>,
    /// Changes when the running container no longer is what the pod asks for.
    pub(crate) hash: String,
}

/// A pod with the derived facts that several parts need.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) containers: Vec<ContainerSpec>,
}

/// Annotations that decide where a pod comes from.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub(crate) const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

impl PodView {
    /// Reads `pod`; `None` when it lacks a name, a uid or a spec, which no stored pod does.
    pub(crate) fn new(pod: Arc<Pod>) -> Option<Arc<Self>> {
        let uid = pod.metadata.uid.clone()?;
        let name = pod.metadata.name.clone()?;
        let namespace = pod.metadata.namespace.clone()?;
        let spec = pod.spec.as_ref()?;
        let mut containers = Vec::with_capacity(spec.containers.len());
        for container in spec.init_containers.iter().flatten() {
            let always = container.restart_policy.as_deref() == Some("Always");
            let role = if always { Role::Sidecar } else { Role::Init };
            containers.push(ContainerSpec::new(role, container.clone(), None));
        }
        for container in &spec.containers {
            containers.push(ContainerSpec::new(Role::App, container.clone(), None));
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            let target = container.target_container_name.clone().filter(|name| !name.is_empty());
            containers.push(ContainerSpec::new(Role::Ephemeral, from_ephemeral(container), target));
        }
        Some(Arc::new(Self { uid, namespace, name, containers, pod }))
    }

    pub(crate) fn spec(&self) -> &PodSpec {
        // `new` refuses a pod without a spec.
        static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
        self.pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
    }

    pub(crate) fn status(&self) -> PodStatus {
        self.pod.status.clone().unwrap_or_default()
    }

    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref())
    }

    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &ContainerSpec> {
        self.containers.iter().filter(move |spec| spec.role == role)
    }

    /// Init containers and sidecars in the order the pod lists them.
    pub(crate) fn starters(&self) -> impl DoubleEndedIterator<Item = &ContainerSpec> {
        self.containers.iter().filter(|spec| matches!(spec.role, Role::Init | Role::Sidecar))
    }

    pub(crate) fn container(&self, name: &str) -> Option<&ContainerSpec> {
        self.containers.iter().find(|spec| spec.container.name == name)
    }

    pub(crate) fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// A pod that only shows a component of the node: nothing is to be run for it.
    pub(crate) fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR).is_some()
    }

    pub(crate) fn deleted_at(&self) -> Option<Timestamp> {
        self.pod.metadata.deletion_timestamp.as_ref().map(from_time)
    }

    pub(crate) fn phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
    }

    /// The API already shows a final phase.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Seconds between SIGTERM and SIGKILL, as the deletion or else the spec says.
    pub(crate) fn grace_seconds(&self) -> i64 {
        if self.pod.metadata.deletion_timestamp.is_some()
            && let Some(seconds) = self.pod.metadata.deletion_grace_period_seconds
        {
            return seconds.max(0);
        }
        self.spec().termination_grace_period_seconds.unwrap_or(30).max(0)
    }

    /// Critical pods are admitted and kept before all others (`system-cluster-critical` is
    /// 2,000,000,000).
    pub(crate) fn is_critical(&self) -> bool {
        self.spec().priority.unwrap_or(0) >= 2_000_000_000
    }
}

impl ContainerSpec {
    fn new(role: Role, container: Container, target: Option<String>) -> Self {
        let image = container.image.as_deref().unwrap_or_default();
        let hash = format!("{:x}", fnv(&[container.name.as_bytes(), image.as_bytes()]));
        Self { role, container, target, hash }
    }

    pub(crate) fn name(&self) -> &str {
        &self.container.name
    }

    pub(crate) fn image(&self) -> &str {
        self.container.image.as_deref().unwrap_or_default()
    }
}

/// When an exited container is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with `exit_code` is to run again.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The policy of one container: sidecars always restart, init containers follow the pod except
/// that success is final, ephemeral ones never do. A container may carry its own policy and rules
/// on exit codes (KEP-5307).
pub(crate) fn restarts(policy: RestartPolicy, spec: &ContainerSpec, exit_code: i32) -> bool {
    for rule in spec.container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
        if rule.action == "Restart" && listed == (codes.operator == "In") {
            return true;
        }
    }
    let own = spec.container.restart_policy.as_deref().map(|text| RestartPolicy::parse(Some(text)));
    match spec.role {
        Role::Sidecar => true,
        Role::Ephemeral => false,
        Role::App => own.unwrap_or(policy).restarts(exit_code),
        Role::Init => exit_code != 0 && own.unwrap_or(policy) != RestartPolicy::Never,
    }
}

fn from_ephemeral(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        name: c.name,
        resources: c.resources,
        security_context: c.security_context,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
        ..Container::default()
    }
}

/// FNV-1a over `parts`, each ended by a zero byte.
pub(crate) fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// The API's time with its precision of a second.
pub(crate) fn to_time(at: Timestamp) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(at.as_secs()).unwrap_or_default())
}

pub(crate) fn from_time(time: &Time) -> Timestamp {
    Timestamp::from_nanos(i64::try_from(time.0.as_nanosecond()).unwrap_or(i64::MAX))
}

/// RFC 3339 with nanoseconds, as container logs carry it.
pub(crate) fn rfc3339_nano(at: Timestamp) -> String {
    let time = k8s_openapi::jiff::Timestamp::from_nanosecond(i128::from(at.as_nanos())).unwrap_or_default();
    format!("{time:.9}")
}
