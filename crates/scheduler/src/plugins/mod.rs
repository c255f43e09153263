//! The rules by which a node is possible for a pod, and by which possible nodes are compared.

use k8s_openapi::api::core::v1::Pod;

use crate::config::Config;
use crate::resources::Resources;
use crate::snapshot::{HostPort, NodeInfo};

macro_rules! plugins {
    ($($module:ident :: $plugin:ident),* $(,)?) => {
        $(mod $module;)*

        /// All plugins. Filters run in this order, and the first that says no gives the reason.
        pub const PLUGINS: &[&dyn Plugin] = &[$(&$module::$plugin),*];
    };
}

plugins! {
    node_unschedulable::NodeUnschedulable,
    node_name::NodeName,
    taint_toleration::TaintToleration,
    node_affinity::NodeAffinity,
    node_ports::NodePorts,
    node_resources_fit::NodeResourcesFit,
    node_resources_balanced::NodeResourcesBalanced,
    image_locality::ImageLocality,
}

pub use node_affinity::{matches_required, matches_term};

/// The best score a plugin gives.
pub const SCORE_MAX: i64 = 100;

/// A pod to be placed, with what every plugin would otherwise compute anew for each node.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it needs.
    pub requests: Resources,
    /// The same, as scores count it.
    pub requests_for_scoring: Resources,
    /// The ports it takes on its node.
    pub host_ports: Vec<HostPort>,
    /// How many nodes the cluster has.
    pub node_count: usize,
}

/// Why a node is not possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reasons in upstream's words; each is counted over the nodes in the pod's condition.
    pub reasons: Vec<String>,
    /// Whether other pods going away could change it. Preemption asks for this.
    pub resolvable: bool,
}

impl Refusal {
    /// A reason that pods going away could lift.
    pub fn resolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }

    /// A reason that lies in the node or the pod itself.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }
}

/// One rule.
pub trait Plugin: Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the pod can run on the node.
    ///
    /// # Errors
    /// Why it cannot.
    fn filter(&self, _candidate: &Candidate<'_>, _node: &NodeInfo) -> Result<(), Refusal> {
        Ok(())
    }

    /// How much the plugin's score counts; 0 when it does not score.
    fn weight(&self, _config: &Config) -> i64 {
        0
    }

    /// How good the node is; any scale, [`Plugin::normalize`] brings it to `0..=SCORE_MAX`.
    fn score(&self, _config: &Config, _candidate: &Candidate<'_>, _node: &NodeInfo) -> i64 {
        0
    }

    /// Brings the scores of all possible nodes to `0..=SCORE_MAX`.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Stretches scores so that the largest becomes [`SCORE_MAX`].
fn stretch(scores: &mut [i64]) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    if largest > 0 {
        for score in scores {
            *score = *score * SCORE_MAX / largest;
        }
    }
}

/// As [`stretch`], turned around: nothing becomes the best score.
fn stretch_reversed(scores: &mut [i64]) {
    stretch(scores);
    for score in scores {
        *score = SCORE_MAX - *score;
    }
}
