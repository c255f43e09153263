//! What `kubectl get pods` says about a pod: ready containers, one word of status, restarts.

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;

/// The summary of a pod.
pub(crate) struct Summary {
    /// Ready containers and sidecars.
    pub(crate) ready: usize,
    /// All containers and sidecars.
    pub(crate) total: usize,
    /// The word: `Running`, `Init:0/2`, `CrashLoopBackOff`, …
    pub(crate) status: String,
    /// How often containers were restarted.
    pub(crate) restarts: i64,
    /// When a container last ended before a restart.
    pub(crate) restarted: Option<Time>,
}

fn time(tree: &Tree, path: &[&str]) -> Option<Time> {
    Time::parse(tree.str_at(path)).ok()
}

fn is_set(tree: &Tree, path: &[&str]) -> bool {
    tree.at(path).is_some_and(|tree| !tree.is_null())
}

/// `Signal:9` or `ExitCode:1` for an end without a reason.
fn ended(terminated: &Tree) -> String {
    match (terminated.str_at(&["reason"]), cells::count(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", cells::count(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

impl Summary {
    /// Of a pod.
    pub(crate) fn of(pod: &Tree) -> Self {
        let mut summary = Self {
            ready: 0,
            total: pod.list_at(&["spec", "containers"]).len(),
            status: word(pod),
            restarts: 0,
            restarted: None,
        };
        let sidecar = |name: &str| {
            pod.list_at(&["spec", "initContainers"])
                .iter()
                .any(|one| one.str_at(&["name"]) == name && one.str_at(&["restartPolicy"]) == "Always")
        };
        let inits = pod.list_at(&["spec", "initContainers"]);
        summary.total += inits.iter().filter(|one| one.str_at(&["restartPolicy"]) == "Always").count();
        let (sidecar_restarts, sidecar_restarted, initializing) = summary.init_containers(pod, sidecar);
        if !initializing || cells::has_condition(pod, "Initialized") {
            summary.restarts = sidecar_restarts;
            summary.restarted = sidecar_restarted;
            summary.containers(pod);
        }
        if cells::is_deleting(pod) {
            let phase = pod.str_at(&["status", "phase"]);
            if pod.str_at(&["status", "reason"]) == "NodeLost" {
                summary.status = "Unknown".to_owned();
            } else if phase != "Succeeded" && phase != "Failed" {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    fn init_containers(&mut self, pod: &Tree, sidecar: impl Fn(&str) -> bool) -> (i64, Option<Time>, bool) {
        let (mut restarts, mut restarted) = (0, None);
        let total = pod.list_at(&["spec", "initContainers"]).len();
        for (index, container) in pod.list_at(&["status", "initContainerStatuses"]).iter().enumerate() {
            let is_sidecar = sidecar(container.str_at(&["name"]));
            let (count, last) = self.restart(container);
            if is_sidecar {
                restarts += count;
                restarted = restarted.max(last);
            }
            let terminated = container.at(&["state", "terminated"]).filter(|state| !state.is_null());
            let waiting = container.str_at(&["state", "waiting", "reason"]);
            self.status = match terminated {
                Some(state) if cells::count(state, &["exitCode"]) == 0 => continue,
                _ if is_sidecar && container.bool_at(&["started"]) == Some(true) => {
                    self.ready += usize::from(container.bool_at(&["ready"]) == Some(true));
                    continue;
                }
                Some(state) => format!("Init:{}", ended(state)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{total}"),
            };
            return (restarts, restarted, true);
        }
        (restarts, restarted, false)
    }

    fn restart(&mut self, container: &Tree) -> (i64, Option<Time>) {
        let count = cells::count(container, &["restartCount"]);
        let last = time(container, &["lastState", "terminated", "finishedAt"]);
        self.restarts += count;
        self.restarted = self.restarted.max(last);
        (count, last)
    }

    fn containers(&mut self, pod: &Tree) {
        let mut running = false;
        for container in pod.list_at(&["status", "containerStatuses"]).iter().rev() {
            self.restart(container);
            let waiting = container.str_at(&["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if let Some(state) = container.at(&["state", "terminated"]).filter(|state| !state.is_null()) {
                self.status = ended(state);
            } else if container.bool_at(&["ready"]) == Some(true) && is_set(container, &["state", "running"]) {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && running {
            self.status = if cells::has_condition(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

fn word(pod: &Tree) -> String {
    let gated = pod.list_at(&["status", "conditions"]).iter().any(|condition| {
        condition.str_at(&["type"]) == "PodScheduled" && condition.str_at(&["reason"]) == "SchedulingGated"
    });
    match pod.str_at(&["status", "reason"]) {
        _ if gated => "SchedulingGated".to_owned(),
        "" => pod.str_at(&["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    }
}
