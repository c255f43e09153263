//! One decision: which node a pod goes to, or why to none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use skiff_base::Random;

use crate::config::Config;
use crate::plugins::{Candidate, PLUGINS, Refusal};
use crate::resources::{requests, requests_for_scoring};
use crate::snapshot::{NodeInfo, Snapshot, host_ports};

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pod goes to this node.
    Node(String),
    /// No node is possible; the text is what the pod's condition says.
    Unschedulable(String),
}

/// Decides for `pod`. Among equally good nodes, `random` chooses.
pub fn decide(config: &Config, snapshot: &Snapshot, pod: &Pod, random: &Random) -> Decision {
    let total = snapshot.nodes().len();
    if total == 0 {
        return Decision::Unschedulable("no nodes available to schedule pods".into());
    }
    let candidate = candidate(pod, total);
    let mut possible = Vec::new();
    let mut refusals = Vec::new();
    for node in snapshot.nodes() {
        match PLUGINS.iter().try_for_each(|plugin| plugin.filter(&candidate, node)) {
            Ok(()) => possible.push(node),
            Err(refusal) => refusals.push(refusal),
        }
    }
    match best(config, &candidate, &possible, random) {
        Some(node) => Decision::Node(node.name().to_owned()),
        None => Decision::Unschedulable(explain(total, &refusals)),
    }
}

/// The pod with what every plugin needs of it.
pub(crate) fn candidate(pod: &Pod, node_count: usize) -> Candidate<'_> {
    Candidate {
        pod,
        requests: requests(pod),
        requests_for_scoring: requests_for_scoring(pod),
        host_ports: host_ports(pod),
        node_count,
    }
}

fn best<'a>(
    config: &Config,
    candidate: &Candidate<'_>,
    nodes: &[&'a NodeInfo],
    random: &Random,
) -> Option<&'a NodeInfo> {
    if nodes.len() <= 1 {
        return nodes.first().copied();
    }
    let mut totals = vec![0; nodes.len()];
    for plugin in PLUGINS {
        let weight = plugin.weight(config);
        if weight == 0 {
            continue;
        }
        let mut scores: Vec<i64> = nodes.iter().map(|node| plugin.score(config, candidate, node)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    let top = totals.iter().copied().max()?;
    let equals: Vec<_> = nodes.iter().zip(&totals).filter(|(_, total)| **total == top).map(|(node, _)| *node).collect();
    Some(equals[random.below(equals.len() as u64) as usize])
}

/// `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.`, the reasons
/// sorted as upstream sorts them.
fn explain(total: usize, refusals: &[Refusal]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in refusals.iter().flat_map(|refusal| &refusal.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{total} nodes are available: {}.", reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resources::tests::pod;
    use crate::snapshot::tests::node;

    #[test]
    fn no_possible_node_is_explained_in_upstreams_words() {
        let mut snapshot = Snapshot::default();
        let pod = pod(
            "p",
            serde_json::json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "3" } } }] }),
        );
        let decide = |snapshot: &Snapshot| decide(&Config::default(), snapshot, &pod, &Random::seeded(1));
        assert_eq!(decide(&snapshot), Decision::Unschedulable("no nodes available to schedule pods".into()));
        snapshot.put_node(node("n1", "1"));
        snapshot.put_node(node("n2", "1"));
        let mut cordoned = (*node("n3", "4")).clone();
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        snapshot.put_node(Arc::new(cordoned));
        assert_eq!(
            decide(&snapshot),
            Decision::Unschedulable(
                "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.".into()
            )
        );
        snapshot.put_node(node("n4", "4"));
        assert_eq!(decide(&snapshot), Decision::Node("n4".into()));
    }

    #[test]
    fn pods_spread_over_equal_nodes() {
        let mut snapshot = Snapshot::default();
        for name in ["n1", "n2", "n3"] {
            snapshot.put_node(node(name, "4"));
        }
        let random = Random::seeded(1);
        for index in 0..9 {
            let spec =
                serde_json::json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }] });
            let mut pod = pod(&format!("p{index}"), spec);
            let Decision::Node(name) = decide(&Config::default(), &snapshot, &pod, &random) else { panic!("no node") };
            pod.spec.get_or_insert_default().node_name = Some(name);
            snapshot.put_pod(Arc::new(pod));
        }
        assert!(snapshot.nodes().all(|node| node.pods.len() == 3));
    }
}
