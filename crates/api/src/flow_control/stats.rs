//! What is counted of the requests of one FlowSchema in one priority level.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::histogram::{FLOW_SECONDS, Histogram, QUEUE_LENGTH, SEATS, WATCHERS};

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are no seats, and the level has no queues.
    ConcurrencyLimit,
    /// There are no seats, and its queue is full.
    QueueFull,
    /// It waited too long.
    TimeOut,
}

impl Refusal {
    pub(crate) const ALL: [Self; 3] = [Self::ConcurrencyLimit, Self::QueueFull, Self::TimeOut];

    /// As the metric's label says it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// Counters of a FlowSchema in a priority level.
pub(crate) struct SchemaStats {
    pub(crate) level: String,
    pub(crate) schema: String,
    pub(crate) rejected: [AtomicU64; Refusal::ALL.len()],
    pub(crate) dispatched: AtomicU64,
    pub(crate) waiting: AtomicI64,
    pub(crate) waiting_seats: AtomicI64,
    pub(crate) executing: AtomicI64,
    pub(crate) executing_seats: AtomicI64,
    pub(crate) unaccommodated: AtomicU64,
    pub(crate) queue_length: Histogram,
    /// How long requests waited that were served, and those that were not.
    pub(crate) waited: [Histogram; 2],
    /// How long requests ran, and how long watches took to begin.
    pub(crate) executed: [Histogram; 2],
    pub(crate) estimated: Histogram,
    pub(crate) watchers: Histogram,
}

impl SchemaStats {
    pub(crate) fn new(level: &str, schema: &str) -> Self {
        Self {
            level: level.to_owned(),
            schema: schema.to_owned(),
            rejected: Default::default(),
            dispatched: AtomicU64::new(0),
            waiting: AtomicI64::new(0),
            waiting_seats: AtomicI64::new(0),
            executing: AtomicI64::new(0),
            executing_seats: AtomicI64::new(0),
            unaccommodated: AtomicU64::new(0),
            queue_length: Histogram::new(&QUEUE_LENGTH),
            waited: std::array::from_fn(|_| Histogram::new(&FLOW_SECONDS)),
            executed: std::array::from_fn(|_| Histogram::new(&FLOW_SECONDS)),
            estimated: Histogram::new(&SEATS),
            watchers: Histogram::new(&WATCHERS),
        }
    }

    pub(super) fn estimated(&self, seats: u32) {
        self.estimated.observe_units(u64::from(seats));
    }

    pub(super) fn watched_by(&self, watchers: u64) {
        self.watchers.observe_units(watchers);
    }

    pub(super) fn queued(&self, seats: u32, length: usize) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.waiting_seats.fetch_add(i64::from(seats), Ordering::Relaxed);
        self.queue_length.observe_units(length as u64);
    }

    pub(super) fn dequeued(&self, seats: u32) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.waiting_seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn waited(&self, time: Duration, was_served: bool) {
        self.waited[usize::from(!was_served)].observe(time);
    }

    pub(super) fn started(&self, seats: u32) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        self.executing_seats.fetch_add(i64::from(seats), Ordering::Relaxed);
    }

    pub(super) fn ended(&self, seats: u32, took: Duration, is_watch: bool) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.executing_seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
        self.executed[usize::from(is_watch)].observe(took);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.rejected[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn not_accommodated(&self) {
        self.unaccommodated.fetch_add(1, Ordering::Relaxed);
    }
}
