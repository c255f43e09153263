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
    /// The chance that a connection of HTTP/2 is told to come again somewhere else, 0 to 0.02
    /// (`--goaway-chance`).
    pub goaway_chance: f64,
    /// Streams at once on one connection of HTTP/2 (`--http2-max-streams-per-connection`).
    pub http2_streams_max: u32,
    /// What `Strict-Transport-Security` says; no header when empty
    /// (`--strict-transport-security-directives`).
    pub strict_transport_security: String,
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
            goaway_chance: 0.0,
            http2_streams_max: 250,
            strict_transport_security: String::new(),
            event_ttl: Duration::from_secs(3_600),
        }
    }
}
