//! `nodeSelector` and node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::{Candidate, Plugin, Refusal, stretch};
use crate::config::Config;
use crate::snapshot::NodeInfo;

pub(super) struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if matches_required(candidate.pod, node) {
            Ok(())
        } else {
            Err(Refusal::permanent("node(s) didn't match Pod's node affinity/selector"))
        }
    }

    fn weight(&self, _: &Config) -> i64 {
        2
    }

    fn score(&self, _: &Config, candidate: &Candidate<'_>, node: &NodeInfo) -> i64 {
        let affinity = candidate.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
        affinity
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
            .unwrap_or_default()
            .iter()
            // Unlike a required one, an empty preferred term matches every node.
            .filter(|term| is_empty(&term.preference) || matches_term(&term.preference, node))
            .map(|term| i64::from(term.weight))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        stretch(scores);
    }
}

/// Whether `pod` may run on `node` by its selector and its required affinity.
pub fn matches_required(pod: &Pod, node: &NodeInfo) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
    let required = spec.affinity.as_ref().and_then(|affinity| {
        affinity.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
    });
    selected && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

/// Whether all of a term's requirements hold. A term without any matches nothing.
pub fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let fields = term.match_fields.iter().flatten();
    !is_empty(term)
        && term.match_expressions.iter().flatten().all(|requirement| holds(requirement, node.label(&requirement.key)))
        && fields
            .into_iter()
            .all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(node.name())))
}

fn is_empty(term: &NodeSelectorTerm) -> bool {
    term.match_expressions.iter().flatten().chain(term.match_fields.iter().flatten()).next().is_none()
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|one| one == value));
    let compare = |wanted: fn(&i64, &i64) -> bool| {
        let (Some(value), [bound]) = (value, values) else { return false };
        matches!((value.parse::<i64>(), bound.parse::<i64>()), (Ok(value), Ok(bound)) if wanted(&value, &bound))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::pod;
    use crate::snapshot::tests::node;

    #[test]
    fn terms_are_alternatives_and_requirements_are_conjoined() {
        let mut labelled = (*node("n1", "1")).clone();
        labelled
            .metadata
            .labels
            .get_or_insert_default()
            .extend([("zone".into(), "a".into()), ("cores".into(), "8".into())]);
        let info = NodeInfo::new(std::sync::Arc::new(labelled));
        let check = |terms: serde_json::Value| {
            let spec = serde_json::json!({ "containers": [], "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms }
            } } });
            matches_required(&pod("p", spec), &info)
        };
        let expression = |key: &str, operator: &str, values: &[&str]| serde_json::json!({ "key": key, "operator": operator, "values": values });
        assert!(check(serde_json::json!([{ "matchExpressions": [expression("zone", "In", &["a", "b"])] }])));
        assert!(check(serde_json::json!([{ "matchExpressions": [expression("cores", "Gt", &["4"])] }])));
        assert!(check(serde_json::json!([{ "matchFields": [expression("metadata.name", "In", &["n1"])] }])));
        assert!(check(serde_json::json!([{ "matchExpressions": [expression("other", "NotIn", &["x"])] }])));
        assert!(!check(serde_json::json!([{ "matchExpressions": [
            expression("zone", "In", &["a"]), expression("cores", "Lt", &["8"])
        ] }])));
        assert!(!check(serde_json::json!([{}])));
    }
}
