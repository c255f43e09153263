//! Events about pods and the node, as `kubectl describe` shows them.

use k8s_openapi::api::core::v1::ObjectReference;
use skiff_base::{Clock, Tasks};
use skiff_client::Client;
pub(crate) use skiff_client::Severity;

use crate::pod::{PodView, Role};

/// Records events in the kubelet's name. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events(skiff_client::Events);

impl Events {
    pub(crate) fn start(client: Client, clock: Clock, host: &str, tasks: &Tasks) -> Self {
        Self(skiff_client::Events::new(client, clock, tasks, "kubelet", host))
    }

    /// About a pod, or about one of its containers.
    pub(crate) fn pod(
        &self,
        pod: &PodView,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: impl Into<String>,
    ) {
        let reference = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            resource_version: pod.pod.metadata.resource_version.clone(),
            field_path: container.and_then(|name| field_path(pod, name)),
        };
        self.0.record_about(reference, severity, reason, message);
    }

    /// About the node itself.
    pub(crate) fn node(&self, name: &str, severity: Severity, reason: &str, message: impl Into<String>) {
        // Upstream's kubelet uses the node's name as uid, and `kubectl describe node` looks for it.
        let reference = ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        };
        self.0.record_about(reference, severity, reason, message);
    }
}

fn field_path(pod: &PodView, name: &str) -> Option<String> {
    let list = match pod.container(name)?.role {
        Role::Init | Role::Sidecar => "initContainers",
        Role::App => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    Some(format!("spec.{list}{{{name}}}"))
}
