//! Taints, tolerations and node selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use super::Meta;

pub(crate) const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(crate) const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
pub(crate) const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
pub(crate) const DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
pub(crate) const PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
pub(crate) const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// Whether `toleration` covers `taint`.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let effect = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key = given(&toleration.key).is_none_or(|key| key == taint.key);
    let number = |text: &str| text.parse::<i64>().ok();
    let (wanted, present) = (toleration.value.as_deref().unwrap_or(""), taint.value.as_deref().unwrap_or(""));
    let value = match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => true,
        "Gt" => matches!((number(present), number(wanted)), (Some(present), Some(wanted)) if present > wanted),
        "Lt" => matches!((number(present), number(wanted)), (Some(present), Some(wanted)) if present < wanted),
        _ => wanted == present,
    };
    effect && key && value
}

pub(crate) fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether every taint of `node` with one of `effects` is tolerated.
pub(crate) fn all_tolerated(node: &Node, tolerations: &[Toleration], effects: &[&str]) -> bool {
    let mut relevant = taints(node).iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    relevant.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the node selector and the required node affinity of `spec` admit `node`.
pub(crate) fn selects_node(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let simple = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    simple && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(term, node)))
}

fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term that asks for nothing admits nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let name = |field: &NodeSelectorRequirement| (field.key == "metadata.name").then(|| node.metadata.id().to_owned());
    expressions.iter().all(|wanted| holds(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| holds(wanted, name(wanted).as_deref()))
}

fn holds(wanted: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |test: fn(i64, i64) -> bool| {
        let (found, bound) = (found.and_then(number), values.first().and_then(|value| number(value)));
        matches!((found, bound), (Some(found), Some(bound)) if test(found, bound))
    };
    match wanted.operator.as_str() {
        "In" => found.is_some_and(|found| values.iter().any(|value| value == found)),
        "NotIn" => found.is_none_or(|found| values.iter().all(|value| value != found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|found, bound| found > bound),
        "Lt" => compare(|found, bound| found < bound),
        _ => false,
    }
}
