//! ReplicaSets (and, through the same eyes, ReplicationControllers): as many pods as asked for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use skiff_base::Timestamp;
use skiff_client::time::to_time;
use skiff_client::{Change, Error, Informer, Next, ObjectKey, Reconcile, Result, View, WorkQueue, run_controller};

use crate::Context;
use crate::shared::batch::{self, slow_start};
use crate::shared::claim::Claimant;
use crate::shared::expectations::Expectations;
use crate::shared::{Meta, int, pods, rank, selector, template};

pub(crate) const NAME: &str = "replicaset-controller";

/// Pods created or deleted in one reconciliation.
const BURST_PODS: usize = 500;

pub(crate) fn start(ctx: Context) {
    start_for::<ReplicaSet>(ctx, NAME);
}

/// What a kind that replicates pods has in common with the others.
pub(crate) trait Replicated: View {
    /// What is asked for; `None` when the object is incomplete (the server does not let it be).
    fn wanted(&self) -> Option<Wanted>;
    /// Its status, in the words of ReplicaSets.
    fn observed(&self) -> ReplicaSetStatus;
    /// Sets its status.
    fn set_observed(&mut self, status: ReplicaSetStatus);
}

/// What a [`Replicated`] asks for.
pub(crate) struct Wanted {
    pub(crate) replicas: i32,
    pub(crate) min_ready_secs: i32,
    pub(crate) selector: LabelSelector,
    pub(crate) template: PodTemplateSpec,
}

impl Replicated for ReplicaSet {
    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.as_ref()?;
        Some(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_secs: spec.min_ready_seconds.unwrap_or(0),
            selector: spec.selector.clone(),
            template: spec.template.clone()?,
        })
    }

    fn observed(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn set_observed(&mut self, status: ReplicaSetStatus) {
        self.status = Some(status);
    }
}

/// How many pods to make, or which to remove.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: usize,
    pub(crate) delete: Vec<Arc<Pod>>,
}

/// Compares the active `owned` pods with `replicas`; `siblings` counts, per node, the pods that
/// serve the same purpose (those of other revisions of one Deployment).
pub(crate) fn plan(now: Timestamp, replicas: i32, owned: &[Arc<Pod>], siblings: impl Fn(&Pod) -> usize) -> Plan {
    let wanted = usize::try_from(replicas).unwrap_or(0);
    let mut active: Vec<_> = owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    if active.len() <= wanted {
        return Plan { create: (wanted - active.len()).min(BURST_PODS), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST_PODS);
    rank::by_deletion(&mut active, siblings, now);
    active.truncate(surplus);
    Plan { create: 0, delete: active }
}

/// The status that `owned` pods give. `failure` is the outcome of the present attempt to change
/// their number: (reason, message), or empty when it went well.
pub(crate) fn status(
    now: Timestamp,
    wanted: &Wanted,
    before: &ReplicaSetStatus,
    owned: &[Arc<Pod>],
    failure: Option<(&str, String)>,
) -> ReplicaSetStatus {
    let template_labels = wanted.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let active: Vec<&Pod> = owned.iter().map(|pod| &**pod).filter(|pod| pods::is_active(pod)).collect();
    let count = |test: &dyn Fn(&Pod) -> bool| Some(int(active.iter().filter(|pod| test(pod)).count()));
    let terminating = owned.iter().filter(|pod| pod.metadata.is_deleting() && !pods::is_finished(pod)).count();
    ReplicaSetStatus {
        replicas: int(active.len()),
        fully_labeled_replicas: count(&|pod| selector::subset(&template_labels, pod.metadata.labels.as_ref()))
            .filter(|count| *count > 0),
        ready_replicas: count(&pods::is_ready).filter(|count| *count > 0),
        available_replicas: count(&|pod| pods::is_available(pod, wanted.min_ready_secs, now))
            .filter(|count| *count > 0),
        terminating_replicas: Some(int(terminating)),
        conditions: conditions(now, before, failure),
        observed_generation: before.observed_generation,
    }
}

fn conditions(
    now: Timestamp,
    before: &ReplicaSetStatus,
    failure: Option<(&str, String)>,
) -> Option<Vec<ReplicaSetCondition>> {
    const FAILURE: &str = "ReplicaFailure";
    let mut conditions = before.conditions.clone().unwrap_or_default();
    match failure {
        None => conditions.retain(|condition| condition.type_ != FAILURE),
        // The first failure stands: its text names what must be repaired.
        Some(_) if conditions.iter().any(|condition| condition.type_ == FAILURE) => {}
        Some((reason, message)) => conditions.push(ReplicaSetCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(to_time(now)),
        }),
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

struct Driver<K> {
    ctx: Context,
    objects: Informer<K>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations>,
}

/// Starts the controller for one kind of [`Replicated`].
pub(crate) fn start_for<K: Replicated>(ctx: Context, name: &'static str) {
    let queue = WorkQueue::new();
    let objects = ctx.informers.of::<K>().with_owner_index();
    let pods = pods::informer(&ctx.informers);
    let expectations = Arc::new(Expectations::default());

    let (added, forgetting) = (queue.clone(), expectations.clone());
    objects.subscribe(move |change: Change<K>| {
        if change.new.is_none() {
            forgetting.forget(&change.key());
        }
        added.add(change.key());
    });
    watch_pods::<K>(&objects, &pods, &queue, &expectations);

    let (objects_ready, pods_ready) = (objects.clone(), pods.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, objects, pods, expectations };
    run_controller(&tasks, name, queue, workers, Arc::new(driver), async move {
        objects_ready.synced().await;
        pods_ready.synced().await;
    });
}

fn watch_pods<K: Replicated>(
    objects: &Informer<K>,
    pods: &Informer<Pod>,
    queue: &WorkQueue,
    expectations: &Arc<Expectations>,
) {
    let (objects, queue, expectations) = (objects.clone(), queue.clone(), expectations.clone());
    pods.subscribe(move |change| {
        let old_key = change.old.as_ref().and_then(|pod| pods::controller_key(pod, &K::RESOURCE.kind));
        let new_key = change.new.as_ref().and_then(|pod| pods::controller_key(pod, &K::RESOURCE.kind));
        if let Some(pod) = &change.old
            && old_key != new_key
            && let Some(key) = old_key
        {
            expectations.deleted(&key, pod.metadata.uid());
            queue.add(key);
        }
        let Some(pod) = &change.new else { return };
        match new_key {
            Some(key) => {
                // A replacement is wanted as soon as a pod begins to end, not when it is gone.
                if pod.metadata.is_deleting() {
                    expectations.deleted(&key, pod.metadata.uid());
                } else if change.old.is_none() {
                    expectations.created(&key);
                }
                requeue_when_available(&objects, &queue, &key, &change);
                queue.add(key);
            }
            None if pod.metadata.controller().is_none() && !pod.metadata.is_deleting() => {
                let store = objects.store();
                for object in store.namespace(pod.metadata.ns()) {
                    let selects = object.wanted().is_some_and(|wanted| {
                        !selector::is_empty(&wanted.selector)
                            && selector::matches(&wanted.selector, pod.metadata.labels.as_ref())
                    });
                    if selects {
                        queue.add(ObjectKey::of(object.meta()));
                    }
                }
            }
            None => {}
        }
    });
}

fn requeue_when_available<K: Replicated>(
    objects: &Informer<K>,
    queue: &WorkQueue,
    key: &ObjectKey,
    change: &Change<Pod>,
) {
    let became_ready =
        change.new.as_deref().is_some_and(pods::is_ready) && !change.old.as_deref().is_some_and(pods::is_ready);
    if !became_ready {
        return;
    }
    let Some(wanted) = objects.get(&key.namespace, &key.name).and_then(|object| object.wanted()) else { return };
    if let Some(seconds) = u64::try_from(wanted.min_ready_secs).ok().filter(|seconds| *seconds > 0) {
        // One second more: API times are cut to seconds.
        queue.add_after(key.clone(), Duration::from_secs(seconds + 1));
    }
}

#[async_trait]
impl<K: Replicated> Reconcile for Driver<K> {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(object) = self.objects.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            return Ok(Next::Event);
        };
        let Some(wanted) = object.wanted() else { return Ok(Next::Event) };
        let satisfied = self.expectations.satisfied(key);
        let owned = self.claim(&*object, &wanted).await?;
        let error = if satisfied && !object.meta().is_deleting() {
            self.manage(key, &*object, &wanted, &owned).await
        } else {
            None
        };
        let now = self.ctx.clock.now();
        let failure = error.as_ref().map(|(reason, error)| (*reason, template::text(error)));
        let failure = match failure {
            None if !satisfied => previous_failure(&object.observed()),
            failure => failure.map(|(reason, message)| (reason.to_owned(), message)),
        };
        let failure = failure.as_ref().map(|(reason, message)| (reason.as_str(), message.clone()));
        let status = status(now, &wanted, &object.observed(), &owned, failure);
        self.write_status(&object, status).await?;
        if let Some((_, error)) = error {
            return if error.is_namespace_terminating() { Ok(Next::Event) } else { Err(error) };
        }
        let waiting = owned.iter().map(|pod| &**pod).filter(|pod| pods::is_active(pod));
        match pods::next_available(waiting, wanted.min_ready_secs, now) {
            Some(delay) if wanted.min_ready_secs > 0 => Ok(Next::After(delay)),
            _ => Ok(Next::Event),
        }
    }
}

/// While earlier writes are outstanding nothing is attempted, so nothing has been repaired either.
fn previous_failure(before: &ReplicaSetStatus) -> Option<(String, String)> {
    let condition = before.conditions.as_ref()?.iter().find(|condition| condition.type_ == "ReplicaFailure")?;
    Some((condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default()))
}

impl<K: Replicated> Driver<K> {
    async fn claim(&self, object: &K, wanted: &Wanted) -> Result<Vec<Arc<Pod>>> {
        let store = self.pods.store();
        let meta = object.meta();
        let orphans = pods::orphans_of(meta.ns());
        let candidates =
            store.indexed(pods::INDEX_CONTROLLER, meta.uid()).chain(store.indexed(pods::INDEX_CONTROLLER, &orphans));
        let claimant = Claimant { owner: object, selector: &wanted.selector };
        let mut claim = claimant.plan(candidates);
        claim.adopt.retain(|pod| pods::is_active(pod));
        claim.release.retain(|pod| pods::is_active(pod));
        claimant.perform(&self.ctx.client, claim).await
    }

    async fn manage(
        &self,
        key: &ObjectKey,
        object: &K,
        wanted: &Wanted,
        owned: &[Arc<Pod>],
    ) -> Option<(&'static str, Error)> {
        let related = self.related(object);
        let siblings = |pod: &Pod| related.iter().filter(|node| Some(node.as_str()) == pods::node_name(pod)).count();
        let plan = plan(self.ctx.clock.now(), wanted.replicas, owned, siblings);
        if plan.create > 0 {
            return self.create(key, object, wanted, plan.create).await.map(|error| ("FailedCreate", error));
        }
        if plan.delete.is_empty() {
            return None;
        }
        self.expectations.expect_deletions(key, plan.delete.iter().map(|pod| pod.metadata.uid().to_owned()));
        let outcome = batch::all(&plan.delete, |pod| async move {
            let outcome = template::delete(&self.ctx.client, &self.ctx.events, object, pod).await;
            if outcome.is_err() {
                self.expectations.deleted(key, pod.metadata.uid());
            }
            outcome
        });
        outcome.await.err().map(|error| ("FailedDelete", error))
    }

    async fn create(&self, key: &ObjectKey, object: &K, wanted: &Wanted, count: usize) -> Option<Error> {
        let pod = template::pod(object, &wanted.template);
        self.expectations.expect_creations(key, count);
        let outcome = slow_start(count, |_| template::create(&self.ctx.client, &self.ctx.events, object, &pod)).await;
        self.expectations.created_many(key, count - outcome.done);
        outcome.error
    }

    /// The nodes of all pods whose owners share our controller (the other revisions of a
    /// Deployment), ours included.
    fn related(&self, object: &K) -> Vec<String> {
        let store = self.pods.store();
        let owners: Vec<String> = match object.meta().controller() {
            None => vec![object.meta().uid().to_owned()],
            Some(controller) => {
                let family = self.objects.store();
                family
                    .indexed(skiff_client::INDEX_OWNER, &controller.uid)
                    .map(|sibling| sibling.meta().uid().to_owned())
                    .collect()
            }
        };
        let active = owners.iter().flat_map(|uid| store.indexed(pods::INDEX_CONTROLLER, uid));
        active.filter(|pod| pods::is_active(pod)).filter_map(|pod| pods::node_name(&pod).map(str::to_owned)).collect()
    }

    async fn write_status(&self, object: &K, mut status: ReplicaSetStatus) -> Result<()> {
        status.observed_generation = object.meta().generation;
        let mut changed = object.clone();
        changed.set_observed(status);
        if changed.observed() == object.observed() {
            return Ok(());
        }
        match self.ctx.client.replace_status(&changed).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// `name node phase ready`, absent parts as `-`.
    fn pod(text: &str) -> Arc<Pod> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().filter(|word| *word != "-").map(str::to_owned);
        let (name, node, phase) = (word(), word(), word());
        let ready = word().map(|_| PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(to_time(Timestamp::from_secs(50))),
            ..PodCondition::default()
        });
        Arc::new(Pod {
            metadata: ObjectMeta { name, ..ObjectMeta::default() },
            spec: Some(PodSpec { node_name: node, ..PodSpec::default() }),
            status: Some(PodStatus { phase, conditions: ready.map(|ready| vec![ready]), ..PodStatus::default() }),
        })
    }

    #[track_caller]
    fn check(replicas: i32, pods: &[&str], expected: &str) {
        let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        let plan = plan(Timestamp::from_secs(100), replicas, &pods, |pod| {
            pods.iter().filter(|other| pods::node_name(other) == pods::node_name(pod)).count()
        });
        let names: Vec<_> = plan.delete.iter().map(|pod| pod.metadata.id()).collect();
        assert_eq!(format!("create {} delete {names:?}", plan.create), expected);
    }

    #[test]
    fn the_number_of_active_pods_follows_the_wish() {
        check(3, &[], "create 3 delete []");
        check(2, &["a n1 Running ready", "b n1 Failed -"], "create 1 delete []");
        check(1, &["a n1 Running ready"], "create 0 delete []");
        check(1_000, &[], "create 500 delete []");
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        check(1, &["a n1 Running ready", "b - Pending -", "c n2 Pending -"], "create 0 delete [\"b\", \"c\"]");
        check(2, &["a n1 Running ready", "b n2 Running ready", "c n2 Running ready"], "create 0 delete [\"b\"]");
        check(1, &["a n1 Running ready", "b n1 Running -"], "create 0 delete [\"b\"]");
    }
}
