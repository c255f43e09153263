//! Probes: a pure counter of results against thresholds, and one task per probed container.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use parking_lot::Mutex;
use skiff_base::Shutdown;
use tokio::sync::Notify;

use crate::check::{Target, check};
use crate::events::Severity;
use crate::node::Node;
use crate::observed::{Local, Observed, Run};
use crate::pod::{ContainerSpec, PodView, Role};

/// What a probe decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    fn of(self, spec: &ContainerSpec) -> Option<&Probe> {
        match self {
            Self::Startup => spec.container.startup_probe.as_ref(),
            Self::Readiness => spec.container.readiness_probe.as_ref(),
            Self::Liveness => spec.container.liveness_probe.as_ref(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// Counts equal results; a verdict falls when a threshold is reached.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counter {
    last: Option<bool>,
    run: i32,
}

impl Counter {
    /// Takes one result; the verdict when the threshold of its kind is reached.
    pub(crate) fn record(&mut self, success: bool, success_threshold: i32, failure_threshold: i32) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { success_threshold } else { failure_threshold };
        (self.run >= threshold).then_some(success)
    }
}

type Verdicts = Arc<Mutex<BTreeMap<(String, Purpose), Verdict>>>;

#[derive(Clone, Debug)]
struct Verdict {
    holds: bool,
    message: String,
}

/// The probes of one pod.
pub(crate) struct Probes {
    node: Arc<Node>,
    wake: Arc<Notify>,
    verdicts: Verdicts,
    running: BTreeMap<(String, Purpose), Shutdown>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(Shutdown::signal);
    }
}

impl Probes {
    pub(crate) fn new(node: Arc<Node>, wake: Arc<Notify>) -> Self {
        Self { node, wake, verdicts: Verdicts::default(), running: BTreeMap::new() }
    }

    /// Starts and stops probe tasks for what runs, and writes their verdicts into `local`.
    pub(crate) fn sync(&mut self, pod: &Arc<PodView>, observed: &Observed, local: &mut Local) {
        let alive: Vec<&str> = observed
            .containers
            .iter()
            .filter(|container| container.run == Run::Running)
            .map(|container| container.id.as_str())
            .collect();
        self.running.retain(|(id, _), stop| {
            let keep = alive.contains(&id.as_str());
            if !keep {
                stop.signal();
            }
            keep
        });
        self.verdicts.lock().retain(|(id, _), _| alive.contains(&id.as_str()));
        local.started.retain(|id| alive.contains(&id.as_str()));
        local.ready.retain(|id, _| alive.contains(&id.as_str()));
        local.condemned.retain(|id, _| alive.contains(&id.as_str()));
        for spec in pod.containers.iter().filter(|spec| matches!(spec.role, Role::App | Role::Sidecar)) {
            let Some(container) = observed.latest(spec.name()).filter(|container| container.run == Run::Running) else {
                continue;
            };
            if local.hooks_pending.contains(&container.id) {
                continue;
            }
            self.apply(spec, &container.id, local);
            let started = local.started.contains(&container.id);
            for purpose in Purpose::ALL {
                if started == (purpose == Purpose::Startup) {
                    continue;
                }
                let target = Target {
                    pod: Arc::clone(pod),
                    container_id: container.id.clone(),
                    container: spec.container.clone(),
                    ip: crate::container::pod_ips(pod, observed, &self.node.config.host_ips())
                        .first()
                        .cloned()
                        .unwrap_or_default(),
                };
                self.start(spec, purpose, target, container.started_at);
            }
        }
    }

    fn apply(&self, spec: &ContainerSpec, id: &str, local: &mut Local) {
        let verdicts = self.verdicts.lock();
        let of = |purpose| verdicts.get(&(id.to_owned(), purpose)).cloned();
        if spec.container.startup_probe.is_none() || of(Purpose::Startup).is_some_and(|verdict| verdict.holds) {
            local.started.insert(id.to_owned());
        }
        if let Some(verdict) = of(Purpose::Readiness) {
            local.ready.insert(id.to_owned(), verdict.holds);
        }
        for purpose in [Purpose::Startup, Purpose::Liveness] {
            if let Some(verdict) = of(purpose).filter(|verdict| !verdict.holds) {
                local.condemned.insert(id.to_owned(), verdict.message);
            }
        }
    }

    fn start(&mut self, spec: &ContainerSpec, purpose: Purpose, target: Target, started_at: skiff_base::Timestamp) {
        let key = (target.container_id.clone(), purpose);
        let Some(probe) = purpose.of(spec).cloned() else { return };
        if self.running.contains_key(&key) {
            return;
        }
        let stop = self.node.tasks.shutdown().child();
        self.running.insert(key, stop.clone());
        let task = Task {
            node: Arc::clone(&self.node),
            wake: Arc::clone(&self.wake),
            verdicts: Arc::clone(&self.verdicts),
            purpose,
            probe,
            target,
        };
        self.node.tasks.spawn("probe", async move {
            stop.until(task.run(started_at)).await;
        });
    }
}

struct Task {
    node: Arc<Node>,
    wake: Arc<Notify>,
    verdicts: Verdicts,
    purpose: Purpose,
    probe: Probe,
    target: Target,
}

impl Task {
    async fn run(self, started_at: skiff_base::Timestamp) {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default),
            )
        };
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        let since = self.node.clock.now().since(started_at);
        if since < delay {
            self.node.clock.sleep(delay - since).await;
        }
        let timeout = seconds(self.probe.timeout_seconds, 1);
        let period = seconds(self.probe.period_seconds, 10);
        let success_threshold = self.probe.success_threshold.unwrap_or(1).max(1);
        let failure_threshold = self.probe.failure_threshold.unwrap_or(3).max(1);
        let mut counter = Counter::default();
        loop {
            let result = check(&self.node, &self.target, &self.probe, timeout).await;
            if let Err(cause) = &result {
                let message = format!("{} probe failed: {cause}", self.purpose.name());
                self.node.events.pod(
                    &self.target.pod,
                    Some(&self.target.container.name),
                    Severity::Warning,
                    "Unhealthy",
                    message,
                );
            }
            let verdict = counter.record(result.is_ok(), success_threshold, failure_threshold);
            if let Some(holds) = verdict
                && self.tell(holds)
            {
                return;
            }
            self.node.clock.sleep(period).await;
        }
    }

    /// Records the verdict; true when this probe has nothing more to say.
    fn tell(&self, holds: bool) -> bool {
        let name = &self.target.container.name;
        let message =
            format!("Container {name} failed {} probe, will be restarted", self.purpose.name().to_lowercase());
        let key = (self.target.container_id.clone(), self.purpose);
        let before = self.verdicts.lock().insert(key, Verdict { holds, message });
        if before.is_none_or(|before| before.holds != holds) {
            self.wake.notify_one();
        }
        match self.purpose {
            Purpose::Startup => true,
            Purpose::Liveness => !holds,
            Purpose::Readiness => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_as_many_results_in_a_row_as_the_threshold_says() {
        let mut counter = Counter::default();
        let mut feed = |success| counter.record(success, 2, 3);
        let got: Vec<_> = [false, false, true, true, false, false, false].into_iter().map(&mut feed).collect();
        assert_eq!(got, [None, None, None, Some(true), None, None, Some(false)]);
    }
}
