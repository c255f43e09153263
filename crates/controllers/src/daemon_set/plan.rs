//! Which nodes get a pod of a DaemonSet, and which pods go. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use skiff_base::Timestamp;

use crate::shared::revisions::HASH_LABEL;
use crate::shared::taints::{
    self, DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE,
    UNREACHABLE, UNSCHEDULABLE,
};
use crate::shared::{Meta, Round, int, pods, scaled};

/// What the driver has seen.
pub(super) struct Observed<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) pods: &'a [Arc<Pod>],
    /// The name of the present revision in the labels of pods.
    pub(super) hash: &'a str,
}

#[derive(Default)]
pub(super) struct Plan {
    /// The nodes that get a pod.
    pub(super) create: Vec<String>,
    /// Pods that go: surplus, misplaced or outdated.
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that failed, with their node: they go too, with a pause per node.
    pub(super) failed: Vec<Arc<Pod>>,
    pub(super) status: DaemonSetStatus,
}

/// Whether a pod may be placed on a node, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fits {
    pub(super) run: bool,
    pub(super) stay: bool,
}

/// Judges `node` for pods of this template.
pub(super) fn fits(spec: &PodSpec, node: &Node) -> Fits {
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.metadata.id()) || !taints::selects_node(spec, node) {
        return Fits { run: false, stay: false };
    }
    let tolerations = tolerations(spec);
    Fits {
        run: taints::all_tolerated(node, &tolerations, &[NO_SCHEDULE, NO_EXECUTE]),
        stay: taints::all_tolerated(node, &tolerations, &[NO_EXECUTE]),
    }
}

/// The tolerations of the template, and those every daemon has: it serves its node in trouble too.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let mut rows = vec![
        (NOT_READY, NO_EXECUTE),
        (UNREACHABLE, NO_EXECUTE),
        (DISK_PRESSURE, NO_SCHEDULE),
        (MEMORY_PRESSURE, NO_SCHEDULE),
        (PID_PRESSURE, NO_SCHEDULE),
        (UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if spec.host_network == Some(true) {
        rows.push((NETWORK_UNAVAILABLE, NO_SCHEDULE));
    }
    for (key, effect) in rows {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// Pins `spec` to `node`, so that the scheduler places it there and only there.
pub(super) fn pin(spec: &mut PodSpec, node: &str) {
    spec.tolerations = Some(tolerations(spec));
    let term = NodeSelectorTerm {
        match_expressions: None,
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // The controller has judged the template's own terms: they need not be judged again.
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that `pod` is on or is meant for.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(node) = pods::node_name(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields
        .filter(|field| field.key == "metadata.name")
        .find_map(|field| field.values.as_ref()?.first())
        .map(String::as_str)
}

/// How many pods may be missing, and how many may be doubled, during an update.
#[derive(Clone, Copy)]
struct Limits {
    unavailable: i32,
    surge: i32,
}

fn limits(spec: &DaemonSetSpec, desired: i32) -> Option<Limits> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let resolve = |value: Option<&_>| value.and_then(|value| scaled(value, desired, Round::Up));
    let surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref())).unwrap_or(0);
    let mut unavailable = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref())).unwrap_or(1);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    Some(Limits { unavailable, surge })
}

/// Plans one wave.
pub(super) fn plan(now: Timestamp, observed: &Observed<'_>) -> Plan {
    let default = DaemonSetSpec::default();
    let spec = observed.set.spec.as_ref().unwrap_or(&default);
    let pod_spec = spec.template.spec.clone().unwrap_or_default();
    let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in observed.pods {
        by_node.entry(node_of(pod).unwrap_or("")).or_default().push(pod.clone());
    }
    let judged: Vec<(&Node, Fits)> = observed.nodes.iter().map(|node| (&**node, fits(&pod_spec, node))).collect();
    let desired = int(judged.iter().filter(|(_, fits)| fits.run).count());
    let limits = limits(spec, desired);
    let surge = limits.is_some_and(|limits| limits.surge > 0);
    let mut plan = Plan::default();
    for (node, fits) in &judged {
        let here = by_node.get(node.metadata.id()).map(Vec::as_slice).unwrap_or_default();
        manage_node(node.metadata.id(), *fits, here, surge, observed.hash, &mut plan);
    }
    // Meant for a node that is gone, and not yet placed: the pod collector sees only placed ones.
    for (node, stranded) in &by_node {
        if !observed.nodes.iter().any(|known| known.metadata.id() == *node) {
            plan.delete.extend(stranded.iter().filter(|pod| pods::node_name(pod).is_none()).cloned());
        }
    }
    plan.delete.retain(|pod| !pod.metadata.is_deleting());
    if plan.create.is_empty()
        && plan.delete.is_empty()
        && plan.failed.is_empty()
        && let Some(limits) = limits
    {
        update(now, spec, observed, &judged, &by_node, limits, desired, &mut plan);
    }
    plan.status = status(now, observed, spec, &judged, &by_node);
    plan
}

fn manage_node(node: &str, fits: Fits, here: &[Arc<Pod>], surge: bool, hash: &str, plan: &mut Plan) {
    if here.is_empty() {
        if fits.run {
            plan.create.push(node.to_owned());
        }
        return;
    }
    if !fits.stay {
        plan.delete.extend(here.iter().cloned());
        return;
    }
    let mut running: Vec<Arc<Pod>> = Vec::new();
    for pod in here.iter().filter(|pod| !pod.metadata.is_deleting()) {
        match pods::phase(pod) {
            "Failed" | "Succeeded" => plan.failed.push(pod.clone()),
            _ => running.push(pod.clone()),
        }
    }
    // The oldest placed one stays; during a surge, the oldest of each revision.
    running.sort_by_key(|pod| (pods::node_name(pod).is_none(), pods::created(pod), pod.metadata.name.clone()));
    if surge {
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| is_current(pod, hash));
        plan.delete.extend(new.into_iter().skip(1));
        plan.delete.extend(old.into_iter().skip(1));
    } else {
        plan.delete.extend(running.into_iter().skip(1));
    }
}

fn is_current(pod: &Pod, hash: &str) -> bool {
    pod.metadata.label(HASH_LABEL) == Some(hash)
}

/// Replaces outdated pods within the limits: those that serve nobody first.
#[allow(clippy::too_many_arguments)] // the parts of one plan
fn update(
    now: Timestamp,
    spec: &DaemonSetSpec,
    observed: &Observed<'_>,
    judged: &[(&Node, Fits)],
    by_node: &BTreeMap<&str, Vec<Arc<Pod>>>,
    limits: Limits,
    desired: i32,
    plan: &mut Plan,
) {
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available = |pod: &Pod| pods::is_available(pod, min_ready, now);
    let (mut missing, mut doubled) = (0, 0);
    let (mut unavailable_old, mut available_old, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    let mut surging = Vec::new();
    for (node, _) in judged.iter().filter(|(_, fits)| fits.run) {
        let here = by_node.get(node.metadata.id()).map(Vec::as_slice).unwrap_or_default();
        let live = || here.iter().filter(|pod| !pod.metadata.is_deleting());
        let new = live().find(|pod| is_current(pod, observed.hash));
        let old = live().find(|pod| !is_current(pod, observed.hash));
        match (new, old) {
            (Some(new), Some(old)) if limits.surge > 0 => {
                if available(new) || !available(old) {
                    replaced.push(old.clone());
                } else {
                    doubled += 1;
                }
            }
            (_, Some(old)) if available(old) => {
                available_old.push(old.clone());
                surging.push(node.metadata.id().to_owned());
            }
            (_, Some(old)) => {
                missing += 1;
                unavailable_old.push(old.clone());
                surging.push(node.metadata.id().to_owned());
            }
            (Some(new), None) if available(new) => {}
            _ => missing += 1,
        }
    }
    let _ = desired;
    if limits.surge > 0 {
        plan.delete.extend(replaced);
        let room = usize::try_from(limits.surge - doubled).unwrap_or(0);
        plan.create.extend(surging.into_iter().take(room));
    } else {
        // An outdated pod that is down already costs nothing.
        plan.delete.extend(unavailable_old);
        let room = usize::try_from(limits.unavailable - missing).unwrap_or(0);
        plan.delete.extend(available_old.into_iter().take(room));
    }
}

fn status(
    now: Timestamp,
    observed: &Observed<'_>,
    spec: &DaemonSetSpec,
    judged: &[(&Node, Fits)],
    by_node: &BTreeMap<&str, Vec<Arc<Pod>>>,
) -> DaemonSetStatus {
    let before = observed.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: observed.set.metadata.generation,
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for (node, fits) in judged {
        let here = by_node.get(node.metadata.id()).map(Vec::as_slice).unwrap_or_default();
        if !fits.run {
            status.number_misscheduled += i32::from(!here.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        // The oldest stands for the node.
        let Some(pod) = here.iter().min_by_key(|pod| pods::created(pod)) else { continue };
        status.current_number_scheduled += 1;
        if pods::is_ready(pod) {
            status.number_ready += 1;
            available += i32::from(pods::is_available(pod, spec.min_ready_seconds.unwrap_or(0), now));
        }
        updated += i32::from(is_current(pod, observed.hash));
    }
    let positive = |count: i32| Some(count).filter(|count| *count > 0);
    status.number_available = positive(available);
    status.number_unavailable = positive(status.desired_number_scheduled - available);
    status.updated_number_scheduled = positive(updated);
    status
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, PodCondition, PodStatus, PodTemplateSpec, Taint};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// `name [tainted]`.
    fn node(text: &str) -> Arc<Node> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let taint =
            (!rest.is_empty()).then(|| Taint { key: rest.into(), effect: NO_SCHEDULE.into(), ..Taint::default() });
        Arc::new(Node {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(NodeSpec { taints: Some(taint.into_iter().collect()), ..NodeSpec::default() }),
            status: None,
        })
    }

    /// `name node revision phase ready`.
    fn pod(text: &str) -> Arc<Pod> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ready = words.get(4).map(|_| PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            ..PodCondition::default()
        });
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(words[0].into()),
                labels: Some([(HASH_LABEL.to_owned(), words[2].to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { node_name: Some(words[1].into()), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: Some(words[3].into()),
                conditions: Some(ready.into_iter().collect()),
                ..PodStatus::default()
            }),
        })
    }

    #[track_caller]
    fn check(nodes: &[&str], pods: &[&str], create: &[&str], delete: &[&str]) {
        let set = DaemonSet {
            spec: Some(DaemonSetSpec { template: PodTemplateSpec::default(), ..DaemonSetSpec::default() }),
            ..DaemonSet::default()
        };
        let nodes: Vec<_> = nodes.iter().map(|text| node(text)).collect();
        let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        let observed = Observed { set: &set, nodes: &nodes, pods: &pods, hash: "new" };
        let plan = plan(Timestamp::from_secs(100), &observed);
        assert_eq!(plan.create, create);
        let gone: Vec<_> = plan.delete.iter().chain(&plan.failed).map(|pod| pod.metadata.id()).collect();
        assert_eq!(gone, delete);
    }

    #[test]
    fn every_node_that_tolerates_gets_one() {
        check(&["a", "b", "c example.com/t", "d node.kubernetes.io/unschedulable"], &[], &["a", "b", "d"], &[]);
        check(&["a"], &["x a new Running ready", "y a new Running ready"], &[], &["y"]);
        check(&["a"], &["x a new Failed"], &[], &["x"]);
    }

    #[test]
    fn outdated_pods_go_one_at_a_time_and_broken_ones_at_once() {
        let nodes = &["a", "b", "c"];
        check(nodes, &["x a old Running ready", "y b old Running ready", "z c old Running ready"], &[], &["x"]);
        check(nodes, &["x a new Running", "y b old Running ready", "z c old Running ready"], &[], &[]);
        check(nodes, &["x a new Running ready", "y b old Running", "z c old Running ready"], &[], &["y"]);
    }

    #[test]
    fn a_pod_is_pinned_by_its_name_field() {
        let mut spec = PodSpec::default();
        pin(&mut spec, "a");
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        assert_eq!(node_of(&pod), Some("a"));
    }
}
