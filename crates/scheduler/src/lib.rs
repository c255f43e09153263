//! Places pods on nodes.
//!
//! The decision is a pure function ([`decide`]) over a [`Snapshot`]; around it a [`Queue`] says
//! which pod is next and [`start`] connects both with the API. A decision is assumed at once, so
//! the next pod is decided on without waiting for the binding to be written.
//!
//! Not here yet: affinity between pods, topology spread, preemption, volumes and claims. A pod
//! that uses volumes is placed as if they were everywhere.
//!
//! Reading order: [`cycle`](decide), [`plugins`], [`snapshot`](Snapshot), [`queue`](Queue).

mod config;
mod cycle;
mod metrics;
pub mod plugins;
mod queue;
pub mod resources;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use skiff_base::{Clock, Random, Tasks};
use skiff_client::{Change, Client, Events, Informers, Patch, Severity};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use config::{Config, Scoring};
pub use cycle::{Decision, decide};
pub use queue::{Depths, Queue};
pub use snapshot::{HostPort, NodeInfo, Snapshot};

use metrics::{Incoming, Measures, Outcome};
use snapshot::{node_of, uid};

/// Bindings that are being written at once; more decisions wait for one to end.
const BINDINGS_MAX: usize = 64;

/// Starts scheduling. Returns at once; everything ends with `tasks`.
pub fn start(client: Client, informers: &Informers, config: Config, clock: Clock, random: Random, tasks: &Tasks) {
    let tasks = tasks.group("scheduler");
    tracing::info!(scheduler = config.scheduler_name, scoring = ?config.scoring, "starting");
    let events = Events::new(client.clone(), clock.clone(), &tasks, &config.scheduler_name, "");
    let measures = Measures::new(tasks.metrics(), &config.scheduler_name);
    let scheduler = Arc::new(Scheduler {
        measures,
        state: Mutex::new(State::new(&config)),
        changed: Notify::new(),
        bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
        client,
        events,
        config,
        clock,
        random,
    });
    let shown = Arc::downgrade(&scheduler);
    scheduler.measures.show_pending(move || Some(shown.upgrade()?.state.lock().queue.depths()));
    let (nodes, pods) = (informers.of::<Node>(), informers.of::<Pod>());
    let binders = tasks.group("bind");
    tasks.spawn("cycle", async move {
        let observer = Arc::clone(&scheduler);
        nodes.subscribe(move |change| observer.node_changed(&change));
        nodes.synced().await;
        let observer = Arc::clone(&scheduler);
        pods.subscribe(move |change| observer.pod_changed(&change));
        pods.synced().await;
        scheduler.run(&binders).await;
    });
}

/// One attempt to place a pod.
struct Attempt {
    pod: Arc<Pod>,
    decision: Decision,
    began: Instant,
    /// Since when the pod has been known, and the how manieth attempt this is.
    since: Instant,
    number: u32,
}

struct Scheduler {
    measures: Measures,
    state: Mutex<State>,
    changed: Notify,
    bindings: Arc<Semaphore>,
    client: Client,
    events: Events,
    config: Config,
    clock: Clock,
    random: Random,
}

struct State {
    snapshot: Snapshot,
    queue: Queue,
    /// Pods without a node, by uid.
    pending: BTreeMap<String, Arc<Pod>>,
}

impl State {
    fn new(config: &Config) -> Self {
        Self { snapshot: Snapshot::default(), queue: Queue::new(config), pending: BTreeMap::new() }
    }
}

impl Scheduler {
    async fn run(self: Arc<Self>, binders: &Tasks) {
        loop {
            let changed = self.changed.notified();
            match self.next() {
                Some(Attempt { pod, decision: Decision::Node(node), began, since, number }) => {
                    // The semaphore is never closed.
                    let Ok(permit) = Arc::clone(&self.bindings).acquire_owned().await else { return };
                    let this = Arc::clone(&self);
                    binders.spawn("bind", async move {
                        let binding = this.clock.instant();
                        let is_bound = this.bind(&pod, &node).await;
                        let now = this.clock.instant();
                        this.measures.bind(is_bound, now - binding);
                        let outcome = if is_bound { Outcome::Scheduled } else { Outcome::Error };
                        this.measures.attempt(outcome, now - began);
                        if is_bound {
                            this.measures.bound(number, now - since);
                        }
                        drop(permit);
                    });
                }
                Some(Attempt { pod, decision: Decision::Unschedulable(message), began, .. }) => {
                    self.measures.attempt(Outcome::Unschedulable, self.clock.instant() - began);
                    self.measures.came(Incoming::Failed);
                    self.report(&pod, &message).await;
                }
                None => {
                    let wake = self.state.lock().queue.next_wake();
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = sleep_until(wake) => {}
                    }
                }
            }
        }
    }

    /// Takes the next pod and decides; a node that was found is assumed.
    fn next(&self) -> Option<Attempt> {
        let now = self.clock.instant();
        let mut state = self.state.lock();
        loop {
            let key = state.queue.pop(now)?;
            let Some(pod) = state.pending.get(&key).cloned() else {
                state.queue.remove(&key);
                continue;
            };
            let decision = decide(&self.config, &state.snapshot, &pod, &self.random);
            match &decision {
                Decision::Node(node) => {
                    let mut assumed = (*pod).clone();
                    assumed.spec.get_or_insert_default().node_name = Some(node.clone());
                    state.snapshot.put_pod(Arc::new(assumed));
                }
                Decision::Unschedulable(_) => state.queue.failed(&key, now),
            }
            let (since, number) = state.queue.history(&key).unwrap_or((now, 1));
            return Some(Attempt { pod, decision, began: now, since, number });
        }
    }

    /// Whether it was bound.
    async fn bind(&self, pod: &Pod, node: &str) -> bool {
        let (namespace, name) = names(pod);
        match self.client.bind(namespace, name, uid(pod), node).await {
            Ok(()) => {
                tracing::info!(namespace, name, node, "bound");
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.events.record(pod, Severity::Normal, "Scheduled", message);
                true
            }
            Err(error) => {
                tracing::warn!(namespace, name, node, %error, "bind");
                let now = self.clock.instant();
                let mut state = self.state.lock();
                // Unless the cache has seen it bound meanwhile, it takes nothing from the node.
                if state.pending.contains_key(uid(pod)) {
                    state.snapshot.remove_pod(uid(pod));
                    state.queue.wake_all(now);
                    state.queue.failed(uid(pod), now);
                }
                drop(state);
                self.changed.notify_one();
                false
            }
        }
    }

    /// Writes why the pod has no node into its condition, and says it once.
    async fn report(&self, pod: &Pod, message: &str) {
        let (namespace, name) = names(pod);
        self.events.record(pod, Severity::Warning, "FailedScheduling", message);
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let said = conditions.iter().any(|condition| {
            condition.type_ == "PodScheduled"
                && condition.status == "False"
                && condition.reason.as_deref() == Some("Unschedulable")
                && condition.message.as_deref() == Some(message)
        });
        if said {
            return;
        }
        tracing::info!(namespace, name, message, "no node");
        let now = skiff_object::time::Time::from_nanos(self.clock.now().as_nanos()).rfc3339();
        let patch = serde_json::json!({ "metadata": { "uid": uid(pod) }, "status": { "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": now,
        }] } });
        let patched = self.client.patch_subresource::<Pod>(namespace, name, "status", &Patch::Strategic(patch)).await;
        match patched {
            Err(error) if !error.is_not_found() => tracing::warn!(namespace, name, %error, "write the pod's condition"),
            _ => {}
        }
    }

    fn node_changed(&self, change: &Change<Node>) {
        let mut state = self.state.lock();
        match (&change.old, &change.new) {
            (_, None) => state.snapshot.remove_node(&change.key().name),
            (old, Some(new)) => {
                state.snapshot.put_node(Arc::clone(new));
                if old.as_ref().is_none_or(|old| node_matters(old, new)) {
                    state.queue.wake_all(self.clock.instant());
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let Some(pod) = change.object() else { return };
        let key = uid(pod);
        let now = self.clock.instant();
        let mut state = self.state.lock();
        let gone = change.new.is_none() || is_finished(pod);
        if gone {
            state.pending.remove(key);
            state.queue.remove(key);
            if state.snapshot.remove_pod(key) {
                state.queue.wake_all(now); // room was made
            }
        } else if !node_of(pod).is_empty() {
            state.pending.remove(key);
            state.queue.remove(key);
            state.snapshot.put_pod(Arc::clone(pod));
        } else if self.is_mine(pod) {
            let news = change
                .old
                .as_ref()
                .is_none_or(|old| old.spec != pod.spec || old.metadata.labels != pod.metadata.labels);
            state.pending.insert(key.to_owned(), Arc::clone(pod));
            // Our own writes of the condition must not count as news, or a pod would never rest.
            if news {
                self.measures.came(if change.old.is_none() { Incoming::Added } else { Incoming::Updated });
                state.queue.put(pod, now);
            }
        } else {
            state.pending.remove(key);
            state.queue.remove(key);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn is_mine(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        scheduler == self.config.scheduler_name && !gated && pod.metadata.deletion_timestamp.is_none()
    }
}

/// Whether the change could make a pod fit that did not before. Heartbeats could not.
fn node_matters(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || allocatable(old) != allocatable(new)
}

fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn names(pod: &Pod) -> (&str, &str) {
    (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

async fn sleep_until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
