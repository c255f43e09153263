//! Cordoned nodes take no new pods, unless the pod tolerates the taint that cordoning stands for.

use super::{Candidate, Plugin, Refusal, taint_toleration};
use crate::snapshot::NodeInfo;

pub(super) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let cordoned = node.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if cordoned && !taint_toleration::tolerates_cordon(candidate.pod) {
            return Err(Refusal::permanent("node(s) were unschedulable"));
        }
        Ok(())
    }
}
