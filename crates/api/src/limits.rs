//! How long requests may take and how many may run: what upstream's general flags say.

use std::time::Duration;

/// The settings of all requests. The defaults are kube-apiserver's.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests that are no watch and say nothing get this long (`--request-timeout`).
    pub request_timeout: Duration,
    /// A watch that says nothing ends at random between this and twice this, so that clients do
    /// not come back all at once (`--min-request-timeout`).
    pub watch_timeout_min: Duration,
    /// Reading requests at once; with the next, the seats of priority and fairness
    /// (`--max-requests-inflight`).
    pub inflight_max: usize,
    /// Writing requests at once (`--max-mutating-requests-inflight`).
    pub mutating_inflight_max: usize,
    /// How long Events are kept (`--event-ttl`).
    pub event_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            watch_timeout_min: Duration::from_secs(1_800),
            inflight_max: 400,
            mutating_inflight_max: 200,
            event_ttl: Duration::from_secs(3_600),
        }
    }
}
