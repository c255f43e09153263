//! Which pods a StatefulSet makes and removes next. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use skiff_base::Timestamp;

use crate::shared::revisions::HASH_LABEL;
use crate::shared::{Meta, int, pods};

/// What the driver has seen.
pub(super) struct Observed<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) pods: &'a [Arc<Pod>],
    /// The names of the revision that pods had, and of the one they shall have.
    pub(super) current: &'a str,
    pub(super) update: &'a str,
}

/// A pod to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewPod {
    pub(super) ordinal: i32,
    /// The name of its revision.
    pub(super) revision: String,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<NewPod>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) status: StatefulSetStatus,
    pub(super) again: Option<Duration>,
}

/// The ordinal of a pod of the set called `set`.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok().filter(|ordinal| *ordinal >= 0)
}

fn revision_of(pod: &Pod) -> &str {
    pod.metadata.label(HASH_LABEL).unwrap_or("")
}

fn is_healthy(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod) && !pod.metadata.is_deleting()
}

struct Round<'a> {
    now: Timestamp,
    observed: &'a Observed<'a>,
    spec: &'a StatefulSetSpec,
    start: i32,
    /// The pods in their places.
    replicas: Vec<Option<Arc<Pod>>>,
    /// Pods without a place, the highest ordinal first.
    condemned: Vec<Arc<Pod>>,
    plan: Plan,
}

/// Plans one round.
pub(super) fn plan(now: Timestamp, observed: &Observed<'_>) -> Plan {
    let default = StatefulSetSpec::default();
    let spec = observed.set.spec.as_ref().unwrap_or(&default);
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let count = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut replicas = vec![None; count];
    let mut condemned = Vec::new();
    let name = observed.set.metadata.id();
    for pod in observed.pods {
        let Some(ordinal) = ordinal(name, pod.metadata.id()) else { continue };
        match usize::try_from(ordinal - start).ok().and_then(|at| replicas.get_mut(at)) {
            Some(slot) => *slot = Some(pod.clone()),
            None => condemned.push((ordinal, pod.clone())),
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    let condemned = condemned.into_iter().map(|(_, pod)| pod).collect();
    let mut round = Round { now, observed, spec, start, replicas, condemned, plan: Plan::default() };
    if !observed.set.metadata.is_deleting() && round.fill() && round.shrink() {
        round.update();
    }
    round.plan.status = round.status();
    round.plan
}

impl Round<'_> {
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_healthy(pod) && pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition).unwrap_or(0)
    }

    /// Makes what is missing; tells whether the next stage may begin.
    fn fill(&mut self) -> bool {
        for at in 0..self.replicas.len() {
            let ordinal = self.start + int(at);
            match self.replicas[at].clone() {
                None => {
                    let revision = self.revision_for(ordinal).to_owned();
                    self.plan.create.push(NewPod { ordinal, revision });
                    if self.is_ordered() {
                        return false;
                    }
                }
                Some(pod) if pods::is_finished(&pod) => {
                    if !pod.metadata.is_deleting() {
                        self.plan.delete.push(pod);
                    }
                    if self.is_ordered() {
                        return false;
                    }
                }
                Some(pod) if self.is_ordered() && !self.is_available(&pod) => {
                    self.plan.again =
                        pods::next_available([&*pod].into_iter(), self.spec.min_ready_seconds.unwrap_or(0), self.now);
                    // A pod of the old revision that never becomes ready would block its own
                    // replacement for ever if everything waited for it.
                    return false;
                }
                Some(_) => {}
            }
        }
        true
    }

    /// The revision of a pod that is made at `ordinal`: those before the partition come back as they
    /// were.
    fn revision_for(&self, ordinal: i32) -> &str {
        let kind = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        let keeps = kind != Some("OnDelete") && ordinal < self.start + self.partition();
        if keeps { self.observed.current } else { self.observed.update }
    }

    fn shrink(&mut self) -> bool {
        if !self.is_ordered() {
            let going = self.condemned.iter().filter(|pod| !pod.metadata.is_deleting());
            self.plan.delete.extend(going.cloned());
            return true;
        }
        // One at a time, from the end; the next when it is gone.
        let Some(pod) = self.condemned.first() else { return true };
        if !pod.metadata.is_deleting() {
            self.plan.delete.push(pod.clone());
        }
        false
    }

    /// Replaces pods of another revision from the end, one at a time, each after the one before
    /// has become available.
    fn update(&mut self) {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        if strategy == Some("OnDelete") || !self.plan.create.is_empty() {
            return;
        }
        let first = usize::try_from(self.partition()).unwrap_or(0);
        for pod in self.replicas.iter().skip(first).rev().flatten() {
            if revision_of(pod) != self.observed.update && !pod.metadata.is_deleting() {
                self.plan.delete.push(pod.clone());
                return;
            }
            if !self.is_available(pod) {
                return;
            }
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let before = self.observed.set.status.clone().unwrap_or_default();
        let all = || self.replicas.iter().flatten().chain(&self.condemned);
        let count = |test: &dyn Fn(&Pod) -> bool| int(all().filter(|pod| test(pod)).count());
        let of = |revision: &str| count(&|pod| revision_of(pod) == revision && !pod.metadata.is_deleting());
        let replicas = count(&|_| true);
        let ready = count(&is_healthy);
        let mut status = StatefulSetStatus {
            observed_generation: self.observed.set.metadata.generation,
            replicas,
            ready_replicas: Some(ready).filter(|count| *count > 0),
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: Some(of(self.observed.current)).filter(|count| *count > 0),
            updated_replicas: Some(of(self.observed.update)).filter(|count| *count > 0),
            current_revision: Some(self.observed.current.to_owned()),
            update_revision: Some(self.observed.update.to_owned()),
            collision_count: before.collision_count.or(Some(0)),
            conditions: before.conditions,
        };
        let updated = status.updated_replicas.unwrap_or(0);
        if updated == replicas && ready == replicas && int(self.replicas.len()) == replicas {
            status.current_revision = status.update_revision.clone();
            status.current_replicas = status.updated_replicas;
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSetUpdateStrategy};
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use skiff_client::time::to_time;

    use super::*;

    /// `ordinal revision [ready] [deleting] [failed]`.
    fn pod(text: &str) -> Arc<Pod> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let has = |word: &str| words.contains(&word);
        let ready = PodCondition {
            type_: "Ready".into(),
            status: if has("ready") { "True" } else { "False" }.into(),
            ..PodCondition::default()
        };
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(format!("s-{}", words[0])),
                labels: Some([(HASH_LABEL.to_owned(), words[1].to_owned())].into()),
                deletion_timestamp: has("deleting").then(|| to_time(Timestamp::EPOCH)),
                ..ObjectMeta::default()
            },
            spec: None,
            status: Some(PodStatus {
                phase: Some(if has("failed") { "Failed" } else { "Running" }.into()),
                conditions: Some(vec![ready]),
                ..PodStatus::default()
            }),
        })
    }

    #[track_caller]
    fn check(policy: &str, partition: i32, pods: &[&str], create: &[i32], delete: &[&str]) {
        let set = StatefulSet {
            metadata: ObjectMeta { name: Some("s".into()), ..ObjectMeta::default() },
            spec: Some(StatefulSetSpec {
                replicas: Some(3),
                pod_management_policy: Some(policy.into()),
                update_strategy: Some(StatefulSetUpdateStrategy {
                    type_: None,
                    rolling_update: Some(RollingUpdateStatefulSetStrategy {
                        partition: Some(partition),
                        ..RollingUpdateStatefulSetStrategy::default()
                    }),
                }),
                ..StatefulSetSpec::default()
            }),
            status: None,
        };
        let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        let observed = Observed { set: &set, pods: &pods, current: "old", update: "new" };
        let plan = plan(Timestamp::from_secs(1), &observed);
        assert_eq!(plan.create.iter().map(|new| new.ordinal).collect::<Vec<_>>(), create);
        assert_eq!(plan.delete.iter().map(|pod| pod.metadata.id()).collect::<Vec<_>>(), delete);
    }

    #[test]
    fn ordered_pods_come_one_after_the_other() {
        check("OrderedReady", 0, &[], &[0], &[]);
        check("OrderedReady", 0, &["0 new"], &[], &[]);
        check("OrderedReady", 0, &["0 new ready"], &[1], &[]);
        check("OrderedReady", 0, &["0 new failed", "1 new ready"], &[], &["s-0"]);
        check("Parallel", 0, &["1 new"], &[0, 2], &[]);
    }

    #[test]
    fn surplus_goes_from_the_end() {
        let all = ["0 new ready", "1 new ready", "2 new ready", "3 new ready", "4 new ready"];
        check("OrderedReady", 0, &all, &[], &["s-4"]);
        check("Parallel", 0, &all, &[], &["s-4", "s-3"]);
    }

    #[test]
    fn updates_go_from_the_end_down_to_the_partition() {
        check("OrderedReady", 0, &["0 old ready", "1 old ready", "2 old ready"], &[], &["s-2"]);
        check("OrderedReady", 0, &["0 old ready", "1 old ready", "2 new ready"], &[], &["s-1"]);
        check("OrderedReady", 2, &["0 old ready", "1 old ready", "2 new ready"], &[], &[]);
        check("OrderedReady", 0, &["0 old ready", "1 old ready", "2 new"], &[], &[]);
    }
}
