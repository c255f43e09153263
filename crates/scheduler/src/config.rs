//! What can be chosen about scheduling.

use std::time::Duration;

/// How nodes with room are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scoring {
    /// Prefer what is left empty: spread.
    #[default]
    LeastAllocated,
    /// Prefer what is already full: pack, so that nodes can be freed.
    MostAllocated,
}

/// The scheduler's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods that name this scheduler are its own.
    pub scheduler_name: String,
    /// How nodes with room are compared.
    pub scoring: Scoring,
    /// How long a pod waits after its first failed attempt; doubles with each further one.
    pub backoff_initial: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
    /// A pod that nothing has happened for is tried again after this time.
    pub unschedulable_max: Duration,
}

impl Default for Config {
    /// Upstream's values (`KubeSchedulerConfiguration`).
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".into(),
            scoring: Scoring::default(),
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
            unschedulable_max: Duration::from_secs(300),
        }
    }
}
