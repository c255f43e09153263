//! DaemonSets: one pod on every node that fits.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use skiff_base::Timestamp;
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, Severity, WorkQueue, run_controller};

use crate::Context;
use crate::shared::batch::{self, slow_start};
use crate::shared::claim::Claimant;
use crate::shared::expectations::Expectations;
use crate::shared::revisions::{self, HASH_LABEL, History, hash_of};
use crate::shared::{Meta, pods, selector, template};
use plan::{Observed, Plan, fits};

pub(crate) const NAME: &str = "daemon-set-controller";

/// Pods made or removed in one reconciliation.
const BURST_PODS: usize = 250;

/// A pod that fails on a node is replaced after 1 s, doubling to 15 minutes.
const FAILED_MIN: Duration = Duration::from_secs(1);
const FAILED_MAX: Duration = Duration::from_secs(900);

const GENERATION_LABEL: &str = "pod-template-generation";
const DEPRECATED_GENERATION: &str = "deprecated.daemonset.template.generation";

struct Driver {
    ctx: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    expectations: Arc<Expectations>,
    failures: Mutex<BTreeMap<(String, String), Failure>>,
}

/// How often pods of a set failed on a node, and when the last was removed.
#[derive(Clone, Copy)]
struct Failure {
    count: u32,
    at: Timestamp,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let sets = ctx.informers.of::<DaemonSet>();
    let pods = pods::informer(&ctx.informers);
    let nodes = ctx.informers.of::<Node>();
    let revisions = ctx.informers.of::<ControllerRevision>();
    let expectations = Arc::new(Expectations::default());

    let (added, forgetting) = (queue.clone(), expectations.clone());
    sets.subscribe(move |change| {
        if change.new.is_none() {
            forgetting.forget(&change.key());
        }
        added.add(change.key());
    });
    watch_nodes(&sets, &nodes, &queue);
    watch_pods(&sets, &pods, &queue, &expectations);
    let changed = queue.clone();
    revisions.subscribe(move |change| {
        let owner = change.object().and_then(|revision| revision.metadata.controller().cloned());
        if let Some(owner) = owner.filter(|owner| owner.kind == "DaemonSet") {
            changed.add(ObjectKey::new(change.key().namespace, owner.name));
        }
    });

    let ready = (sets.clone(), pods.clone(), nodes.clone(), revisions.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, sets, pods, nodes, revisions, expectations, failures: Mutex::default() };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
        ready.3.synced().await;
    });
}

fn watch_nodes(sets: &Informer<DaemonSet>, nodes: &Informer<Node>, queue: &WorkQueue) {
    let (sets, queue) = (sets.clone(), queue.clone());
    nodes.subscribe(move |change| {
        for set in sets.store().iter() {
            let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { continue };
            let before = change.old.as_deref().map(|node| fits(spec, node));
            let after = change.new.as_deref().map(|node| fits(spec, node));
            if before != after {
                queue.add(ObjectKey::of(&set.metadata));
            }
        }
    });
}

fn watch_pods(sets: &Informer<DaemonSet>, pods: &Informer<Pod>, queue: &WorkQueue, expectations: &Arc<Expectations>) {
    let (sets, queue, expectations) = (sets.clone(), queue.clone(), expectations.clone());
    pods.subscribe(move |change| {
        let owner = |pod: &Arc<Pod>| pods::controller_key(pod, "DaemonSet");
        match (&change.old, &change.new) {
            (Some(pod), None) => {
                if let Some(key) = owner(pod) {
                    expectations.deleted(&key, pod.metadata.uid());
                    queue.add(key);
                }
            }
            (old, Some(pod)) => match owner(pod) {
                Some(key) => {
                    if pod.metadata.is_deleting() {
                        expectations.deleted(&key, pod.metadata.uid());
                    } else if old.is_none() {
                        expectations.created(&key);
                    }
                    queue.add(key);
                }
                None if pod.metadata.controller().is_none() => {
                    for set in sets.store().namespace(pod.metadata.ns()) {
                        let selector = set.spec.as_ref().map(|spec| &spec.selector);
                        if selector.is_some_and(|selector| {
                            !selector::is_empty(selector) && selector::matches(selector, pod.metadata.labels.as_ref())
                        }) {
                            queue.add(ObjectKey::of(&set.metadata));
                        }
                    }
                }
                None => {}
            },
            (None, None) => {}
        }
    });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            return Ok(Next::Event);
        };
        let Some(spec) = set.spec.as_ref().filter(|_| !set.metadata.is_deleting()) else { return Ok(Next::Event) };
        if selector::is_empty(&spec.selector) {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.ctx.events.record(&*set, Severity::Warning, "SelectingAll", message);
            return Ok(Next::Event);
        }
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let client = &self.ctx.client;
        let history =
            revisions::sync(client, &self.revisions, &*set, &spec.selector, &spec.template, collisions).await?;
        let Some(history) = history else {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions + 1);
            self.write_status(&set, status).await?;
            return Ok(Next::Backoff);
        };
        self.sync(key, &set, history).await
    }
}

impl Driver {
    async fn sync(&self, key: &ObjectKey, set: &DaemonSet, history: History) -> Result<Next> {
        let hash = hash_of(&history.current).to_owned();
        let satisfied = self.expectations.satisfied(key);
        let pods = self.claim(set).await?;
        let nodes: Vec<Arc<Node>> = self.nodes.store().iter().collect();
        let observed = Observed { set, nodes: &nodes, pods: &pods, hash: &hash };
        let now = self.ctx.clock.now();
        let mut plan = plan::plan(now, &observed);
        let status = std::mem::take(&mut plan.status);
        let mut again = None;
        if satisfied {
            again = self.settle_failures(set, &mut plan, now);
            self.perform(key, set, plan, &hash).await?;
            let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
            let used = |hash: &str| pods.iter().any(|pod| pod.metadata.label(HASH_LABEL) == Some(hash));
            revisions::truncate(&self.ctx.client, &history, limit, used).await?;
        }
        self.write_status(set, status).await?;
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        let available = pods::next_available(pods.iter().map(|pod| &**pod), min_ready, now);
        let available = available.filter(|_| min_ready > 0);
        Ok(again.into_iter().chain(available).min().map_or(Next::Event, Next::After))
    }

    async fn claim(&self, set: &DaemonSet) -> Result<Vec<Arc<Pod>>> {
        let store = self.pods.store();
        let orphans = pods::orphans_of(set.metadata.ns());
        let candidates = store
            .indexed(pods::INDEX_CONTROLLER, set.metadata.uid())
            .chain(store.indexed(pods::INDEX_CONTROLLER, &orphans));
        let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        let claimant = Claimant { owner: set, selector: &selector };
        claimant.perform(&self.ctx.client, claimant.plan(candidates)).await
    }

    /// Moves the failed pods whose pause is over to those that are deleted; gives how long until
    /// the next.
    fn settle_failures(&self, set: &DaemonSet, plan: &mut Plan, now: Timestamp) -> Option<Duration> {
        let mut failures = self.failures.lock();
        let mut again: Option<Duration> = None;
        for pod in std::mem::take(&mut plan.failed) {
            let node = plan::node_of(&pod).unwrap_or("").to_owned();
            let failure = failures
                .entry((set.metadata.uid().to_owned(), node.clone()))
                .or_insert(Failure { count: 0, at: Timestamp::EPOCH });
            let pause = FAILED_MIN.saturating_mul(1 << failure.count.min(10)).min(FAILED_MAX);
            let over = failure.count == 0 || now.since(failure.at) >= pause;
            if over {
                *failure = Failure { count: failure.count + 1, at: now };
                let message = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod_key(&pod));
                self.ctx.events.record(set, Severity::Warning, "FailedDaemonPod", message);
                plan.delete.push(pod);
            } else {
                let rest = failure.at.plus(pause).since(now);
                again = Some(again.map_or(rest, |again| again.min(rest)));
            }
        }
        // Old failures are forgotten once they would no longer delay anything.
        failures.retain(|_, failure| now.since(failure.at) < FAILED_MAX * 2);
        again
    }

    async fn perform(&self, key: &ObjectKey, set: &DaemonSet, mut plan: Plan, hash: &str) -> Result<()> {
        plan.create.truncate(BURST_PODS);
        plan.delete.truncate(BURST_PODS);
        self.expectations.expect_deletions(key, plan.delete.iter().map(|pod| pod.metadata.uid().to_owned()));
        self.expectations.expect_creations(key, plan.create.len());
        let template = self.template(set, hash);
        let (client, events) = (&self.ctx.client, &self.ctx.events);
        let created = slow_start(plan.create.len(), |index| {
            let mut pod = template.clone();
            plan::pin(pod.spec.get_or_insert_default(), &plan.create[index]);
            async move { template::create(client, events, set, &pod).await }
        })
        .await;
        self.expectations.created_many(key, plan.create.len() - created.done);
        let deleted = batch::all(&plan.delete, |pod| async move {
            let outcome = template::delete(client, events, set, pod).await;
            if outcome.is_err() {
                self.expectations.deleted(key, pod.metadata.uid());
            }
            outcome
        })
        .await;
        match created.error {
            Some(error) if !error.is_namespace_terminating() => Err(error),
            _ => deleted,
        }
    }

    fn template(&self, set: &DaemonSet, hash: &str) -> Pod {
        let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let mut pod = template::pod(set, &template);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH_LABEL.into(), hash.to_owned());
        if let Some(generation) = set.metadata.annotation(DEPRECATED_GENERATION) {
            labels.insert(GENERATION_LABEL.into(), generation.to_owned());
        }
        pod
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(status);
        match self.ctx.client.replace_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn pod_key(pod: &Pod) -> ObjectKey {
    ObjectKey::of(&pod.metadata)
}
