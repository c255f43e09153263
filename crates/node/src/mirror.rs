//! The node's own components, shown as mirror pods in `kube-system`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec,
    PodStatus, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use skiff_client::{DeleteOptions, Error, Patch};

use crate::config::Component;
use crate::node::Node;
use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, PodView, fnv, to_time};

pub(crate) const NAMESPACE: &str = "kube-system";
/// Every component is part of the one binary; there is no image to pull.
const IMAGE: &str = "skiff.local/skiff";

/// Makes the mirror pod of every component and removes those of components that are no more.
pub(crate) async fn sync(node: &Arc<Node>, known: &[Arc<PodView>], node_uid: &str) {
    for component in &node.config.components {
        let name = pod_name(node, component);
        let existing = known.iter().find(|pod| pod.namespace == NAMESPACE && pod.name == name);
        if let Err(error) = ensure(node, component, existing, node_uid).await {
            tracing::debug!(pod = %name, %error, "mirror pod not written");
        }
    }
    for pod in known.iter().filter(|pod| pod.is_mirror() && component_of(node, pod).is_none()) {
        delete(node, pod).await;
    }
}

/// The component a mirror pod shows.
pub(crate) fn component_of<'a>(node: &'a Node, pod: &PodView) -> Option<&'a Component> {
    if pod.namespace != NAMESPACE {
        return None;
    }
    node.config.components.iter().find(|component| pod_name(node, component) == pod.name)
}

fn pod_name(node: &Node, component: &Component) -> String {
    format!("{}-{}", component.name, node.config.name)
}

fn hash(component: &Component) -> String {
    let started = component.started.as_nanos().to_le_bytes();
    format!("{:016x}", fnv(&[component.name.as_bytes(), &started]))
}

async fn delete(node: &Node, pod: &PodView) {
    let options = DeleteOptions::uid(pod.uid.clone()).grace(0);
    if let Err(error) = node.client.delete::<Pod>(&pod.namespace, &pod.name, &options).await {
        tracing::debug!(pod = %pod.name, %error, "mirror pod not deleted");
    }
}

async fn ensure(
    node: &Node,
    component: &Component,
    existing: Option<&Arc<PodView>>,
    node_uid: &str,
) -> Result<(), Error> {
    if let Some(pod) = existing {
        if pod.annotation(CONFIG_HASH) == Some(&hash(component)) && pod.deleted_at().is_none() {
            return Ok(());
        }
        delete(node, pod).await;
    }
    let pod = manifest(node, component, node_uid);
    let created = match node.client.create(&pod).await {
        Ok(created) => created,
        // Seen before its event arrived here.
        Err(error) if error.is_already_exists() => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let status = serde_json::to_value(status(node, component, &created)).unwrap_or_default();
    let patch = Patch::Strategic(serde_json::json!({"status": status}));
    node.client.patch_subresource::<Pod>(NAMESPACE, &pod_name(node, component), "status", &patch).await.map(drop)
}

fn manifest(node: &Node, component: &Component, node_uid: &str) -> Pod {
    let hash = hash(component);
    let seen = crate::pod::rfc3339_nano(component.started);
    let annotations = [(CONFIG_SOURCE, "file"), (CONFIG_MIRROR, &hash), (CONFIG_HASH, &hash), (CONFIG_SEEN, &seen)];
    let labels = [("component", component.name.as_str()), ("tier", "control-plane")];
    let own = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(pod_name(node, component)),
            namespace: Some(NAMESPACE.into()),
            annotations: Some(own(&annotations)),
            labels: Some(own(&labels)),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.config.name.clone(),
                uid: node_uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: component.name.clone(),
                image: Some(IMAGE.into()),
                image_pull_policy: Some("IfNotPresent".into()),
                ..Container::default()
            }],
            node_name: Some(node.config.name.clone()),
            host_network: Some(true),
            priority_class_name: Some("system-node-critical".into()),
            priority: Some(2_000_001_000),
            enable_service_links: Some(true),
            tolerations: Some(vec![Toleration {
                effect: Some("NoExecute".into()),
                operator: Some("Exists".into()),
                ..Toleration::default()
            }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn status(node: &Node, component: &Component, pod: &Pod) -> PodStatus {
    let started = to_time(component.started);
    let ips = node.config.host_ips();
    let condition = |type_: &str| PodCondition {
        type_: type_.into(),
        status: "True".into(),
        last_transition_time: Some(started.clone()),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let types = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    PodStatus {
        phase: Some("Running".into()),
        conditions: Some(types.into_iter().map(condition).collect()),
        host_ip: ips.first().cloned(),
        host_ips: Some(ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some("BestEffort".into()),
        observed_generation: pod.metadata.generation,
        start_time: Some(started.clone()),
        container_statuses: Some(vec![ContainerStatus {
            name: component.name.clone(),
            image: IMAGE.into(),
            image_id: IMAGE.into(),
            container_id: Some(format!("{}{}", crate::status::RUNTIME_SCHEME, hash(component))),
            ready: true,
            started: Some(true),
            state: Some(ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(started) }),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        }]),
        ..PodStatus::default()
    }
}
