//! What work queues show of themselves, under client-go's names.

use std::sync::Arc;
use std::time::Duration;

use skiff_base::metrics::{Counter, Histogram, Metric, Metrics, Series};

/// From ten nanoseconds to a thousand seconds; client-go's bounds.
const SECONDS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

static DEPTH: Metric = Metric::gauge("workqueue_depth", "Keys that wait in a queue.");
static ADDS: Metric = Metric::counter("workqueue_adds_total", "Keys that came into a queue.");
static WAITED: Metric =
    Metric::histogram("workqueue_queue_duration_seconds", "Time that a key waited in a queue.", SECONDS);
static WORKED: Metric = Metric::histogram("workqueue_work_duration_seconds", "Time that work on a key took.", SECONDS);
static UNFINISHED: Metric = Metric::gauge(
    "workqueue_unfinished_work_seconds",
    "Time that the keys being worked on have taken until now, together.",
);
static LONGEST: Metric = Metric::gauge(
    "workqueue_longest_running_processor_seconds",
    "Time that the key worked on for longest has taken until now.",
);
static RETRIES: Metric = Metric::counter("workqueue_retries_total", "Keys that were to come again later.");

/// Upstream's names of the queues of controllers.
const NAMES: [(&str, &str); 28] = [
    ("bootstrap-signer", "bootstrap_signer_queue"),
    ("certificate-controller", "certificate"),
    ("clusterrole-aggregation-controller", "ClusterRoleAggregator"),
    ("cronjob-controller", "cronjob"),
    ("daemon-set-controller", "daemonset"),
    ("deployment-controller", "deployment"),
    ("disruption-controller", "disruption"),
    ("endpoint-controller", "endpoint"),
    ("endpointslice-controller", "endpoint_slice"),
    ("generic-garbage-collector", "garbage_collector_attempt_to_delete"),
    ("job-controller", "job"),
    ("namespace-controller", "namespace"),
    ("node-controller", "node_lifecycle_controller"),
    ("pod-garbage-collector", "orphaned_pods_nodes"),
    ("pv-protection-controller", "pvprotection"),
    ("pvc-protection-controller", "pvcprotection"),
    ("replicaset-controller", "replicaset"),
    ("replication-controller", "replicationmanager"),
    ("resourcequota-controller", "resourcequota_primary"),
    ("root-ca-cert-publisher", "root_ca_cert_publisher"),
    ("service-account-controller", "serviceaccount"),
    ("service-cidrs-controller", "servicecidrs"),
    ("statefulset-controller", "statefulset"),
    ("taint-eviction", "noexec_taint_pod"),
    ("token-cleaner", "token_cleaner"),
    ("tokens-controller", "serviceaccount_tokens_secret"),
    ("ttl-after-finished-controller", "ttl_jobs_to_delete"),
    ("volumeattributesclass-protection-controller", "volumeattributesclass_protection"),
];

/// What a queue counts from its beginning, shown or not.
pub(crate) struct Counts {
    pub(crate) adds: Arc<Counter>,
    pub(crate) retries: Arc<Counter>,
    pub(crate) waited: Arc<Histogram>,
    pub(crate) worked: Arc<Histogram>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            adds: Arc::default(),
            retries: Arc::default(),
            waited: Arc::new(Histogram::new(&WAITED)),
            worked: Arc::new(Histogram::new(&WORKED)),
        }
    }
}

/// How a queue stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) depth: usize,
    pub(crate) unfinished: Duration,
    pub(crate) longest: Duration,
}

impl Counts {
    /// Shows the counts as those of the queue of `controller`; `standing` tells how the queue stands for as long as
    /// there is one.
    pub(crate) fn show(
        &self,
        metrics: &Metrics,
        controller: &str,
        standing: impl Fn() -> Option<Standing> + Send + 'static,
    ) {
        let name = NAMES.iter().find(|(known, _)| *known == controller).map_or(controller, |(_, name)| *name);
        let labels = [("name", name)];
        metrics.show(&ADDS, &labels, Series::Counter(Arc::clone(&self.adds)));
        metrics.show(&RETRIES, &labels, Series::Counter(Arc::clone(&self.retries)));
        metrics.show(&WAITED, &labels, Series::Histogram(Arc::clone(&self.waited)));
        metrics.show(&WORKED, &labels, Series::Histogram(Arc::clone(&self.worked)));
        let gauges = [&DEPTH, &UNFINISHED, &LONGEST].map(|metric| metrics.gauge(metric, &labels));
        metrics.before_writing(move || {
            let now = standing();
            let Standing { depth, unfinished, longest } = now.unwrap_or_default();
            for (gauge, value) in gauges.iter().zip([depth as f64, unfinished.as_secs_f64(), longest.as_secs_f64()]) {
                gauge.set(value);
            }
            now.is_some()
        });
    }
}
