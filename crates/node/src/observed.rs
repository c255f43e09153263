//! What the runtime has for a pod, and what the kubelet remembers about it. Plain values: the
//! planner and the status computation read them, neither knows CRI.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skiff_base::Timestamp;

/// The runtime's side of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    /// Newest attempt first.
    pub(crate) sandboxes: Vec<SandboxView>,
    /// By name, newest attempt first within a name.
    pub(crate) containers: Vec<ContainerView>,
}

/// One sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SandboxView {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) ips: Vec<String>,
}

/// The state of a container in the runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Run {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

/// One container, one attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContainerView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) restart_count: i32,
    pub(crate) sandbox_id: String,
    /// The hash of the specification it was made from; empty when it was not ours.
    pub(crate) hash: String,
    pub(crate) run: Run,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) log_path: String,
    pub(crate) user: Option<(i64, i64, Vec<i64>)>,
}

impl Observed {
    /// The sandbox containers are started in.
    pub(crate) fn ready_sandbox(&self) -> Option<&SandboxView> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest attempt of the container `name`.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The attempt before the newest of the container `name`.
    pub(crate) fn previous(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().filter(|container| container.name == name).nth(1)
    }

    pub(crate) fn any_running(&self) -> bool {
        self.containers.iter().any(|container| container.run == Run::Running)
    }
}

/// Why a container waits, as its status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Waiting {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Waiting {
    pub(crate) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// A failed attempt holds the next one back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    pub(crate) until: Timestamp,
    /// When the shown reason changes from `error` to `back_off`.
    pub(crate) switch_at: Timestamp,
    pub(crate) error: Waiting,
    pub(crate) back_off: Waiting,
}

impl Delay {
    pub(crate) fn waiting(&self, now: Timestamp) -> &Waiting {
        if now < self.switch_at { &self.error } else { &self.back_off }
    }
}

/// Growing delays: 10 s, 20 s, … 5 min; forgotten after twice the longest without use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackOff {
    pub(crate) delay: Duration,
    pub(crate) updated: Timestamp,
}

/// The first and the longest delay of crash loops and image pulls, as upstream's kubelet.
const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

impl BackOff {
    /// The delay after one more failure at `now`.
    pub(crate) fn next(previous: Option<Self>, now: Timestamp) -> Self {
        let delay = match previous.filter(|previous| !previous.expired(now)) {
            Some(previous) => (previous.delay * 2).min(BACK_OFF_MAX),
            None => BACK_OFF_FIRST,
        };
        Self { delay, updated: now }
    }

    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        now.since(self.updated) > BACK_OFF_MAX * 2
    }
}

/// What the kubelet remembers about one pod between two plans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Local {
    /// Container ids whose startup probe passed (or that have none and whose hook is done).
    pub(crate) started: BTreeSet<String>,
    /// The readiness probe's verdict by container id.
    pub(crate) ready: BTreeMap<String, bool>,
    /// Container ids that a probe or hook condemned, and why.
    pub(crate) condemned: BTreeMap<String, String>,
    /// Container ids whose postStart hook has not ended yet.
    pub(crate) hooks_pending: BTreeSet<String>,
    /// Failed starts by container name.
    pub(crate) delays: BTreeMap<String, Delay>,
    /// Crash loops by container name.
    pub(crate) crashes: BTreeMap<String, BackOff>,
    /// Failed pulls by container name.
    pub(crate) pulls: BTreeMap<String, BackOff>,
    /// A failed sandbox holds the next one back.
    pub(crate) sandbox_delay: Option<Timestamp>,
    /// When this kubelet first saw the pod (or its `status.startTime`).
    pub(crate) start_time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_five_minutes_and_is_forgotten_after_ten() {
        let mut now = Timestamp::from_secs(1_000);
        let mut back_off = BackOff::next(None, now);
        let mut seen = vec![back_off.delay.as_secs()];
        for _ in 0..6 {
            now = now.plus(back_off.delay);
            back_off = BackOff::next(Some(back_off), now);
            seen.push(back_off.delay.as_secs());
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        let later = now.plus(Duration::from_secs(601));
        assert_eq!(BackOff::next(Some(back_off), later).delay.as_secs(), 10);
    }
}
