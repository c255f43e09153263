//! Starting: the sandbox, and one container with its image, configuration and postStart hook.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::node::v1::RuntimeClass;
use skiff_runtime::cri;

use crate::check::{Target, hook};
use crate::container::{Inputs, config, pod_ips};
use crate::events::Severity;
use crate::images::{Wanted, ensure};
use crate::node::Node;
use crate::observed::{Observed, Waiting};
use crate::pod::{ContainerSpec, PodView};
use crate::sandbox::{self, Resolver};
use crate::stop::Stopper;
use crate::volumes::Volumes;

/// Starts things of one pod.
pub(crate) struct Starter<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) pod: &'a Arc<PodView>,
}

impl Starter<'_> {
    /// Makes the pod's sandbox.
    pub(crate) async fn sandbox(&self, attempt: u32) -> Result<(), String> {
        let config = self.sandbox_config(attempt);
        let directory =
            |path: &Path| std::fs::create_dir_all(path).map_err(|error| format!("make {}: {error}", path.display()));
        directory(Path::new(&config.log_directory))?;
        directory(&self.node.config.pod_dir(&self.pod.uid))?;
        let runtime_handler = self.handler().await?;
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler };
        let answer = self.node.runtime.run_pod_sandbox(request).await;
        answer.map(drop).map_err(|status| format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
    }

    fn sandbox_config(&self, attempt: u32) -> cri::PodSandboxConfig {
        let host = std::fs::read_to_string(&self.node.config.resolv_conf).unwrap_or_default();
        sandbox::config(self.pod, &self.node.config, &Resolver::parse(&host), attempt)
    }

    async fn handler(&self) -> Result<String, String> {
        let Some(class) = self.pod.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        match self.node.client.find::<RuntimeClass>("", class).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("failed to get sandbox runtime: RuntimeClass \"{class}\" not found")),
            Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
        }
    }

    /// Pulls, creates and starts a container; gives its id.
    pub(crate) async fn container(
        &self,
        spec: &ContainerSpec,
        observed: &Observed,
        volumes: &Volumes,
        restart_count: i32,
    ) -> Result<String, Waiting> {
        let node = self.node;
        let name = spec.name();
        let sandbox =
            observed.ready_sandbox().ok_or_else(|| Waiting::new("CreateContainerError", "the pod has no sandbox"))?;
        let wanted =
            Wanted { image: spec.image(), policy: spec.container.image_pull_policy.as_deref(), container: Some(name) };
        let image = ensure(node, self.pod, &wanted).await?;
        let inputs = Inputs { node, pod: self.pod, spec, observed, volumes, image: &image, restart_count };
        let fail = |why: Waiting| {
            node.events.pod(self.pod, Some(name), Severity::Warning, "Failed", format!("Error: {}", why.message));
            why
        };
        let config = config(&inputs).await.map_err(fail)?;
        let sandbox_config = self.sandbox_config(sandbox.attempt);
        let logs = Path::new(&sandbox_config.log_directory).join(name);
        std::fs::create_dir_all(&logs)
            .map_err(|error| fail(Waiting::new("CreateContainerError", format!("make {}: {error}", logs.display()))))?;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let created = node.runtime.create_container(request).await;
        let id = created.map_err(|status| fail(Waiting::new("CreateContainerError", status.message())))?.container_id;
        node.events.pod(self.pod, Some(name), Severity::Normal, "Created", "Container created");
        let started = node.runtime.start_container(cri::StartContainerRequest { container_id: id.clone() }).await;
        if let Err(status) = started {
            return Err(fail(Waiting::new("RunContainerError", status.message())));
        }
        node.events.pod(self.pod, Some(name), Severity::Normal, "Started", "Container started");
        self.post_start(spec, observed, &id).await?;
        self.drop_old(observed, name).await;
        Ok(id)
    }

    async fn post_start(&self, spec: &ContainerSpec, observed: &Observed, id: &str) -> Result<(), Waiting> {
        let Some(handler) = spec.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return Ok(());
        };
        let ips = pod_ips(self.pod, observed, &self.node.config.host_ips());
        let target = Target {
            pod: Arc::clone(self.pod),
            container_id: id.to_owned(),
            container: spec.container.clone(),
            ip: ips.first().cloned().unwrap_or_default(),
        };
        if let Err(cause) = hook(self.node, &target, handler).await {
            self.node.events.pod(
                self.pod,
                Some(spec.name()),
                Severity::Warning,
                "FailedPostStartHook",
                format!("PostStartHook failed: {cause}"),
            );
            let stopper = Stopper { node: self.node, pod: self.pod };
            let killed = stopper.kill(id, spec.name(), "FailedPostStartHook", self.pod.grace_seconds()).await;
            if let Err(error) = killed {
                tracing::debug!(%error, "container not stopped after its hook failed");
            }
            return Err(Waiting::new("PostStartHookError", cause));
        }
        Ok(())
    }

    /// Keeps only the last dead attempt, which `kubectl logs --previous` shows.
    async fn drop_old(&self, observed: &Observed, name: &str) {
        let dead = observed.containers.iter().filter(|container| container.name == name).skip(1);
        for old in dead {
            let request = cri::RemoveContainerRequest { container_id: old.id.clone() };
            match self.node.runtime.remove_container(request).await {
                Ok(_) => drop(std::fs::remove_file(&old.log_path)),
                Err(error) => tracing::debug!(%error, "old container not removed"),
            }
        }
    }
}
