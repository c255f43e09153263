//! Prefers nodes on which processor and memory are used alike.

use super::{Candidate, Plugin, SCORE_MAX};
use crate::config::{Config, Scoring};
use crate::snapshot::NodeInfo;

pub(super) struct NodeResourcesBalanced;

impl Plugin for NodeResourcesBalanced {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    /// Packing and balancing pull apart: who packs does not balance.
    fn weight(&self, config: &Config) -> i64 {
        i64::from(config.scoring == Scoring::LeastAllocated)
    }

    fn score(&self, _: &Config, candidate: &Candidate<'_>, node: &NodeInfo) -> i64 {
        let fraction = |name: &str| {
            let allocatable = node.allocatable.get(name);
            let requested = node.requested.get(name).saturating_add(candidate.requests.get(name));
            (allocatable > 0).then(|| (requested as f64 / allocatable as f64).min(1.0))
        };
        // With two resources, the standard deviation is half the difference.
        match (fraction("cpu"), fraction("memory")) {
            (Some(cpu), Some(memory)) => ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64,
            _ => SCORE_MAX,
        }
    }
}
