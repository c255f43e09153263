//! Histograms whose observations cost one addition each to a bucket and to the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds in a second: the unit of [`SECONDS`] histograms while they count.
const NANOS: f64 = 1e9;

/// Upper bounds, in the unit that is shown, and how many counted units make one shown.
pub struct Scale {
    bounds: &'static [f64],
    per_unit: f64,
}

/// Requests and the store, in seconds; upstream's bounds.
pub static SECONDS: Scale = Scale {
    bounds: &[
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
        30.0, 45.0, 60.0,
    ],
    per_unit: NANOS,
};
/// Admission plugins, in seconds; upstream's bounds.
pub static ADMISSION_SECONDS: Scale = Scale { bounds: &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5], per_unit: NANOS };
/// Admission webhooks, in seconds; upstream's bounds.
pub static WEBHOOK_SECONDS: Scale = Scale { bounds: &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0], per_unit: NANOS };
/// Answers, in bytes; upstream's bounds.
pub static RESPONSE_BYTES: Scale = Scale { bounds: &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9], per_unit: 1.0 };
/// Watch events, in bytes; upstream's bounds.
pub static EVENT_BYTES: Scale =
    Scale { bounds: &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0], per_unit: 1.0 };

/// Times of flow control, in seconds; upstream's bounds.
pub static FLOW_SECONDS: Scale =
    Scale { bounds: &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0], per_unit: NANOS };
/// Requests in a queue; upstream's bounds.
pub static QUEUE_LENGTH: Scale = Scale { bounds: &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0], per_unit: 1.0 };
/// Seats of a request; upstream's bounds.
pub static SEATS: Scale = Scale { bounds: &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0], per_unit: 1.0 };
/// Watchers of a resource; upstream's bounds.
pub static WATCHERS: Scale = Scale { bounds: &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0], per_unit: 1.0 };

/// A histogram.
pub struct Histogram {
    scale: &'static Scale,
    /// One for each bound and one for what is above all of them; not cumulative.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing observed.
    pub fn new(scale: &'static Scale) -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(scale.bounds.len() + 1).collect();
        Self { scale, buckets, sum: AtomicU64::new(0) }
    }

    /// Observes a duration.
    pub fn observe(&self, took: Duration) {
        self.observe_units(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Observes a number of counted units: nanoseconds or bytes.
    pub fn observe_units(&self, units: u64) {
        let shown = units as f64 / self.scale.per_unit;
        let at = self.scale.bounds.iter().position(|bound| shown <= *bound).unwrap_or(self.scale.bounds.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(units, Ordering::Relaxed);
    }

    /// The bounds, each with how many observations were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut total = 0;
        self.scale.bounds.iter().copied().chain([f64::INFINITY]).zip(&self.buckets).map(move |(bound, bucket)| {
            total += bucket.load(Ordering::Relaxed);
            (bound, total)
        })
    }

    /// How many observations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all observations, in the unit that is shown.
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.scale.per_unit
    }
}
