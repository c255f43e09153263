//! A pod that names its node goes there or nowhere.

use super::{Candidate, Plugin, Refusal};
use crate::snapshot::{NodeInfo, node_of};

pub(super) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let wanted = node_of(candidate.pod);
        if !wanted.is_empty() && wanted != node.name() {
            return Err(Refusal::permanent("node(s) didn't match the requested node name"));
        }
        Ok(())
    }
}
