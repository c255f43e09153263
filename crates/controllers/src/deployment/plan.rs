//! What a Deployment needs next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_base::Timestamp;

use super::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, scale, status};
use crate::shared::{Meta, Round, controller_reference, scaled, template};

/// Annotations of the Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The history annotation is cut to this length, oldest revisions first.
const HISTORY_BYTES_MAX: usize = 2_000;

/// What the driver has seen.
pub(super) struct Observed<'a> {
    pub(super) deployment: &'a Deployment,
    /// The sets that the Deployment controls.
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    /// The uids of the sets with pods that have not ended.
    pub(super) sets_with_pods: Vec<String>,
}

/// One request.
#[derive(Debug)]
pub(super) enum Step {
    Create(Box<ReplicaSet>),
    Update { set: Box<ReplicaSet>, from: i32 },
    Delete(Arc<ReplicaSet>),
    SetRevision(String),
}

pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) status: DeploymentStatus,
    /// When to look again without an event.
    pub(super) again: Option<Duration>,
}

/// A set while it is being planned.
#[derive(Clone)]
pub(super) struct Revision {
    pub(super) set: Arc<ReplicaSet>,
    pub(super) replicas: i32,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) min_ready_secs: Option<i32>,
}

impl Revision {
    fn of(set: Arc<ReplicaSet>) -> Self {
        Self {
            replicas: spec_replicas(&set),
            annotations: set.metadata.annotations.clone().unwrap_or_default(),
            min_ready_secs: set.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
            set,
        }
    }

    pub(super) fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    pub(super) fn number(&self, annotation: &str) -> Option<i32> {
        self.annotations.get(annotation)?.parse().ok()
    }

    /// Asks for `replicas` pods and notes the sizes that the Deployment has now.
    pub(super) fn scale(&mut self, limits: &Limits, replicas: i32) {
        self.replicas = replicas;
        self.annotations.insert(DESIRED_REPLICAS.into(), limits.replicas.to_string());
        self.annotations.insert(MAX_REPLICAS.into(), limits.max_total().to_string());
    }

    fn revision(&self) -> i64 {
        self.annotations.get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
    }

    fn step(&self) -> Option<Step> {
        let from = spec_replicas(&self.set);
        let unchanged = self.replicas == from
            && self.set.metadata.annotations.clone().unwrap_or_default() == self.annotations
            && self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds) == self.min_ready_secs;
        if unchanged {
            return None;
        }
        let mut set = ReplicaSet::clone(&self.set);
        set.metadata.annotations = Some(self.annotations.clone());
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(self.replicas);
            spec.min_ready_seconds = self.min_ready_secs;
        }
        Some(Step::Update { set: Box::new(set), from })
    }
}

/// The numbers between which an update moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) replicas: i32,
    pub(super) surge: i32,
    pub(super) unavailable: i32,
    pub(super) recreate: bool,
}

impl Limits {
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self { replicas, surge: 0, unavailable: 0, recreate: true };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let resolve = |value: Option<&_>, round| value.and_then(|value| scaled(value, replicas, round));
        let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), Round::Up).unwrap_or(0);
        let mut unavailable =
            resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), Round::Down).unwrap_or(0);
        // Percentages may both round to nothing, and then the update could never move.
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        let unavailable = if replicas == 0 { 0 } else { unavailable.min(replicas) };
        Self { replicas, surge, unavailable, recreate: false }
    }

    pub(super) fn max_total(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    pub(super) fn min_available(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().is_some_and(|spec| Limits::of(spec).recreate)
}

pub(super) fn template_of(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

pub(super) fn spec_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Plans the next wave of requests and the present status.
pub(super) fn plan(now: Timestamp, observed: &Observed<'_>) -> Plan {
    let deployment = observed.deployment;
    let default = DeploymentSpec::default();
    let spec = deployment.spec.as_ref().unwrap_or(&default);
    let limits = Limits::of(spec);
    let (mut new, mut old) = split(spec, &observed.sets);
    let mut steps = Vec::new();
    let mut rolling_out = false;
    if !deployment.metadata.is_deleting() {
        if let Some(new) = &mut new {
            keep_revision(deployment, spec, new, &old);
            if deployment.metadata.annotation(REVISION) != new.annotations.get(REVISION).map(String::as_str) {
                steps.extend(new.annotations.get(REVISION).cloned().map(Step::SetRevision));
            }
        }
        let paused = spec.paused.unwrap_or(false);
        if paused || is_scaling(&limits, new.iter().chain(&old)) {
            scale::proportionally(deployment, &limits, &mut new, &mut old);
        } else {
            rolling_out = true;
            if limits.recreate {
                recreate(observed, &limits, &mut new, &mut old, &mut steps);
            } else {
                roll(deployment, &limits, &mut new, &mut old, &mut steps);
            }
        }
    }
    steps.extend(new.iter().chain(&old).filter_map(Revision::step));
    let new_set = new.as_ref().map(|new| &*new.set);
    let status = status::status(now, deployment, &limits, new_set, &observed.sets, rolling_out);
    let complete = status::is_complete(deployment, &status);
    if (complete && rolling_out) || spec.paused.unwrap_or(false) {
        steps.extend(expired(spec, &old));
    }
    let again = status::progress_deadline(now, deployment, &status);
    Plan { steps, status, again }
}

/// The set of the present template (the oldest, when there are several) and the others, by age.
fn split(spec: &DeploymentSpec, sets: &[Arc<ReplicaSet>]) -> (Option<Revision>, Vec<Revision>) {
    let mut sets: Vec<Arc<ReplicaSet>> = sets.to_vec();
    sets.sort_by_key(|set| {
        let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, set.metadata.name.clone())
    });
    let is_new = |set: &Arc<ReplicaSet>| template_of(set).is_some_and(|found| template::same(found, &spec.template));
    let new = sets.iter().position(is_new).map(|at| Revision::of(sets.remove(at)));
    (new, sets.into_iter().map(Revision::of).collect())
}

/// The new set takes the Deployment's annotations and the highest revision number.
fn keep_revision(deployment: &Deployment, spec: &DeploymentSpec, new: &mut Revision, old: &[Revision]) {
    new.min_ready_secs = spec.min_ready_seconds.filter(|seconds| *seconds != 0).or(new.min_ready_secs.map(|_| 0));
    if new.min_ready_secs == Some(0) && new.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).is_none() {
        new.min_ready_secs = None;
    }
    inherit(deployment, &mut new.annotations);
    let wanted = next_revision(old);
    let present = new.revision();
    if present >= wanted {
        return;
    }
    if let Some(before) = new.annotations.insert(REVISION.into(), wanted.to_string()).filter(|_| present > 0) {
        let history = new.annotations.entry(REVISION_HISTORY.into()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&before);
        while history.len() > HISTORY_BYTES_MAX
            && let Some(end) = history.find(',')
        {
            history.drain(..=end);
        }
    }
}

fn next_revision(old: &[Revision]) -> i64 {
    old.iter().map(Revision::revision).max().unwrap_or(0).saturating_add(1)
}

fn inherit(deployment: &Deployment, annotations: &mut BTreeMap<String, String>) {
    for (name, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_INHERITED.contains(&name.as_str()) {
            annotations.insert(name.clone(), value.clone());
        }
    }
}

/// Whether the Deployment was resized: a set in use still notes another size.
fn is_scaling<'a>(limits: &Limits, sets: impl Iterator<Item = &'a Revision>) -> bool {
    let mut active = sets.filter(|set| set.replicas > 0);
    active.any(|set| set.number(DESIRED_REPLICAS).is_some_and(|desired| desired != limits.replicas))
}

fn roll(
    deployment: &Deployment,
    limits: &Limits,
    new: &mut Option<Revision>,
    old: &mut [Revision],
    steps: &mut Vec<Step>,
) {
    let total: i32 = old.iter().map(|set| set.replicas).sum();
    match new {
        None => {
            let replicas = scale::new_replicas(limits, 0, total);
            steps.push(Step::Create(Box::new(new_set(deployment, limits, replicas, old))));
        }
        Some(new) => {
            let wanted = if new.replicas > limits.replicas {
                limits.replicas
            } else {
                scale::new_replicas(limits, new.replicas, total + new.replicas)
            };
            if wanted == new.replicas {
                scale::shrink_old(limits, new, old);
            } else {
                new.scale(limits, wanted);
            }
        }
    }
}

fn recreate(
    observed: &Observed<'_>,
    limits: &Limits,
    new: &mut Option<Revision>,
    old: &mut [Revision],
    steps: &mut Vec<Step>,
) {
    let mut stopping = false;
    for set in old.iter_mut().filter(|set| set.replicas > 0) {
        set.scale(limits, 0);
        stopping = true;
    }
    let has_pods = |set: &Revision| observed.sets_with_pods.iter().any(|uid| uid == set.set.metadata.uid());
    if stopping || old.iter().any(has_pods) {
        return;
    }
    match new {
        None => steps.push(Step::Create(Box::new(new_set(observed.deployment, limits, limits.replicas, old)))),
        Some(new) if new.replicas != limits.replicas => new.scale(limits, limits.replicas),
        Some(_) => {}
    }
}

fn new_set(deployment: &Deployment, limits: &Limits, replicas: i32, old: &[Revision]) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template::hash(&spec.template, collisions);
    let mut pod_template = spec.template;
    let meta = pod_template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(template::HASH_LABEL.into(), hash.clone());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(template::HASH_LABEL.into(), hash.clone());
    let mut annotations = BTreeMap::new();
    inherit(deployment, &mut annotations);
    annotations.insert(REVISION.into(), next_revision(old).to_string());
    annotations.insert(DESIRED_REPLICAS.into(), limits.replicas.to_string());
    annotations.insert(MAX_REPLICAS.into(), limits.max_total().to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.id())),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds.filter(|seconds| *seconds != 0),
            selector,
            template: Some(pod_template),
        }),
        status: None,
    }
}

/// Old sets beyond the history that is to be kept, if nothing runs from them.
fn expired(spec: &DeploymentSpec, old: &[Revision]) -> Vec<Step> {
    let Some(limit) = spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Vec::new();
    };
    let mut old: Vec<&Revision> = old.iter().filter(|set| !set.set.metadata.is_deleting()).collect();
    old.sort_by_key(|set| set.revision());
    let surplus = old.len().saturating_sub(limit);
    let idle = |set: &&&Revision| {
        let status = set.set.status.clone().unwrap_or_default();
        let seen = status.observed_generation.unwrap_or(0) >= set.set.metadata.generation.unwrap_or(0);
        status.replicas == 0 && spec_replicas(&set.set) == 0 && set.replicas == 0 && seen
    };
    old.iter().take(surplus).filter(idle).map(|set| Step::Delete(set.set.clone())).collect()
}

/// The sum of what `sets` report.
pub(super) fn sum(sets: &[Arc<ReplicaSet>], of: impl Fn(&ReplicaSet) -> Option<i32>) -> i32 {
    sets.iter().filter_map(|set| of(set)).sum()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some([("image".to_owned(), image.to_owned())].into()),
                ..ObjectMeta::default()
            }),
            spec: None,
        }
    }

    struct Case {
        replicas: i32,
        surge: &'static str,
        unavailable: &'static str,
        recreate: bool,
        paused: bool,
    }

    impl Default for Case {
        fn default() -> Self {
            Self { replicas: 3, surge: "25%", unavailable: "25%", recreate: false, paused: false }
        }
    }

    fn number(text: &str) -> IntOrString {
        text.parse().map_or_else(|_| IntOrString::String(text.to_owned()), IntOrString::Int)
    }

    /// `revision template replicas available [desired max]` per set; template `new` is the wanted one.
    fn set(text: &str) -> Arc<ReplicaSet> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (replicas, available) = (words[2].parse().ok(), words[3].parse().ok());
        let mut annotations = BTreeMap::from([(REVISION.to_owned(), words[0].to_owned())]);
        if let [desired, max] = words[4..] {
            annotations.insert(DESIRED_REPLICAS.into(), desired.into());
            annotations.insert(MAX_REPLICAS.into(), max.into());
        }
        Arc::new(ReplicaSet {
            metadata: ObjectMeta {
                name: Some(words[1].into()),
                uid: Some(words[1].into()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec { replicas, template: Some(template(words[1])), ..ReplicaSetSpec::default() }),
            status: Some(ReplicaSetStatus {
                replicas: replicas.unwrap_or(0),
                available_replicas: available,
                ready_replicas: available,
                ..ReplicaSetStatus::default()
            }),
        })
    }

    #[track_caller]
    fn check(case: Case, sets: &[&str], expected: &[&str]) {
        let strategy = if case.recreate {
            DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None }
        } else {
            DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(number(case.surge)),
                    max_unavailable: Some(number(case.unavailable)),
                }),
            }
        };
        let deployment = Deployment {
            metadata: ObjectMeta { name: Some("d".into()), ..ObjectMeta::default() },
            spec: Some(DeploymentSpec {
                replicas: Some(case.replicas),
                paused: Some(case.paused),
                strategy: Some(strategy),
                template: template("new"),
                revision_history_limit: Some(1),
                ..DeploymentSpec::default()
            }),
            status: None,
        };
        let sets: Vec<_> = sets.iter().map(|text| set(text)).collect();
        let running = sets.iter().filter(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0));
        let sets_with_pods = running.map(|set| set.metadata.uid().to_owned()).collect();
        let observed = Observed { deployment: &deployment, sets, sets_with_pods };
        let plan = plan(Timestamp::from_secs(1_000), &observed);
        let steps: Vec<String> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Create(set) => Some(format!(
                    "create {} revision {}",
                    spec_replicas(set),
                    set.metadata.annotation(REVISION).unwrap_or("")
                )),
                Step::Update { set, from } if *from != spec_replicas(set) => {
                    Some(format!("scale {} {from}->{}", set.metadata.id(), spec_replicas(set)))
                }
                Step::Update { set, .. } => {
                    Some(format!("revise {} {}", set.metadata.id(), set.metadata.annotation(REVISION).unwrap_or("")))
                }
                Step::Delete(set) => Some(format!("delete {}", set.metadata.id())),
                Step::SetRevision(_) => None,
            })
            .collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn the_first_set_starts_with_all_replicas() {
        check(Case::default(), &[], &["create 3 revision 1"]);
    }

    #[test]
    fn a_new_template_starts_with_the_surge() {
        check(Case::default(), &["1 old 3 3 3 4"], &["create 1 revision 2"]);
        check(Case { surge: "0", ..Case::default() }, &["1 old 3 3 3 3"], &["create 0 revision 2"]);
    }

    #[test]
    fn old_sets_shrink_as_new_pods_become_available() {
        check(Case::default(), &["1 old 3 3 3 4", "2 new 1 0 3 4"], &[]);
        check(Case::default(), &["1 old 3 3 3 4", "2 new 1 1 3 4"], &["scale old 3->2"]);
        check(Case::default(), &["1 old 2 2 3 4", "2 new 1 1 3 4"], &["scale new 1->2"]);
        check(Case::default(), &["1 old 0 0 3 4", "2 new 3 3 3 4"], &[]);
    }

    #[test]
    fn without_surge_the_old_set_gives_way_first() {
        let case = || Case { surge: "0", unavailable: "1", ..Case::default() };
        check(case(), &["1 old 3 3 3 3", "2 new 0 0 3 3"], &["scale old 3->2"]);
        check(case(), &["1 old 2 2 3 3", "2 new 0 0 3 3"], &["scale new 0->1"]);
    }

    #[test]
    fn unhealthy_old_pods_go_first() {
        check(Case::default(), &["1 old 3 0 3 4", "2 new 1 1 3 4"], &["scale old 3->2"]);
        check(Case::default(), &["1 broken 1 0 3 4", "2 old 3 3 3 4", "3 new 0 0 3 4"], &["scale broken 1->0"]);
    }

    #[test]
    fn a_resized_deployment_scales_its_sets_in_proportion() {
        check(Case { replicas: 6, ..Case::default() }, &["1 new 3 3 3 4"], &["scale new 3->6"]);
        check(
            Case { replicas: 10, surge: "0", unavailable: "5", ..Case::default() },
            &["1 old 3 3 5 5", "2 new 2 2 5 5"],
            &["scale new 2->4", "scale old 3->6"],
        );
        check(Case { replicas: 0, ..Case::default() }, &["1 new 3 3 3 4"], &["scale new 3->0"]);
    }

    #[test]
    fn recreate_waits_for_the_last_old_pod() {
        let case = || Case { recreate: true, ..Case::default() };
        check(case(), &["1 old 3 3 3 3"], &["scale old 3->0"]);
        check(case(), &["1 old 0 0 3 3"], &["create 3 revision 2"]);
    }

    #[test]
    fn a_paused_deployment_scales_but_does_not_roll() {
        let case = || Case { paused: true, ..Case::default() };
        check(case(), &["1 old 3 3 3 4"], &[]);
        check(Case { replicas: 5, ..case() }, &["1 old 3 3 3 4"], &["scale old 3->5"]);
    }

    #[test]
    fn going_back_gives_the_old_set_a_new_revision() {
        check(Case::default(), &["1 new 0 0 3 4", "2 old 3 3 3 4"], &["scale new 0->1"]);
        check(Case::default(), &["1 new 3 3 3 4", "2 old 0 0 3 4"], &["revise new 3"]);
    }

    #[test]
    fn history_beyond_the_limit_is_deleted_when_complete() {
        check(Case::default(), &["1 a 0 0 3 4", "2 b 0 0 3 4", "3 new 3 3 3 4"], &["delete a"]);
        check(Case::default(), &["1 a 0 0 3 4", "2 b 0 0 3 4", "3 new 3 2 3 4"], &[]);
    }

    #[test]
    fn limits_round_so_that_an_update_can_move() {
        let limits = |replicas, surge, unavailable| {
            let rolling =
                RollingUpdateDeployment { max_surge: Some(number(surge)), max_unavailable: Some(number(unavailable)) };
            let strategy = DeploymentStrategy { type_: None, rolling_update: Some(rolling) };
            let limits = Limits::of(&DeploymentSpec {
                replicas: Some(replicas),
                strategy: Some(strategy),
                ..Default::default()
            });
            (limits.surge, limits.unavailable)
        };
        assert_eq!(limits(10, "25%", "25%"), (3, 2));
        assert_eq!(limits(1, "0%", "25%"), (0, 1));
        assert_eq!(limits(0, "1", "1"), (1, 0));
    }
}
