//! A pod fits when what it asks for is left on the node. Scored by how much is left then: most
//! (spread, the default) or least (bin packing).

use super::{Candidate, Plugin, Refusal, SCORE_MAX};
use crate::config::{Config, Scoring};
use crate::snapshot::NodeInfo;

pub(super) struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let mut refusal = Refusal { reasons: Vec::new(), resolvable: true };
        if node.pods.len() as i64 + 1 > node.allocatable.get("pods") {
            refusal.reasons.push("Too many pods".into());
        }
        for (name, wanted) in candidate.requests.iter().filter(|(_, wanted)| *wanted > 0) {
            let allocatable = node.allocatable.get(name);
            if wanted > allocatable.saturating_sub(node.requested.get(name)) {
                refusal.reasons.push(format!("Insufficient {name}"));
                // More than the whole node has: nobody's going makes room.
                refusal.resolvable &= wanted <= allocatable;
            }
        }
        if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
    }

    fn weight(&self, _: &Config) -> i64 {
        1
    }

    fn score(&self, config: &Config, candidate: &Candidate<'_>, node: &NodeInfo) -> i64 {
        let score = |name: &str| {
            let allocatable = node.allocatable.get(name);
            let requested =
                node.requested_for_scoring.get(name).saturating_add(candidate.requests_for_scoring.get(name));
            if allocatable <= 0 || requested > allocatable {
                return 0;
            }
            let counted = match config.scoring {
                Scoring::LeastAllocated => allocatable - requested,
                Scoring::MostAllocated => requested,
            };
            (i128::from(counted) * i128::from(SCORE_MAX) / i128::from(allocatable)) as i64
        };
        (score("cpu") + score("memory")) / 2
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cycle::candidate;
    use crate::resources::tests::pod;
    use crate::snapshot::Snapshot;
    use crate::snapshot::tests::node;

    fn asks(cpu: &str) -> k8s_openapi::api::core::v1::Pod {
        pod(
            cpu,
            serde_json::json!({ "nodeName": "n1", "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] }),
        )
    }

    #[test]
    fn what_is_left_decides() {
        let mut snapshot = Snapshot::default();
        snapshot.put_node(node("n1", "2"));
        snapshot.put_pod(Arc::new(asks("1500m")));
        let node = snapshot.node("n1").unwrap();
        let check = |cpu: &str| NodeResourcesFit.filter(&candidate(&asks(cpu), 1), node);
        assert_eq!(check("500m"), Ok(()));
        assert_eq!(check("501m"), Err(Refusal::resolvable("Insufficient cpu")));
        assert_eq!(check("3"), Err(Refusal::permanent("Insufficient cpu")));
    }

    #[test]
    fn scoring_spreads_or_packs() {
        let (empty, full) = (NodeInfo::new(node("a", "4")), {
            let mut snapshot = Snapshot::default();
            snapshot.put_node(node("n1", "4"));
            snapshot.put_pod(Arc::new(asks("2")));
            snapshot.node("n1").unwrap().clone()
        });
        let pod = asks("1");
        let score = |scoring, node: &NodeInfo| {
            NodeResourcesFit.score(&Config { scoring, ..Config::default() }, &candidate(&pod, 2), node)
        };
        assert!(score(Scoring::LeastAllocated, &empty) > score(Scoring::LeastAllocated, &full));
        assert!(score(Scoring::MostAllocated, &empty) < score(Scoring::MostAllocated, &full));
    }
}
