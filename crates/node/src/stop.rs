//! Stopping: preStop hooks, SIGTERM and SIGKILL in the order sidecars ask for, and removal.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use skiff_runtime::cri;

use crate::check::{Target, hook};
use crate::cri::observe;
use crate::events::Severity;
use crate::node::Node;
use crate::observed::{Observed, Run};
use crate::pod::{PodView, Role};

/// Containers get at least this long, even when a hook has used up the grace period.
const GRACE_SECONDS_MIN: i64 = 2;

/// Why a pod is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// It is deleted.
    Deleted,
    /// All its containers have ended.
    Finished,
    /// It is evicted, refused or too old.
    Failed,
    /// Its sandbox is lost; it will be started again.
    Replaced,
}

/// Stops things of one pod.
pub(crate) struct Stopper<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) pod: &'a Arc<PodView>,
}

impl Stopper<'_> {
    /// Stops all containers and sandboxes, and returns when they have stopped.
    pub(crate) async fn stop(&self, reason: Reason, grace: i64) {
        let began = self.node.clock.now();
        let remaining = || {
            let used = i64::try_from(self.node.clock.now().since(began).as_secs()).unwrap_or(i64::MAX);
            if grace == 0 { 0 } else { (grace - used).max(GRACE_SECONDS_MIN) }
        };
        let mut attempts = 0_u32;
        loop {
            let observed = match observe(&*self.node.runtime, &self.pod.uid).await {
                Ok(observed) => observed,
                Err(error) => {
                    tracing::warn!(pod = %self.pod.name, %error, "the runtime did not tell what to stop");
                    self.node.clock.sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let sidecar = |name: &str| self.pod.container(name).is_some_and(|spec| spec.role == Role::Sidecar);
            let running: Vec<_> =
                observed.containers.iter().filter(|container| container.run == Run::Running).collect();
            let apps = running.iter().filter(|container| !sidecar(&container.name));
            let message = |name: &str| format!("Stopping container {name}");
            let ip = &observed_ip(&observed, self);
            let stops = apps.map(|container| {
                let (text, grace) = (message(&container.name), remaining());
                async move { self.kill_observed(ip, &container.id, &container.name, &text, grace).await }
            });
            let mut failed = join_all(stops).await.iter().any(Result::is_err);
            // Sidecars go last, in the reverse order of their start.
            for spec in self.pod.starters().rev().filter(|spec| spec.role == Role::Sidecar) {
                for container in running.iter().filter(|container| container.name == spec.name()) {
                    let text = message(&container.name);
                    let result = self.kill_observed(ip, &container.id, &container.name, &text, remaining()).await;
                    failed |= result.is_err();
                }
            }
            for sandbox in &observed.sandboxes {
                let request = cri::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
                if sandbox.ready
                    && let Err(status) = self.node.runtime.stop_pod_sandbox(request).await
                {
                    failed = true;
                    if attempts == 0 && reason != Reason::Replaced {
                        let text = format!("error killing pod: failed to stop sandbox: {}", status.message());
                        self.node.events.pod(self.pod, None, Severity::Warning, "FailedKillPod", text);
                    }
                }
            }
            if !failed {
                return;
            }
            attempts += 1;
            self.node.clock.sleep(Duration::from_millis(100 << attempts.min(7))).await;
        }
    }

    /// Stops one container with its preStop hook.
    pub(crate) async fn kill(&self, id: &str, name: &str, message: &str, grace: i64) -> Result<(), tonic::Status> {
        let observed = observe(&*self.node.runtime, &self.pod.uid).await?;
        self.kill_observed(&observed_ip(&observed, self), id, name, message, grace).await
    }

    async fn kill_observed(
        &self,
        ip: &str,
        id: &str,
        name: &str,
        message: &str,
        grace: i64,
    ) -> Result<(), tonic::Status> {
        self.node.events.pod(self.pod, Some(name), Severity::Normal, "Killing", message);
        let began = self.node.clock.now();
        if grace > 0 {
            self.pre_stop(ip, id, name, grace).await;
        }
        let used = i64::try_from(self.node.clock.now().since(began).as_secs()).unwrap_or(i64::MAX);
        let timeout = if grace == 0 { 0 } else { (grace - used).max(GRACE_SECONDS_MIN) };
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        match self.node.runtime.stop_container(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
            Err(status) => Err(status),
        }
    }

    async fn pre_stop(&self, ip: &str, id: &str, name: &str, grace: i64) {
        let Some(spec) = self.pod.container(name) else { return };
        let Some(handler) = spec.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
            return;
        };
        let target = Target {
            pod: Arc::clone(self.pod),
            container_id: id.to_owned(),
            container: spec.container.clone(),
            ip: ip.to_owned(),
        };
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        match tokio::time::timeout(limit, hook(self.node, &target, handler)).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => {
                self.node.events.pod(
                    self.pod,
                    Some(name),
                    Severity::Warning,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {cause}"),
                );
            }
            Err(_) => {
                tracing::debug!(pod = %self.pod.name, container = name, "the preStop hook used up the grace period")
            }
        }
    }

    /// Removes what has stopped, with its logs.
    pub(crate) async fn remove(&self) {
        let observed = match observe(&*self.node.runtime, &self.pod.uid).await {
            Ok(observed) => observed,
            Err(error) => return tracing::warn!(pod = %self.pod.name, %error, "stopped containers not removed"),
        };
        for container in &observed.containers {
            let request = cri::RemoveContainerRequest { container_id: container.id.clone() };
            if let Err(error) = self.node.runtime.remove_container(request).await {
                tracing::warn!(pod = %self.pod.name, container = %container.name, %error, "container not removed");
            }
        }
        for sandbox in &observed.sandboxes {
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            if let Err(error) = self.node.runtime.remove_pod_sandbox(request).await {
                tracing::warn!(pod = %self.pod.name, %error, "sandbox not removed");
            }
        }
        let logs = self.node.config.pod_log_dir(&self.pod.namespace, &self.pod.name, &self.pod.uid);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %logs.display(), %error, "logs not removed");
        }
    }
}

fn observed_ip(observed: &Observed, stopper: &Stopper<'_>) -> String {
    crate::container::pod_ips(stopper.pod, observed, &stopper.node.config.host_ips())
        .first()
        .cloned()
        .unwrap_or_default()
}
