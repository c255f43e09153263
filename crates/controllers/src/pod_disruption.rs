//! PodDisruptionBudgets: how many pods may be evicted now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use skiff_base::Timestamp;
use skiff_client::time::{from_time, to_time};
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, Severity, WorkQueue, run_controller};

use crate::Context;
use crate::shared::{Meta, Round, int, pods, scaled, selector};

pub(crate) const NAME: &str = "disruption-controller";

/// An eviction that was granted and has not deleted its pod after this long will not.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(120);

struct Driver {
    ctx: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    owners: Owners,
}

/// The kinds that say how many pods there should be.
struct Owners {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    controllers: Informer<ReplicationController>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let budgets = ctx.informers.of::<PodDisruptionBudget>();
    let pods = pods::informer(&ctx.informers);
    let owners = Owners {
        deployments: ctx.informers.of(),
        replica_sets: ctx.informers.of::<ReplicaSet>().with_owner_index(),
        stateful_sets: ctx.informers.of(),
        controllers: ctx.informers.of(),
    };
    let added = queue.clone();
    budgets.subscribe(move |change| added.add(change.key()));
    let (of_pods, changed) = (budgets.clone(), queue.clone());
    pods.subscribe(move |change| {
        let store = of_pods.store();
        for budget in store.namespace(&change.key().namespace) {
            let selects = |pod: &Arc<Pod>| selects(&budget, pod);
            if change.old.iter().chain(&change.new).any(selects) {
                changed.add(ObjectKey::of(&budget.metadata));
            }
        }
    });
    let (of_scale, scaled) = (budgets.clone(), queue.clone());
    let resized = move |namespace: &str| {
        for budget in of_scale.store().namespace(namespace) {
            scaled.add(ObjectKey::of(&budget.metadata));
        }
    };
    watch_scales(&owners, resized);
    let (first, second, third) = (budgets.clone(), pods.clone(), owners.replica_sets.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 2, Arc::new(Driver { ctx, budgets, pods, owners }), async move {
        first.synced().await;
        second.synced().await;
        third.synced().await;
    });
}

fn watch_scales(owners: &Owners, resized: impl Fn(&str) + Clone + Send + Sync + 'static) {
    let tell = resized.clone();
    owners.replica_sets.subscribe(move |change| {
        let replicas = |set: &Arc<ReplicaSet>| set.spec.as_ref().and_then(|spec| spec.replicas);
        if change.old.as_ref().map(replicas) != change.new.as_ref().map(replicas) {
            tell(&change.key().namespace);
        }
    });
    let tell = resized.clone();
    owners.deployments.subscribe(move |change| {
        let replicas = |found: &Arc<Deployment>| found.spec.as_ref().and_then(|spec| spec.replicas);
        if change.old.as_ref().map(replicas) != change.new.as_ref().map(replicas) {
            tell(&change.key().namespace);
        }
    });
    owners.stateful_sets.subscribe(move |change| {
        let replicas = |found: &Arc<StatefulSet>| found.spec.as_ref().and_then(|spec| spec.replicas);
        if change.old.as_ref().map(replicas) != change.new.as_ref().map(replicas) {
            resized(&change.key().namespace);
        }
    });
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector::matches(selector, pod.metadata.labels.as_ref()))
}

/// The status of `budget` over its `pods`. `scale` tells how many pods the owner with this uid
/// should have.
fn plan(
    now: Timestamp,
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Option<(String, i32)>,
) -> std::result::Result<PodDisruptionBudgetStatus, String> {
    let (expected, desired) = demand(budget, pods, scale)?;
    let before = budget.status.clone().unwrap_or_default();
    let disrupted = still_disrupted(now, before.disrupted_pods.unwrap_or_default(), pods);
    let healthy = pods
        .iter()
        .filter(|pod| pods::is_ready(pod) && !pod.metadata.is_deleting() && !disrupted.contains_key(pod.metadata.id()));
    let healthy = int(healthy.count());
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    Ok(PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions(now, budget, allowed)),
    })
}

/// How many pods there should be, and how many must be healthy.
fn demand(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Option<(String, i32)>,
) -> std::result::Result<(i32, i32), String> {
    let Some(spec) = &budget.spec else { return Ok((0, 0)) };
    let expected_of_owners = || {
        let mut owners: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.metadata.controller().is_some()) {
            let (uid, replicas) = scale(pod)
                .ok_or_else(|| format!("no scale of the controller of pod {} is known", pod.metadata.id()))?;
            owners.insert(uid, replicas);
        }
        Ok::<i32, String>(owners.values().sum())
    };
    let resolve = |value, total| scaled(value, total, Round::Up).ok_or("the budget is no number and no percentage");
    if let Some(unavailable) = &spec.max_unavailable {
        let expected = expected_of_owners()?;
        Ok((expected, (expected - resolve(unavailable, expected)?).max(0)))
    } else if let Some(available) = &spec.min_available {
        match available {
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(number) => Ok((int(pods.len()), *number)),
            percentage => {
                let expected = expected_of_owners()?;
                Ok((expected, resolve(percentage, expected)?))
            }
        }
    } else {
        Ok((0, 0))
    }
}

fn still_disrupted(now: Timestamp, before: BTreeMap<String, Time>, pods: &[Arc<Pod>]) -> BTreeMap<String, Time> {
    let pending = |name: &str, since: &Time| {
        let pod = pods.iter().find(|pod| pod.metadata.id() == name);
        pod.is_some_and(|pod| !pod.metadata.is_deleting()) && now.since(from_time(since)) < EVICTION_TIMEOUT
    };
    before.into_iter().filter(|(name, since)| pending(name, since)).collect()
}

fn conditions(now: Timestamp, budget: &PodDisruptionBudget, allowed: i32) -> Vec<Condition> {
    const KIND: &str = "DisruptionAllowed";
    let mut conditions = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = conditions.iter().find(|condition| condition.type_ == KIND && condition.status == status);
    let since = before.map_or_else(|| to_time(now), |condition| condition.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != KIND);
    conditions.push(Condition {
        type_: KIND.into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: budget.metadata.generation,
    });
    conditions
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let store = self.pods.store();
        let pods: Vec<_> = store.namespace(&key.namespace).filter(|pod| selects(&budget, pod)).collect();
        let now = self.ctx.clock.now();
        let status = match plan(now, &budget, &pods, |pod| self.owners.scale(pod)) {
            Ok(status) => status,
            Err(message) => {
                self.ctx.events.record(&*budget, Severity::Warning, "CalculateExpectedPodCountFailed", message);
                PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..budget.status.clone().unwrap_or_default() }
            }
        };
        let again = status.disrupted_pods.iter().flatten().map(|(_, since)| from_time(since)).min();
        if budget.status.as_ref() != Some(&status) {
            let mut changed = PodDisruptionBudget::clone(&budget);
            changed.status = Some(status);
            match self.ctx.client.replace_status(&changed).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(again.map_or(Next::Event, |since| Next::After(since.plus(EVICTION_TIMEOUT).since(now))))
    }
}

impl Owners {
    /// The uid of what decides about the number of pods like `pod`, and that number.
    fn scale(&self, pod: &Pod) -> Option<(String, i32)> {
        let namespace = pod.metadata.ns();
        let owner = pod.metadata.controller()?;
        let replicas = |uid: &str, replicas: Option<i32>| (uid.to_owned(), replicas.unwrap_or(1));
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set =
                    self.replica_sets.get(namespace, &owner.name).filter(|set| set.metadata.uid() == owner.uid)?;
                let parent = set.metadata.controller().filter(|parent| parent.kind == "Deployment");
                match parent.and_then(|parent| self.deployment(namespace, parent)) {
                    Some(found) => Some(found),
                    None => Some(replicas(&owner.uid, set.spec.as_ref()?.replicas)),
                }
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(namespace, &owner.name)?;
                Some(replicas(&owner.uid, set.spec.as_ref()?.replicas))
            }
            "ReplicationController" => {
                let controller = self.controllers.get(namespace, &owner.name)?;
                Some(replicas(&owner.uid, controller.spec.as_ref()?.replicas))
            }
            _ => None,
        }
    }

    fn deployment(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let deployment = self.deployments.get(namespace, &owner.name)?;
        Some((owner.uid.clone(), deployment.spec.as_ref()?.replicas.unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
    use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;

    #[track_caller]
    fn check(min: Option<&str>, max: Option<&str>, ready: usize, all: usize, allowed: i32) {
        let number = |text: &str| text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int);
        let budget = PodDisruptionBudget {
            spec: Some(PodDisruptionBudgetSpec {
                min_available: min.map(number),
                max_unavailable: max.map(number),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        };
        let pod = |index: usize| {
            let ready = PodCondition {
                type_: "Ready".into(),
                status: if index < ready { "True" } else { "False" }.into(),
                ..PodCondition::default()
            };
            Arc::new(Pod {
                metadata: ObjectMeta {
                    name: Some(index.to_string()),
                    owner_references: Some(vec![OwnerReference { controller: Some(true), ..Default::default() }]),
                    ..ObjectMeta::default()
                },
                status: Some(PodStatus { conditions: Some(vec![ready]), ..PodStatus::default() }),
                spec: None,
            })
        };
        let pods: Vec<_> = (0..all).map(pod).collect();
        let total = int(all);
        let status = plan(Timestamp::from_secs(1), &budget, &pods, |_| Some(("set".into(), total))).unwrap();
        assert_eq!(status.disruptions_allowed, Some(allowed));
    }

    #[test]
    fn as_many_may_go_as_the_budget_leaves() {
        check(Some("2"), None, 3, 3, 1);
        check(Some("2"), None, 2, 3, 0);
        check(Some("50%"), None, 4, 5, 1);
        check(None, Some("1"), 3, 3, 1);
        check(None, Some("1"), 2, 3, 0);
        check(None, Some("34%"), 3, 3, 2);
        check(Some("1"), None, 0, 0, 0);
    }
}
