//! The pod status the API shows: a pure function of pod, runtime state and memory.

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use skiff_base::Timestamp;

use crate::observed::{ContainerView, Local, Observed, Run, Waiting};
use crate::plan::crash_back_off_until;
use crate::pod::{ContainerSpec, PodView, RestartPolicy, Role, restarts, to_time};
use crate::resources::Qos;

/// The scheme before a container's id in `containerID`.
pub(crate) const RUNTIME_SCHEME: &str = "skiff://";

/// What the computation needs beside the pod and the runtime.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) local: &'a Local,
    pub(crate) host_ips: &'a [String],
    /// Everything has been stopped for good: the phase may become final.
    pub(crate) over: bool,
    /// A reason that makes the pod fail whatever its containers did (admission, deadline,
    /// eviction).
    pub(crate) failure: Option<&'a Waiting>,
    /// The status this kubelet last computed, or the API's.
    pub(crate) previous: &'a PodStatus,
}

/// Computes the status.
pub(crate) fn compute(pod: &PodView, observed: &Observed, ctx: &Context<'_>) -> PodStatus {
    let statuses = |wanted: fn(Role) -> bool| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = pod
            .containers
            .iter()
            .filter(|spec| wanted(spec.role))
            .map(|spec| container_status(pod, spec, observed, ctx))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let mut status = PodStatus {
        init_container_statuses: statuses(|role| matches!(role, Role::Init | Role::Sidecar)),
        container_statuses: statuses(|role| role == Role::App),
        ephemeral_container_statuses: statuses(|role| role == Role::Ephemeral),
        qos_class: Some(Qos::of(pod).name().to_owned()),
        start_time: Some(ctx.previous.start_time.clone().unwrap_or_else(|| to_time(ctx.local.start_time))),
        observed_generation: pod.pod.metadata.generation,
        nominated_node_name: ctx.previous.nominated_node_name.clone(),
        resource_claim_statuses: ctx.previous.resource_claim_statuses.clone(),
        ..PodStatus::default()
    };
    set_addresses(pod, observed, ctx, &mut status);
    status.phase = Some(phase(pod, &status, ctx).to_owned());
    if let Some(failure) = ctx.failure {
        status.phase = Some("Failed".into());
        status.reason = some(&failure.reason);
        status.message = some(&failure.message);
    } else if matches!(ctx.previous.phase.as_deref(), Some("Failed")) {
        status.reason.clone_from(&ctx.previous.reason);
        status.message.clone_from(&ctx.previous.message);
    }
    // A final phase never changes again.
    if let Some(last @ ("Succeeded" | "Failed")) = ctx.previous.phase.as_deref() {
        status.phase = Some(last.to_owned());
    }
    status.conditions = Some(conditions(pod, observed, ctx, &status));
    status
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn set_addresses(pod: &PodView, observed: &Observed, ctx: &Context<'_>, status: &mut PodStatus) {
    status.host_ip = ctx.host_ips.first().cloned();
    status.host_ips = Some(ctx.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let own: Vec<String> = if pod.host_network() {
        ctx.host_ips.to_vec()
    } else {
        observed.sandboxes.iter().find(|sandbox| sandbox.ready).map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    };
    if own.is_empty() {
        // A stopped pod keeps the addresses it had, as its logs and endpoints refer to them.
        if ctx.over || matches!(ctx.previous.phase.as_deref(), Some("Succeeded" | "Failed")) {
            status.pod_ip.clone_from(&ctx.previous.pod_ip);
            status.pod_ips.clone_from(&ctx.previous.pod_ips);
        }
        return;
    }
    status.pod_ip = own.first().cloned();
    status.pod_ips = Some(own.into_iter().map(|ip| PodIP { ip }).collect());
}

fn container_status(pod: &PodView, spec: &ContainerSpec, observed: &Observed, ctx: &Context<'_>) -> ContainerStatus {
    let latest = observed.latest(spec.name());
    let before = previous_status(spec, ctx.previous);
    let mut status = ContainerStatus {
        name: spec.name().to_owned(),
        image: spec.image().to_owned(),
        resources: Some(spec.container.resources.clone().unwrap_or_default()),
        allocated_resources: spec.container.resources.as_ref().and_then(|resources| resources.requests.clone()),
        volume_mounts: volume_mounts(spec),
        ..ContainerStatus::default()
    };
    if spec.role == Role::Ephemeral {
        status.resources = None;
    }
    match latest {
        Some(container) => fill_from(pod, spec, container, observed, ctx, &mut status),
        None => fill_without(pod, spec, before, ctx, &mut status),
    }
    status
}

fn fill_from(
    pod: &PodView,
    spec: &ContainerSpec,
    container: &ContainerView,
    observed: &Observed,
    ctx: &Context<'_>,
    status: &mut ContainerStatus,
) {
    if !container.image.is_empty() {
        status.image.clone_from(&container.image);
    }
    status.image_id.clone_from(&container.image_id);
    status.container_id = Some(format!("{RUNTIME_SCHEME}{}", container.id));
    status.restart_count = container.restart_count;
    status.last_state = observed.previous(spec.name()).filter(|old| old.run == Run::Exited).map(terminated);
    status.user = container.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: *uid,
            gid: *gid,
            supplemental_groups: (!groups.is_empty()).then(|| groups.clone()),
        }),
    });
    let running = container.run == Run::Running;
    let started = running && ctx.local.started.contains(&container.id);
    status.started = Some(started);
    status.state = Some(match container.run {
        Run::Running => {
            let started_at = Some(to_time(container.started_at));
            ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
        }
        Run::Created => waiting(&default_waiting(pod)),
        Run::Exited => terminated(container),
        Run::Unknown => unknown_state(),
    });
    status.ready = match spec.role {
        Role::Init => container.run == Run::Exited && container.exit_code == 0,
        Role::Ephemeral => false,
        _ => started && ctx.local.ready.get(&container.id).copied().unwrap_or(spec.container.readiness_probe.is_none()),
    };
    if running || ctx.over {
        return;
    }
    // A container that will run again waits, and what ended is its last state.
    let will_run = container.run != Run::Exited || restarts(pod.restart_policy(), spec, container.exit_code);
    let wait = match ctx.local.delays.get(spec.name()).filter(|delay| delay.until > ctx.now) {
        Some(delay) if will_run => Some(delay.waiting(ctx.now).clone()),
        _ if will_run && container.run == Run::Exited => crash_loop(pod, spec, container, ctx),
        _ => None,
    };
    if let Some(wait) = wait {
        if container.run == Run::Exited {
            status.last_state = Some(terminated(container));
        }
        status.state = Some(waiting(&wait));
    }
}

/// `CrashLoopBackOff` while the delay lasts.
fn crash_loop(pod: &PodView, spec: &ContainerSpec, container: &ContainerView, ctx: &Context<'_>) -> Option<Waiting> {
    crash_back_off_until(ctx.now, Some(container), ctx.local, spec.name())?;
    let delay = ctx.local.crashes.get(spec.name())?.delay;
    Some(Waiting::new("CrashLoopBackOff", crash_loop_message(pod, spec.name(), delay)))
}

/// Upstream's text for a container held back.
pub(crate) fn crash_loop_message(pod: &PodView, container: &str, delay: std::time::Duration) -> String {
    format!(
        "back-off {} restarting failed container={container} pod={}_{}({})",
        go_duration(delay),
        pod.name,
        pod.namespace,
        pod.uid
    )
}

/// Whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
pub(crate) fn go_duration(delay: std::time::Duration) -> String {
    let seconds = delay.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

fn fill_without(
    pod: &PodView,
    spec: &ContainerSpec,
    before: Option<&ContainerStatus>,
    ctx: &Context<'_>,
    status: &mut ContainerStatus,
) {
    // Its record is gone from the runtime (cleaned up, or lost with the machine): what the API
    // shows must not go backwards.
    if let Some(before) = before {
        let had_run = before.container_id.is_some();
        if had_run {
            status.restart_count = before.restart_count;
            status.image_id.clone_from(&before.image_id);
            status.container_id.clone_from(&before.container_id);
            status.last_state.clone_from(&before.last_state);
            status.started = Some(false);
            status.ready = spec.role == Role::Init && before.ready;
            let ended = before.state.as_ref().filter(|state| state.terminated.is_some());
            status.state = Some(ended.cloned().unwrap_or_else(unknown_state));
            let runs_again = !ctx.over && spec.role != Role::Init && ended.is_none();
            if runs_again {
                status.last_state = Some(unknown_state());
                status.state = Some(waiting(&default_waiting(pod)));
            }
            return;
        }
    }
    status.started = Some(false);
    let wait = ctx.local.delays.get(spec.name()).map(|delay| delay.waiting(ctx.now).clone());
    status.state = Some(waiting(&wait.unwrap_or_else(|| default_waiting(pod))));
    if spec.role == Role::Ephemeral {
        status.started = None;
    }
}

fn previous_status<'a>(spec: &ContainerSpec, previous: &'a PodStatus) -> Option<&'a ContainerStatus> {
    let list = match spec.role {
        Role::Init | Role::Sidecar => &previous.init_container_statuses,
        Role::App => &previous.container_statuses,
        Role::Ephemeral => &previous.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == spec.name())
}

fn default_waiting(pod: &PodView) -> Waiting {
    let reason = if pod.starters().next().is_some() { "PodInitializing" } else { "ContainerCreating" };
    Waiting::new(reason, "")
}

fn waiting(wait: &Waiting) -> ContainerState {
    let state = ContainerStateWaiting { reason: some(&wait.reason), message: some(&wait.message) };
    ContainerState { waiting: Some(state), ..ContainerState::default() }
}

fn unknown_state() -> ContainerState {
    let state = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(state), ..ContainerState::default() }
}

fn terminated(container: &ContainerView) -> ContainerState {
    let state = ContainerStateTerminated {
        exit_code: container.exit_code,
        reason: some(&container.reason)
            .or_else(|| Some(if container.exit_code == 0 { "Completed" } else { "Error" }.to_owned())),
        message: some(&container.message),
        started_at: Some(to_time(container.started_at)),
        finished_at: Some(to_time(container.finished_at)),
        container_id: Some(format!("{RUNTIME_SCHEME}{}", container.id)),
        signal: None,
    };
    ContainerState { terminated: Some(state), ..ContainerState::default() }
}

fn volume_mounts(spec: &ContainerSpec) -> Option<Vec<VolumeMountStatus>> {
    let mounts: Vec<_> = spec
        .container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            let read_only = mount.read_only.unwrap_or(false);
            VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: read_only.then_some(true),
                recursive_read_only: read_only
                    .then(|| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".into())),
                ..VolumeMountStatus::default()
            }
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}

/// Where the containers of one group stand.
#[derive(Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    failed: usize,
}

fn tally<'a>(list: impl Iterator<Item = &'a ContainerStatus>) -> Tally {
    let mut tally = Tally::default();
    for status in list {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        if state.running.is_some() {
            tally.running += 1;
        } else if let Some(ended) = state.terminated.as_ref().or(last) {
            tally.stopped += 1;
            if ended.exit_code == 0 && state.terminated.is_some() {
                tally.succeeded += 1;
            } else {
                tally.failed += 1;
            }
        } else {
            tally.waiting += 1;
        }
    }
    tally
}

fn phase(pod: &PodView, status: &PodStatus, ctx: &Context<'_>) -> &'static str {
    let policy = pod.restart_policy();
    let inits = status.init_container_statuses.as_deref().unwrap_or_default();
    let role = |name: &str| pod.container(name).map(|spec| spec.role);
    let init = tally(inits.iter().filter(|status| role(&status.name) == Some(Role::Init)));
    let sidecars_pending = inits
        .iter()
        .filter(|status| role(&status.name) == Some(Role::Sidecar))
        .any(|status| status.started != Some(true));
    let apps = tally(status.container_statuses.iter().flatten());
    let touched = apps.running + apps.stopped > 0;
    let init_never = pod.of(Role::Init).any(|spec| {
        let own = spec.container.restart_policy.as_deref().map(|text| RestartPolicy::parse(Some(text)));
        own.unwrap_or(policy) == RestartPolicy::Never
    });
    if init.failed > 0 && (init_never || ctx.over) && !touched {
        return "Failed";
    }
    if ctx.over {
        let clean = apps.stopped > 0 && apps.stopped == apps.succeeded && apps.waiting == 0 && apps.running == 0;
        return if clean { "Succeeded" } else { "Failed" };
    }
    if !touched && (init.waiting + init.running + init.failed > 0 || sidecars_pending || apps.waiting > 0) {
        return "Pending";
    }
    if apps.waiting > 0 {
        return "Pending";
    }
    if apps.running > 0 {
        return "Running";
    }
    if apps.stopped > 0 {
        return match policy {
            RestartPolicy::Always => "Running",
            _ if apps.stopped == apps.succeeded => "Succeeded",
            RestartPolicy::Never => "Failed",
            RestartPolicy::OnFailure => "Running",
        };
    }
    "Pending"
}

fn conditions(pod: &PodView, observed: &Observed, ctx: &Context<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let sandbox = observed.ready_sandbox().is_some_and(|sandbox| pod.host_network() || !sandbox.ips.is_empty());
    let containers = containers_ready(pod, status, phase);
    let ready = pod_ready(pod, &containers, ctx.previous);
    let mut list = vec![
        Verdict::plain("PodReadyToStartContainers", sandbox && !ctx.over),
        initialized(pod, status, phase),
        ready,
        containers,
        Verdict::plain("PodScheduled", true),
    ];
    for verdict in &mut list {
        verdict.generation = pod.pod.metadata.generation;
    }
    // Conditions of others (readiness gates, disruption) stay: the patch merges by type.
    list.into_iter().map(|verdict| verdict.into_condition(ctx)).collect()
}

struct Verdict {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
    generation: Option<i64>,
}

impl Verdict {
    fn plain(type_: &'static str, holds: bool) -> Self {
        Self {
            type_,
            status: if holds { "True" } else { "False" },
            reason: "",
            message: String::new(),
            generation: None,
        }
    }

    fn with(mut self, reason: &'static str, message: String) -> Self {
        self.reason = reason;
        self.message = message;
        self
    }

    fn into_condition(self, ctx: &Context<'_>) -> PodCondition {
        let old = ctx.previous.conditions.iter().flatten().find(|old| old.type_ == self.type_);
        let since = old.filter(|old| old.status == self.status).and_then(|old| old.last_transition_time.clone());
        PodCondition {
            type_: self.type_.into(),
            status: self.status.into(),
            reason: some(self.reason),
            message: some(&self.message),
            last_probe_time: None,
            last_transition_time: Some(since.unwrap_or_else(|| to_time(ctx.now))),
            observed_generation: self.generation,
        }
    }
}

fn initialized(pod: &PodView, status: &PodStatus, phase: &str) -> Verdict {
    let verdict = |holds| Verdict::plain("Initialized", holds);
    if phase == "Succeeded" {
        return verdict(true).with("PodCompleted", String::new());
    }
    let apps = status.container_statuses.iter().flatten();
    let touched = apps
        .clone()
        .any(|app| app.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some()));
    let incomplete: Vec<&str> = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|init| match pod.container(&init.name).map(|spec| spec.role) {
            Some(Role::Sidecar) => init.started != Some(true),
            _ => !init.ready,
        })
        .map(|init| init.name.as_str())
        .collect();
    if incomplete.is_empty() || touched {
        return verdict(true);
    }
    verdict(false)
        .with("ContainersNotInitialized", format!("containers with incomplete status: [{}]", incomplete.join(" ")))
}

fn containers_ready(pod: &PodView, status: &PodStatus, phase: &str) -> Verdict {
    let verdict = |holds| Verdict::plain("ContainersReady", holds);
    match phase {
        "Succeeded" => return verdict(false).with("PodCompleted", String::new()),
        "Failed" => return verdict(false).with("PodFailed", String::new()),
        _ => {}
    }
    let sidecars = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|init| pod.container(&init.name).is_some_and(|spec| spec.role == Role::Sidecar));
    let unready: Vec<&str> = sidecars
        .chain(status.container_statuses.iter().flatten())
        .filter(|container| !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return verdict(true);
    }
    verdict(false).with("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

fn pod_ready(pod: &PodView, containers: &Verdict, previous: &PodStatus) -> Verdict {
    let verdict = |holds| Verdict::plain("Ready", holds);
    if containers.status != "True" {
        return verdict(false).with(containers.reason, containers.message.clone());
    }
    let mut problems = Vec::new();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        let conditions = || {
            previous
                .conditions
                .iter()
                .chain(pod.pod.status.iter().filter_map(|status| status.conditions.as_ref()))
                .flatten()
        };
        match conditions().rfind(|condition| &condition.type_ == name) {
            None => problems.push(format!("corresponding condition of pod readiness gate \"{name}\" does not exist.")),
            Some(condition) if condition.status != "True" => problems
                .push(format!("the status of pod readiness gate \"{name}\" is not \"True\", but {}", condition.status)),
            Some(_) => {}
        }
    }
    if problems.is_empty() {
        return verdict(true);
    }
    verdict(false).with("ReadinessGatesNotReady", problems.join(", "))
}
