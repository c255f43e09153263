//! What the scheduler counts, under kube-scheduler's names.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use skiff_base::metrics::{Counter, Gauge, Histogram, Metric, Metrics};

use crate::queue::Depths;

/// From a millisecond, doubling; upstream's bounds of attempts.
const ATTEMPT_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// From ten milliseconds, doubling; upstream's bounds of the whole way to a node.
const SLI_SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
    1310.72, 2621.44, 5242.88,
];
/// From a tenth of a millisecond, doubling; upstream's bounds of extension points.
const POINT_SECONDS: &[f64] =
    &[0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048];

static ATTEMPTS: Metric =
    Metric::counter("scheduler_schedule_attempts_total", "Attempts to place a pod, by what they came to.");
static ATTEMPT: Metric = Metric::histogram(
    "scheduler_scheduling_attempt_duration_seconds",
    "Time that an attempt took, with the binding where there was one.",
    ATTEMPT_SECONDS,
);
static SLI: Metric = Metric::histogram(
    "scheduler_pod_scheduling_sli_duration_seconds",
    "Time from the first sight of a pod to its binding, by how many attempts it took.",
    SLI_SECONDS,
);
static POD_ATTEMPTS: Metric = Metric::histogram(
    "scheduler_pod_scheduling_attempts",
    "Attempts that it took to place a pod.",
    &[1.0, 2.0, 4.0, 8.0, 16.0],
);
static POINTS: Metric = Metric::histogram(
    "scheduler_framework_extension_point_duration_seconds",
    "Time that the plugins of one extension point took together.",
    POINT_SECONDS,
);
static INCOMING: Metric =
    Metric::counter("scheduler_queue_incoming_pods_total", "Pods that came into a queue, by queue and why.");
static PENDING: Metric = Metric::gauge("scheduler_pending_pods", "Pods without a node, by the queue they wait in.");

/// Attempts above are counted together; upstream's.
const ATTEMPTS_TOLD_MAX: usize = 15;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The pod has its node.
    Scheduled,
    /// There is none for it.
    Unschedulable,
    /// The binding could not be written.
    Error,
}

/// Why a pod came into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// It is new.
    Added,
    /// It changed.
    Updated,
    /// No node was found for it.
    Failed,
}

/// The series.
pub(crate) struct Measures {
    metrics: Metrics,
    attempts: [Arc<Counter>; 3],
    seconds: [Arc<Histogram>; 3],
    incoming: [Arc<Counter>; 3],
    pod_attempts: Arc<Histogram>,
    bind: [Arc<Histogram>; 2],
    /// By attempts; made when there is something to show.
    sli: [OnceLock<Arc<Histogram>>; ATTEMPTS_TOLD_MAX + 1],
}

impl Measures {
    pub(crate) fn new(metrics: &Metrics, profile: &str) -> Self {
        let results = ["scheduled", "unschedulable", "error"];
        let incoming = [("PodAdd", "active"), ("PodUpdate", "active"), ("ScheduleAttemptFailure", "unschedulable")];
        let bind = |status| {
            let labels = [("extension_point", "Bind"), ("profile", profile), ("status", status)];
            metrics.histogram(&POINTS, &labels)
        };
        Self {
            attempts: results.map(|result| metrics.counter(&ATTEMPTS, &[("profile", profile), ("result", result)])),
            seconds: results.map(|result| metrics.histogram(&ATTEMPT, &[("profile", profile), ("result", result)])),
            incoming: incoming.map(|(event, queue)| metrics.counter(&INCOMING, &[("event", event), ("queue", queue)])),
            pod_attempts: metrics.histogram(&POD_ATTEMPTS, &[]),
            bind: [bind("Success"), bind("Error")],
            sli: Default::default(),
            metrics: metrics.clone(),
        }
    }

    /// `depths` tells how many pods wait where, for as long as there is a scheduler.
    pub(crate) fn show_pending(&self, depths: impl Fn() -> Option<Depths> + Send + 'static) {
        let gauges: [Arc<Gauge>; 3] =
            ["active", "backoff", "unschedulable"].map(|queue| self.metrics.gauge(&PENDING, &[("queue", queue)]));
        self.metrics.before_writing(move || {
            let now = depths();
            let Depths { active, backoff, unschedulable } = now.unwrap_or_default();
            for (gauge, value) in gauges.iter().zip([active, backoff, unschedulable]) {
                gauge.set(value as f64);
            }
            now.is_some()
        });
    }

    pub(crate) fn attempt(&self, outcome: Outcome, took: Duration) {
        let at = match outcome {
            Outcome::Scheduled => 0,
            Outcome::Unschedulable => 1,
            Outcome::Error => 2,
        };
        self.attempts[at].increment();
        self.seconds[at].observe(took);
    }

    pub(crate) fn bound(&self, attempts: u32, since_first_seen: Duration) {
        let at = (attempts.max(1) as usize - 1).min(ATTEMPTS_TOLD_MAX);
        let told = || if at == ATTEMPTS_TOLD_MAX { "15+".to_owned() } else { (at + 1).to_string() };
        self.sli[at].get_or_init(|| self.metrics.histogram(&SLI, &[("attempts", &told())])).observe(since_first_seen);
        self.pod_attempts.observe_value(f64::from(attempts));
    }

    pub(crate) fn bind(&self, is_done: bool, took: Duration) {
        self.bind[usize::from(!is_done)].observe(took);
    }

    pub(crate) fn came(&self, why: Incoming) {
        let at = match why {
            Incoming::Added => 0,
            Incoming::Updated => 1,
            Incoming::Failed => 2,
        };
        self.incoming[at].increment();
    }
}
