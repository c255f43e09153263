//! One task per pod: observe, plan, act, report; then stop, report the end, clean up.
//!
//! Nothing polls: the worker wakes on a new version of the pod, on the runtime's events, on probe
//! verdicts, on changes of the objects its volumes show, and at the times its plan names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use skiff_base::Timestamp;
use skiff_client::DeleteOptions;
use skiff_runtime::cri;
use tokio::sync::{Notify, watch};

use crate::admission::{Taken, admit};
use crate::cri::observe;
use crate::events::Severity;
use crate::node::Node;
use crate::observed::{BackOff, Delay, Local, Observed, Run, Waiting};
use crate::plan::{Outcome, Step, plan};
use crate::pod::{PodView, Role, from_time};
use crate::probes::Probes;
use crate::resources::KernelLimits;
use crate::sink::Sink;
use crate::start::Starter;
use crate::status::{Context, RUNTIME_SCHEME, compute};
use crate::stop::{Reason, Stopper};
use crate::volumes::{self, Volumes};

/// The pause after the runtime failed to answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);
/// The longest pause between attempts to set up volumes.
const VOLUME_RETRY_MAX: Duration = Duration::from_secs(120);
/// A pod that cannot get a sandbox tries again after this.
const SANDBOX_RETRY: Duration = Duration::from_secs(10);

/// What a worker is told.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) pod: Arc<PodView>,
    /// The API no longer has the pod.
    pub(crate) gone: bool,
    /// The node needs the pod's resources back.
    pub(crate) evicted: Option<Waiting>,
}

/// The way to a pod's worker.
#[derive(Clone)]
pub(crate) struct Handle {
    input: watch::Sender<Input>,
    wake: Arc<Notify>,
    /// What the runtime last had, for the streaming server.
    observed: watch::Receiver<Arc<Observed>>,
}

impl Handle {
    pub(crate) fn pod(&self) -> Arc<PodView> {
        Arc::clone(&self.input.borrow().pod)
    }

    pub(crate) fn observed(&self) -> Arc<Observed> {
        Arc::clone(&self.observed.borrow())
    }

    pub(crate) fn watch_observed(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.clone()
    }

    pub(crate) fn update(&self, pod: Arc<PodView>) {
        self.input.send_modify(|input| input.pod = pod);
    }

    pub(crate) fn gone(&self) {
        self.input.send_modify(|input| input.gone = true);
    }

    pub(crate) fn evict(&self, why: Waiting) {
        self.input.send_modify(|input| input.evicted = Some(why));
    }

    /// Something happened in the runtime.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Starts the worker of `pod`.
pub(crate) fn start(node: &Arc<Node>, pod: Arc<PodView>) -> Handle {
    let (input, receiver) = watch::channel(Input { pod: Arc::clone(&pod), gone: false, evicted: None });
    let (observed_sender, observed) = watch::channel(Arc::new(Observed::default()));
    let wake = Arc::new(Notify::new());
    let now = node.clock.now();
    let start_time = pod.status().start_time.as_ref().map_or(now, from_time);
    let worker = Worker {
        node: Arc::clone(node),
        sink: Sink::start(node, &pod),
        probes: Probes::new(Arc::clone(node), Arc::clone(&wake)),
        status: pod.status(),
        local: Local { start_time, ..Local::default() },
        volumes: None,
        volume_failures: 0,
        objects_changed: false,
        failure: None,
        announced: BTreeSet::new(),
        applied: BTreeMap::new(),
        adopted: false,
        changed: Arc::new(Notify::new()),
        observed: observed_sender,
        wake: Arc::clone(&wake),
        input: receiver,
        pod,
    };
    node.tasks.spawn("pod", worker.run());
    Handle { input, wake, observed }
}

enum Turn {
    Again,
    Wait(Option<Timestamp>),
    End,
}

struct Worker {
    node: Arc<Node>,
    pod: Arc<PodView>,
    input: watch::Receiver<Input>,
    wake: Arc<Notify>,
    /// Objects shown by volumes changed.
    changed: Arc<Notify>,
    observed: watch::Sender<Arc<Observed>>,
    sink: Sink,
    probes: Probes,
    local: Local,
    status: k8s_openapi::api::core::v1::PodStatus,
    volumes: Option<Volumes>,
    volume_failures: u32,
    objects_changed: bool,
    failure: Option<Waiting>,
    /// Back-off events already written, by container id or name and reason.
    announced: BTreeSet<String>,
    /// The limits running containers were last given, by container id.
    applied: BTreeMap<String, KernelLimits>,
    adopted: bool,
}

impl Worker {
    async fn run(mut self) {
        if self.pod.is_terminal() {
            self.stop_all(Reason::Finished).await;
        } else {
            self.live().await;
        }
        self.bury().await;
        self.node.pods.lock().remove(&self.pod.uid);
    }

    /// Runs the pod until it is over or to be deleted, and stops it.
    async fn live(&mut self) {
        if !self.ending() {
            self.check_admission();
        }
        let references = volumes::payload::references(&self.pod);
        self.node.objects.hold(&self.pod.uid, &references, &self.changed);
        while self.failure.is_none() && !self.ending() {
            match self.turn().await {
                Turn::Again => {}
                Turn::Wait(at) => self.wait(at).await,
                Turn::End => break,
            }
        }
        let reason = if self.failure.is_some() {
            Reason::Failed
        } else if self.ending() {
            Reason::Deleted
        } else {
            Reason::Finished
        };
        self.stop_all(reason).await;
        let observed = self.observe().await;
        self.publish(&observed, true);
    }

    /// Takes the newest input; whether the pod is to be stopped.
    fn ending(&mut self) -> bool {
        let input = self.input.borrow_and_update().clone();
        self.pod = input.pod;
        if self.failure.is_none() {
            self.failure = input.evicted;
        }
        if self.failure.is_none()
            && let Some(deadline) = self.deadline()
            && self.node.clock.now() >= deadline
        {
            let message = "Pod was active on the node longer than the specified deadline";
            self.node.events.pod(&self.pod, None, Severity::Normal, "DeadlineExceeded", message);
            self.failure = Some(Waiting::new("DeadlineExceeded", message));
        }
        input.gone || self.pod.deleted_at().is_some()
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(self.pod.spec().active_deadline_seconds?).ok()?;
        Some(self.local.start_time.plus(Duration::from_secs(seconds)))
    }

    fn check_admission(&mut self) {
        // A pod that was let in before a restart of this process stays in.
        if self.status.start_time.is_some() {
            return;
        }
        let others: Vec<Arc<PodView>> = self
            .node
            .pods
            .lock()
            .values()
            .map(Handle::pod)
            .filter(|pod| pod.uid != self.pod.uid && !pod.is_terminal() && !pod.is_mirror())
            .collect();
        let taken = Taken::of(others.iter().map(AsRef::as_ref));
        if let Some(refusal) = admit(&self.pod, &taken, &self.node.allocatable()) {
            self.node.events.pod(&self.pod, None, Severity::Warning, "FailedAdmission", refusal.message.clone());
            self.failure = Some(refusal);
        }
    }

    async fn observe(&self) -> Arc<Observed> {
        loop {
            match observe(&*self.node.runtime, &self.pod.uid).await {
                Ok(observed) => {
                    let observed = Arc::new(observed);
                    self.observed.send_replace(Arc::clone(&observed));
                    return observed;
                }
                Err(error) => {
                    tracing::warn!(pod = %self.pod.name, %error, "the runtime did not tell the pod's state");
                    self.node.clock.sleep(RUNTIME_RETRY).await;
                }
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        let observed = self.observe().await;
        self.adopt(&observed);
        if let Some(wait) = self.keep_volumes().await {
            self.publish(&observed, false);
            return Turn::Wait(Some(wait));
        }
        let pod = Arc::clone(&self.pod);
        self.probes.sync(&pod, &observed, &mut self.local);
        let now = self.node.clock.now();
        self.local.delays.retain(|name, delay| delay.until > now || observed.latest(name).is_none());
        let plan = plan(now, &pod, &observed, &self.local);
        self.publish(&observed, false);
        self.announce(&observed);
        if plan.outcome == Outcome::Finished {
            return Turn::End;
        }
        self.resize(&observed).await;
        for step in &plan.steps {
            if !self.perform(step).await || self.ending() {
                break;
            }
        }
        if plan.steps.is_empty() { Turn::Wait(self.earliest(plan.wake_at)) } else { Turn::Again }
    }

    fn earliest(&self, at: Option<Timestamp>) -> Option<Timestamp> {
        let refresh = self.volumes.as_ref().and_then(|volumes| volumes.refresh_at);
        [at, refresh, self.deadline()].into_iter().flatten().min()
    }

    async fn wait(&mut self, at: Option<Timestamp>) {
        let timer = async {
            match at {
                // A timer that fires a little early would plan the same wait again.
                Some(at) => self.node.clock.sleep(at.since(self.node.clock.now()) + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.input.changed() => {
                if changed.is_err() {
                    // The kubelet itself ends; the pod goes on without it.
                    self.node.tasks.shutdown().wait().await;
                }
                let references = volumes::payload::references(&self.input.borrow().pod);
                self.node.objects.hold(&self.pod.uid, &references, &self.changed);
                self.objects_changed |= shows_itself(&self.pod);
            }
            () = self.changed.notified() => self.objects_changed = true,
            () = self.wake.notified() => {}
            () = timer => {}
        }
    }

    /// What ran before this process started keeps its readiness until its probes say otherwise.
    fn adopt(&mut self, observed: &Observed) {
        if std::mem::replace(&mut self.adopted, true) {
            return;
        }
        for container in observed.containers.iter().filter(|container| container.run == Run::Running) {
            let lists = [&self.status.container_statuses, &self.status.init_container_statuses];
            let id = format!("{RUNTIME_SCHEME}{}", container.id);
            let known =
                lists.into_iter().flatten().flatten().find(|status| status.container_id.as_deref() == Some(&id));
            if let Some(known) = known {
                if known.started == Some(true) {
                    self.local.started.insert(container.id.clone());
                }
                self.local.ready.insert(container.id.clone(), known.ready);
            }
        }
    }

    /// Sets up volumes, or brings them up to date; the time to try again when that failed.
    async fn keep_volumes(&mut self) -> Option<Timestamp> {
        let now = self.node.clock.now();
        let result = match &mut self.volumes {
            None => volumes::set_up(&self.node, &self.pod).await.map(|volumes| self.volumes = Some(volumes)),
            Some(volumes) if self.objects_changed || volumes.refresh_at.is_some_and(|at| at <= now) => {
                let result = volumes::refresh(&self.node, &self.pod, volumes).await;
                // A failed refresh leaves the old files; the next change tries again.
                if let Err(error) = &result {
                    tracing::debug!(pod = %self.pod.name, %error, "volumes not refreshed");
                }
                Ok(())
            }
            Some(_) => Ok(()),
        };
        let objects_changed = std::mem::take(&mut self.objects_changed);
        if objects_changed {
            self.local.delays.retain(|_, delay| delay.error.reason != "CreateContainerConfigError");
        }
        match result {
            Ok(()) => {
                self.volume_failures = 0;
                None
            }
            Err(error) => {
                self.node.events.pod(&self.pod, None, Severity::Warning, "FailedMount", error.to_string());
                let pause = Duration::from_millis(500 << self.volume_failures.min(8)).min(VOLUME_RETRY_MAX);
                self.volume_failures += 1;
                Some(self.node.clock.now().plus(pause))
            }
        }
    }

    fn publish(&mut self, observed: &Observed, over: bool) {
        let host_ips = self.node.config.host_ips();
        let ctx = Context {
            now: self.node.clock.now(),
            local: &self.local,
            host_ips: &host_ips,
            over,
            failure: self.failure.as_ref().filter(|_| over),
            previous: &self.status,
        };
        self.status = compute(&self.pod, observed, &ctx);
        self.sink.put(self.status.clone());
    }

    /// Writes the events of back-offs, once for each.
    fn announce(&mut self, observed: &Observed) {
        let now = self.node.clock.now();
        for spec in &self.pod.containers {
            let name = spec.name();
            let latest = observed.latest(name);
            if let Some(exited) =
                latest.filter(|_| crate::plan::crash_back_off_until(now, latest, &self.local, name).is_some())
                && self.announced.insert(exited.id.clone())
            {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    self.pod.name, self.pod.namespace, self.pod.uid
                );
                self.node.events.pod(&self.pod, Some(name), Severity::Warning, "BackOff", message);
            }
            let pulling = self
                .local
                .delays
                .get(name)
                .filter(|delay| delay.back_off.reason == "ImagePullBackOff" && now >= delay.switch_at);
            if let Some(delay) = pulling
                && self.announced.insert(format!("{name}@{}", delay.until.as_nanos()))
            {
                let message = format!("Back-off pulling image \"{}\"", spec.image());
                self.node.events.pod(&self.pod, Some(name), Severity::Normal, "BackOff", message);
                self.node.events.pod(&self.pod, Some(name), Severity::Warning, "Failed", "Error: ImagePullBackOff");
            }
        }
    }

    /// Performs one step; false when the rest of the plan makes no sense any more.
    async fn perform(&mut self, step: &Step) -> bool {
        match step {
            Step::StopSandbox => {
                self.stopper().stop(Reason::Replaced, self.pod.grace_seconds()).await;
                true
            }
            Step::CreateSandbox { attempt } => self.create_sandbox(*attempt).await,
            Step::Start { name, restart_count } => {
                self.start_container(name, *restart_count).await;
                true
            }
            Step::Kill { id, name, message } => {
                let grace = self.kill_grace(id, name);
                if self.stopper().kill(id, name, message, grace).await.is_err() {
                    self.node.clock.sleep(RUNTIME_RETRY).await;
                }
                true
            }
        }
    }

    /// A probe may shorten the grace period of the container it condemns.
    fn kill_grace(&self, id: &str, name: &str) -> i64 {
        let probe = self.pod.container(name).filter(|_| self.local.condemned.contains_key(id)).and_then(|spec| {
            let started = self.local.started.contains(id);
            if started { spec.container.liveness_probe.as_ref() } else { spec.container.startup_probe.as_ref() }
        });
        probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or_else(|| self.pod.grace_seconds())
    }

    fn stopper(&self) -> Stopper<'_> {
        Stopper { node: &self.node, pod: &self.pod }
    }

    async fn create_sandbox(&mut self, attempt: u32) -> bool {
        let starter = Starter { node: &self.node, pod: &self.pod };
        match starter.sandbox(attempt).await {
            Ok(()) => {
                self.local.sandbox_delay = None;
                true
            }
            Err(message) => {
                let message = format!("Failed to create pod sandbox: {message}");
                self.node.events.pod(&self.pod, None, Severity::Warning, "FailedCreatePodSandBox", message);
                self.local.sandbox_delay = Some(self.node.clock.now().plus(SANDBOX_RETRY));
                false
            }
        }
    }

    async fn start_container(&mut self, name: &str, restart_count: i32) {
        let observed = self.observe().await;
        let (pod, node) = (Arc::clone(&self.pod), Arc::clone(&self.node));
        let Some(spec) = pod.container(name) else { return };
        if let Some(exited) = observed.latest(name).filter(|container| container.run == Run::Exited) {
            let next = BackOff::next(self.local.crashes.get(name).copied(), exited.finished_at);
            self.local.crashes.insert(name.to_owned(), next);
        }
        let volumes = self.volumes.clone().unwrap_or_default();
        let starter = Starter { node: &node, pod: &pod };
        let work = starter.container(spec, &observed, &volumes, restart_count);
        let result = tokio::select! {
            biased;
            result = work => result,
            // Pulls and hooks take long; a deletion does not wait for them.
            () = deleted(self.input.clone()) => return,
        };
        match result {
            Ok(id) => {
                self.local.delays.remove(name);
                self.local.pulls.remove(name);
                self.applied.insert(id, KernelLimits::of(spec.container.resources.as_ref()));
            }
            Err(why) => self.delay(name, why),
        }
    }

    /// Holds the next attempt to start `name` back.
    fn delay(&mut self, name: &str, why: Waiting) {
        let now = self.node.clock.now();
        let pull = matches!(
            why.reason.as_str(),
            "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError"
        );
        let delay = if pull {
            let next = BackOff::next(self.local.pulls.get(name).copied(), now);
            self.local.pulls.insert(name.to_owned(), next);
            let image = self.pod.container(name).map(|spec| spec.image().to_owned()).unwrap_or_default();
            let back_off = if why.reason == "ErrImagePull" {
                Waiting::new(
                    "ImagePullBackOff",
                    format!("Back-off pulling image \"{image}\": {}: {}", why.reason, why.message),
                )
            } else {
                why.clone()
            };
            Delay { until: now.plus(next.delay), switch_at: now.plus(next.delay / 4), error: why, back_off }
        } else {
            let until = now.plus(Duration::from_secs(10));
            Delay { until, switch_at: until, back_off: why.clone(), error: why }
        };
        self.local.delays.insert(name.to_owned(), delay);
    }

    /// Gives running containers the limits the pod has now.
    async fn resize(&mut self, observed: &Observed) {
        for spec in self.pod.containers.iter().filter(|spec| spec.role != Role::Ephemeral) {
            let Some(container) = observed.latest(spec.name()).filter(|container| container.run == Run::Running) else {
                continue;
            };
            let wanted = KernelLimits::of(spec.container.resources.as_ref());
            let before = *self.applied.entry(container.id.clone()).or_insert(wanted);
            if before == wanted {
                continue;
            }
            let request = cri::UpdateContainerResourcesRequest {
                container_id: container.id.clone(),
                linux: Some(cri::LinuxContainerResources {
                    cpu_period: crate::resources::QUOTA_PERIOD_US,
                    cpu_quota: if wanted.cpu_quota_us == 0 { -1 } else { wanted.cpu_quota_us },
                    cpu_shares: wanted.cpu_shares,
                    memory_limit_in_bytes: if wanted.memory_bytes == 0 { -1 } else { wanted.memory_bytes },
                    ..cri::LinuxContainerResources::default()
                }),
                ..cri::UpdateContainerResourcesRequest::default()
            };
            match self.node.runtime.update_container_resources(request).await {
                Ok(_) => drop(self.applied.insert(container.id.clone(), wanted)),
                Err(error) => {
                    let message = format!("Failed to resize container {}: {}", spec.name(), error.message());
                    self.node.events.pod(&self.pod, Some(spec.name()), Severity::Warning, "ResizeError", message);
                    self.applied.insert(container.id.clone(), wanted);
                }
            }
        }
    }

    /// Stops everything of the pod; a deletion with a shorter grace period takes over.
    async fn stop_all(&mut self, reason: Reason) {
        loop {
            let mut input = self.input.clone();
            let _ = self.ending();
            let grace = match reason {
                Reason::Failed if self.pod.deleted_at().is_none() => self.pod.grace_seconds().min(30),
                _ => self.pod.grace_seconds(),
            };
            let stopped = {
                let stopper = self.stopper();
                let shorter = async {
                    loop {
                        if input.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                        if input.borrow_and_update().pod.grace_seconds() < grace {
                            return;
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = stopper.stop(reason, grace) => true,
                    () = shorter => false,
                }
            };
            if stopped {
                return;
            }
        }
    }

    /// Waits until the final status is written and the pod is to go, then removes all of it.
    async fn bury(&mut self) {
        self.sink.flushed().await;
        self.probes = Probes::new(Arc::clone(&self.node), Arc::clone(&self.wake));
        self.node.objects.hold(&self.pod.uid, &[], &self.changed);
        if let Err(error) = volumes::tear_down(&self.node, &self.pod.uid).await {
            tracing::warn!(pod = %self.pod.name, %error, "volumes not removed");
        }
        while !self.ending() {
            if self.input.changed().await.is_err() {
                return;
            }
        }
        self.stopper().remove().await;
        let mut pause = Duration::from_millis(100);
        while !self.input.borrow().gone {
            let options = DeleteOptions::uid(self.pod.uid.clone()).grace(0);
            use k8s_openapi::api::core::v1::Pod;
            match self.node.client.delete::<Pod>(&self.pod.namespace, &self.pod.name, &options).await {
                Ok(()) => break,
                Err(error) if error.is_not_found() || error.is_conflict() => break,
                Err(error) => {
                    tracing::debug!(pod = %self.pod.name, %error, "pod not deleted");
                    self.node.clock.sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        }
        // Until the API has told that it is gone, a late version of it must not start it again.
        drop(self.input.wait_for(|input| input.gone).await);
    }
}

/// Whether some volume shows the pod's own metadata, which just may have changed.
fn shows_itself(pod: &PodView) -> bool {
    pod.spec().volumes.iter().flatten().any(|volume| {
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        volume.downward_api.is_some() || projected.into_iter().any(|source| source.downward_api.is_some())
    })
}

/// Resolves once the pod is to be stopped.
async fn deleted(mut input: watch::Receiver<Input>) {
    let stop = |input: &Input| input.gone || input.evicted.is_some() || input.pod.deleted_at().is_some();
    if input.wait_for(stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
