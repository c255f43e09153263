//! Where the time of a slow request went, as annotations of its audit event.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use skiff_object::time::format_duration;

/// Requests that take no longer say nothing; upstream's.
const SLOW: Duration = Duration::from_millis(500);
const TOTAL: &str = "apiserver.latency.k8s.io/total";
const KEYS: [&str; 6] = [
    "apiserver.latency.k8s.io/authentication",
    "apiserver.latency.k8s.io/impersonation",
    "apiserver.latency.k8s.io/apf-queue-wait",
    "apiserver.latency.k8s.io/authorization",
    "apiserver.latency.k8s.io/mutating-webhook",
    "apiserver.latency.k8s.io/validating-webhook",
];

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Who sends it.
    Authentication,
    /// Whether it may count as somebody else's.
    Impersonation,
    /// Its turn.
    Queue,
    /// Whether it is allowed.
    Authorization,
    /// Mutating webhooks, one after the other.
    MutatingWebhooks,
    /// Validating webhooks, all at once: the longest counts.
    ValidatingWebhooks,
}

/// Nanoseconds that one request spent in each layer.
#[derive(Default)]
pub(crate) struct Latencies([AtomicU64; KEYS.len()]);

impl Latencies {
    /// Counts time spent in a layer.
    pub(crate) fn spent(&self, layer: Layer, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let slot = &self.0[layer as usize];
        match layer {
            Layer::ValidatingWebhooks => slot.fetch_max(nanos, Ordering::Relaxed),
            _ => slot.fetch_add(nanos, Ordering::Relaxed),
        };
    }

    /// What is to be told of a request that took so long altogether.
    pub(crate) fn annotations(&self, total: Duration) -> Vec<(&'static str, String)> {
        if total <= SLOW {
            return Vec::new();
        }
        let shown = |nanos: u64| format_duration(i64::try_from(nanos).unwrap_or(i64::MAX));
        let spent = KEYS.iter().zip(&self.0).map(|(key, slot)| (*key, slot.load(Ordering::Relaxed)));
        let mut told: Vec<_> = spent.filter(|(_, nanos)| *nanos > 0).map(|(key, nanos)| (key, shown(nanos))).collect();
        if !told.is_empty() {
            told.push((TOTAL, shown(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX))));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_requests_tell_where_their_time_went() {
        let latencies = Latencies::default();
        let millis = Duration::from_millis;
        for (layer, took) in [
            (Layer::MutatingWebhooks, 200),
            (Layer::MutatingWebhooks, 150),
            (Layer::ValidatingWebhooks, 100),
            (Layer::ValidatingWebhooks, 90),
        ] {
            latencies.spent(layer, millis(took));
        }
        assert_eq!(latencies.annotations(millis(500)), []);
        let told: Vec<String> =
            latencies.annotations(millis(501)).into_iter().map(|(key, text)| format!("{key}={text}")).collect();
        assert_eq!(
            told,
            [
                "apiserver.latency.k8s.io/mutating-webhook=350ms",
                "apiserver.latency.k8s.io/validating-webhook=100ms",
                "apiserver.latency.k8s.io/total=501ms"
            ]
        );
    }
}
