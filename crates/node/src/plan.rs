//! What to do next for a running pod: a pure function of the pod, the runtime's state and what
//! the kubelet remembers. The worker performs the steps, observes again and plans again.

use skiff_base::Timestamp;

use crate::observed::{ContainerView, Local, Observed, Run};
use crate::pod::{ContainerSpec, PodView, RestartPolicy, Role, restarts};

/// One action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the pod's sandbox.
    CreateSandbox { attempt: u32 },
    /// Stop everything that is left of an older sandbox.
    StopSandbox,
    /// Pull, create and start a container.
    Start { name: String, restart_count: i32 },
    /// Stop a running container, telling why.
    Kill { id: String, name: String, message: String },
}

/// Where the pod stands once the steps are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    Continue,
    /// Nothing is left to run: stop the rest and report the final phase.
    Finished,
}

/// The next steps and when to look again even if nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) outcome: Outcome,
}

struct Planner<'a> {
    now: Timestamp,
    pod: &'a PodView,
    observed: &'a Observed,
    local: &'a Local,
    plan: Plan,
}

/// Plans for a pod that is neither deleted nor over.
pub(crate) fn plan(now: Timestamp, pod: &PodView, observed: &Observed, local: &Local) -> Plan {
    let plan = Plan { steps: Vec::new(), wake_at: None, outcome: Outcome::Continue };
    let mut planner = Planner { now, pod, observed, local, plan };
    planner.run();
    planner.plan
}

impl<'a> Planner<'a> {
    fn run(&mut self) {
        if self.observed.ready_sandbox().is_none() {
            return self.without_sandbox();
        }
        let initialized = self.starters();
        if self.plan.outcome == Outcome::Finished {
            return;
        }
        self.ephemeral();
        if initialized {
            self.apps();
        }
    }

    fn without_sandbox(&mut self) {
        if self.nothing_to_run() {
            self.plan.outcome = Outcome::Finished;
            return;
        }
        if !self.observed.sandboxes.is_empty() && self.observed.any_running() {
            self.plan.steps.push(Step::StopSandbox);
            return;
        }
        if let Some(until) = self.local.sandbox_delay.filter(|until| *until > self.now) {
            self.wake(until);
            return;
        }
        let attempt = self.observed.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
        if attempt > 0 {
            self.plan.steps.push(Step::StopSandbox);
        }
        self.plan.steps.push(Step::CreateSandbox { attempt });
    }

    /// Every app container has run and none is to run again, or an init container failed for good.
    fn nothing_to_run(&self) -> bool {
        let over = |spec: &ContainerSpec| {
            self.observed.latest(spec.name()).is_some_and(|container| {
                container.run == Run::Exited && !restarts(self.pod.restart_policy(), spec, container.exit_code)
            })
        };
        let failed_init = self
            .pod
            .of(Role::Init)
            .any(|spec| over(spec) && self.observed.latest(spec.name()).is_some_and(|c| c.exit_code != 0));
        failed_init || (self.pod.of(Role::App).count() > 0 && self.pod.of(Role::App).all(over))
    }

    /// Brings init containers and sidecars forward; true when the app containers may run.
    fn starters(&mut self) -> bool {
        let apps_ran = self.pod.of(Role::App).any(|spec| self.in_sandbox(spec).is_some());
        for spec in self.pod.starters() {
            let current = self.in_sandbox(spec);
            match (spec.role, current.map(|container| container.run)) {
                (Role::Init, _) if apps_ran => {}
                (Role::Init, Some(Run::Exited)) => {
                    let exit_code = current.map_or(0, |container| container.exit_code);
                    if exit_code == 0 {
                        continue;
                    }
                    if !restarts(self.pod.restart_policy(), spec, exit_code) {
                        self.plan.outcome = Outcome::Finished;
                        return false;
                    }
                    self.start(spec);
                    return false;
                }
                (Role::Init, Some(Run::Running)) => return false,
                (Role::Sidecar, Some(Run::Running)) => {
                    let condemned = current.is_some_and(|container| self.condemn(container));
                    let started = current.is_some_and(|container| self.local.started.contains(&container.id));
                    if (condemned || !started) && !apps_ran {
                        return false;
                    }
                }
                (Role::Sidecar, _) => {
                    if self.apps_over() {
                        continue;
                    }
                    self.start(spec);
                    if !apps_ran {
                        return false;
                    }
                }
                _ => {
                    self.start(spec);
                    return false;
                }
            }
        }
        true
    }

    fn apps(&mut self) {
        if self.apps_over() {
            self.plan.outcome = Outcome::Finished;
            return;
        }
        for spec in self.pod.of(Role::App) {
            match self.in_sandbox(spec) {
                Some(container) if container.run == Run::Running => {
                    let changed = !container.hash.is_empty() && container.hash != spec.hash;
                    if changed {
                        let message = format!("Container {} definition changed, will be restarted", spec.name());
                        self.kill(container, message);
                    } else {
                        self.condemn(container);
                    }
                }
                Some(container) if container.run == Run::Exited => {
                    if restarts(self.pod.restart_policy(), spec, container.exit_code) {
                        self.start(spec);
                    }
                }
                Some(container) if container.run == Run::Unknown => {
                    let message =
                        format!("Container {} is in unknown state, try killing it before restart", spec.name());
                    self.kill(container, message);
                }
                _ => self.start(spec),
            }
        }
    }

    fn apps_over(&self) -> bool {
        self.pod.of(Role::App).all(|spec| {
            self.in_sandbox(spec).or_else(|| self.observed.latest(spec.name())).is_some_and(|container| {
                container.run == Run::Exited && !restarts(self.pod.restart_policy(), spec, container.exit_code)
            })
        })
    }

    fn ephemeral(&mut self) {
        for spec in self.pod.of(Role::Ephemeral) {
            if self.observed.latest(spec.name()).is_none() {
                self.start(spec);
            }
        }
    }

    /// The newest attempt, unless it belongs to an older sandbox and would run again in this one.
    fn in_sandbox(&self, spec: &ContainerSpec) -> Option<&'a ContainerView> {
        let container = self.observed.latest(spec.name())?;
        let current = self.observed.ready_sandbox().is_some_and(|sandbox| sandbox.id == container.sandbox_id);
        let over = container.run == Run::Exited && !restarts(self.pod.restart_policy(), spec, container.exit_code);
        let keeps = over && (spec.role == Role::App || self.pod.restart_policy() == RestartPolicy::Never);
        (current || keeps).then_some(container)
    }

    fn condemn(&mut self, container: &ContainerView) -> bool {
        let Some(message) = self.local.condemned.get(&container.id) else { return false };
        self.kill(container, message.clone());
        true
    }

    fn kill(&mut self, container: &ContainerView, message: String) {
        self.plan.steps.push(Step::Kill { id: container.id.clone(), name: container.name.clone(), message });
    }

    fn start(&mut self, spec: &ContainerSpec) {
        let now = self.now;
        if let Some(delay) = self.local.delays.get(spec.name())
            && delay.until > now
        {
            self.wake(if now < delay.switch_at { delay.switch_at } else { delay.until });
            return;
        }
        let latest = self.observed.latest(spec.name());
        if let Some(until) = crash_back_off_until(now, latest, self.local, spec.name()) {
            self.wake(until);
            return;
        }
        let restart_count = latest.map_or(0, |container| container.restart_count + 1);
        self.plan.steps.push(Step::Start { name: spec.name().to_owned(), restart_count });
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// When a crash loop lets the container start again; `None` when it may start now.
pub(crate) fn crash_back_off_until(
    now: Timestamp,
    latest: Option<&ContainerView>,
    local: &Local,
    name: &str,
) -> Option<Timestamp> {
    let exited = latest.filter(|container| container.run == Run::Exited)?;
    let back_off = local.crashes.get(name)?;
    if exited.finished_at.since(back_off.updated) > std::time::Duration::from_secs(600) {
        return None;
    }
    let until = exited.finished_at.plus(back_off.delay);
    (until > now).then_some(until)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::observed::{BackOff, SandboxView};

    fn pod(spec: &str) -> Arc<PodView> {
        let text = format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u"}},"spec":{spec}}}"#);
        let pod: Pod = serde_json::from_str(&text).unwrap();
        PodView::new(Arc::new(pod)).unwrap()
    }

    fn ready() -> Observed {
        Observed {
            sandboxes: vec![SandboxView { id: "s".into(), ready: true, ..SandboxView::default() }],
            containers: Vec::new(),
        }
    }

    fn with(mut observed: Observed, name: &str, run: Run, exit_code: i32) -> Observed {
        observed.containers.push(ContainerView {
            id: format!("{name}-id"),
            name: name.into(),
            sandbox_id: "s".into(),
            run,
            exit_code,
            finished_at: Timestamp::from_secs(100),
            ..ContainerView::default()
        });
        observed
    }

    fn check(spec: &str, observed: &Observed, local: &Local, want: &str) {
        let plan = plan(Timestamp::from_secs(100), &pod(spec), observed, local);
        let steps: Vec<String> = plan
            .steps
            .iter()
            .map(|step| match step {
                Step::CreateSandbox { attempt } => format!("sandbox {attempt}"),
                Step::StopSandbox => "stop sandbox".into(),
                Step::Start { name, restart_count } => format!("start {name} {restart_count}"),
                Step::Kill { name, .. } => format!("kill {name}"),
            })
            .collect();
        let wake = plan.wake_at.map(|at| format!(" wake {}", at.as_secs())).unwrap_or_default();
        let outcome = if plan.outcome == Outcome::Finished { " finished" } else { "" };
        assert_eq!(format!("{}{wake}{outcome}", steps.join(", ")), want);
    }

    const ONE: &str = r#"{"containers":[{"name":"a","image":"i"}]}"#;
    const INIT: &str = r#"{"initContainers":[{"name":"i","image":"i"},{"name":"s","image":"i","restartPolicy":"Always"}],"containers":[{"name":"a","image":"i"}]}"#;
    const NEVER: &str = r#"{"restartPolicy":"Never","containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}]}"#;

    #[test]
    fn a_new_pod_gets_a_sandbox_then_its_containers() {
        check(ONE, &Observed::default(), &Local::default(), "sandbox 0");
        check(ONE, &ready(), &Local::default(), "start a 0");
        check(ONE, &with(ready(), "a", Run::Running, 0), &Local::default(), "");
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_sidecars_must_have_started() {
        check(INIT, &ready(), &Local::default(), "start i 0");
        check(INIT, &with(ready(), "i", Run::Running, 0), &Local::default(), "");
        let done = with(ready(), "i", Run::Exited, 0);
        check(INIT, &done, &Local::default(), "start s 0");
        let sidecar = with(done, "s", Run::Running, 0);
        check(INIT, &sidecar, &Local::default(), "");
        let local = Local { started: ["s-id".to_owned()].into(), ..Local::default() };
        check(INIT, &sidecar, &local, "start a 0");
    }

    #[test]
    fn a_crashed_container_restarts_at_once_and_then_backs_off() {
        let crashed = with(ready(), "a", Run::Exited, 1);
        check(ONE, &crashed, &Local::default(), "start a 1");
        let back_off = BackOff { delay: Duration::from_secs(10), updated: Timestamp::from_secs(95) };
        let local = Local { crashes: [("a".to_owned(), back_off)].into(), ..Local::default() };
        check(ONE, &crashed, &local, " wake 110");
    }

    #[test]
    fn a_pod_that_never_restarts_ends_when_all_have() {
        let one = with(with(ready(), "a", Run::Exited, 1), "b", Run::Running, 0);
        check(NEVER, &one, &Local::default(), "");
        let both = with(with(ready(), "a", Run::Exited, 1), "b", Run::Exited, 0);
        check(NEVER, &both, &Local::default(), " finished");
    }

    #[test]
    fn condemned_containers_are_killed_and_lost_sandboxes_replaced() {
        let local = Local { condemned: [("a-id".to_owned(), "failed".to_owned())].into(), ..Local::default() };
        check(ONE, &with(ready(), "a", Run::Running, 0), &local, "kill a");
        let mut lost = with(ready(), "a", Run::Exited, 137);
        lost.sandboxes[0].ready = false;
        check(ONE, &lost, &Local::default(), "stop sandbox, sandbox 1");
    }

    #[test]
    fn a_failed_init_container_ends_a_pod_that_never_restarts() {
        let spec = r#"{"restartPolicy":"Never","initContainers":[{"name":"i","image":"i"}],"containers":[{"name":"a","image":"i"}]}"#;
        check(spec, &with(ready(), "i", Run::Exited, 3), &Local::default(), " finished");
    }
}
