//! The node's own object: registration, status, and the lease that says it is alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use serde_json::json;
use skiff_base::Timestamp;
use skiff_client::Patch;
use skiff_runtime::cri;
use tokio::sync::Notify;

use crate::events::Severity;
use crate::node::{Node, meminfo};
use crate::pod::to_time;

/// The version this node says it is.
pub(crate) const KUBELET_VERSION: &str = "v1.36.2";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The lease lasts 40 s and is renewed four times within.
const LEASE_SECONDS: i32 = 40;
const LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// An unchanged status is written this often all the same.
const STATUS_REPORT: Duration = Duration::from_secs(300);
/// How often the status is computed.
const STATUS_PERIOD: Duration = Duration::from_secs(10);
/// Images shown in the status, as upstream's default.
const IMAGES_MAX: usize = 50;
const RETRY: Duration = Duration::from_millis(200);
/// Memory that must stay available; below it the node is under pressure.
const MEMORY_AVAILABLE_MIN: i64 = 100 << 20;
/// The share of the disk, in per cent, that must stay free, but no more than so many bytes: a
/// tenth of a laptop's disk is far more than pods need.
const DISK_FREE_PERCENT_MIN: u64 = 10;
const DISK_FREE_BYTES_MIN: u64 = 1 << 30;

/// The node as it was last registered or reported.
pub(crate) struct Registered {
    pub(crate) uid: String,
    pub(crate) pod_cidr: Option<String>,
}

/// Creates the node, or takes over the one of this name. Returns once it is there.
pub(crate) async fn register(node: &Arc<Node>) -> Registered {
    loop {
        match try_register(node).await {
            Ok(object) => {
                return Registered {
                    uid: object.metadata.uid.unwrap_or_default(),
                    pod_cidr: object.spec.and_then(|spec| spec.pod_cidr),
                };
            }
            Err(error) => {
                tracing::debug!(%error, "node not registered yet");
                node.clock.sleep(RETRY).await;
            }
        }
    }
}

async fn try_register(node: &Arc<Node>) -> skiff_client::Result<NodeObject> {
    let status = status(node, None).await;
    let labels = labels(node);
    if let Some(existing) = node.client.find::<NodeObject>("", &node.config.name).await? {
        let patch = json!({"metadata": {"labels": labels}});
        node.client.patch::<NodeObject>("", &node.config.name, &Patch::Strategic(patch)).await?;
        return report(node, existing.status.as_ref()).await;
    }
    let object = NodeObject {
        metadata: ObjectMeta {
            name: Some(node.config.name.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(status),
    };
    match node.client.create(&object).await {
        Ok(created) => Ok(created),
        Err(error) if error.is_already_exists() => node.client.get::<NodeObject>("", &node.config.name).await,
        Err(error) => Err(error),
    }
}

fn labels(node: &Node) -> BTreeMap<String, String> {
    let arch = arch();
    let standard = [
        ("kubernetes.io/hostname", node.config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let standard = standard.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    standard.chain(node.config.labels.iter().cloned()).collect()
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Keeps the status current: computed every ten seconds or when woken, written when it changed or
/// is five minutes old.
pub(crate) async fn keep_status(node: Arc<Node>, wake: Arc<Notify>) {
    let mut reported: Option<(NodeStatus, Timestamp)> = None;
    loop {
        let now = node.clock.now();
        let before = reported.as_ref().map(|(status, _)| status);
        let current = status(&node, before).await;
        let due =
            reported.as_ref().is_none_or(|(before, at)| changed(before, &current) || now.since(*at) >= STATUS_REPORT);
        if due {
            match report(&node, before).await {
                Ok(object) => reported = Some((object.status.unwrap_or(current), now)),
                Err(error) => {
                    tracing::debug!(%error, "node status not written");
                    reported = None;
                    node.clock.sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            biased;
            () = wake.notified() => {}
            () = node.clock.sleep(STATUS_PERIOD) => {}
        }
    }
}

/// Different in more than heartbeat times.
fn changed(before: &NodeStatus, now: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        // Kept by others.
        status.volumes_attached = None;
        status.volumes_in_use = None;
        status.phase = None;
        status.config = None;
        // Extended resources are somebody else's word.
        for amounts in [&mut status.capacity, &mut status.allocatable].into_iter().flatten() {
            amounts.retain(|name, _| !name.contains('/'));
        }
        status
            .conditions
            .iter_mut()
            .for_each(|list| list.retain(|condition| OWN_CONDITIONS.contains(&condition.type_.as_str())));
        status
    };
    strip(before) != strip(now)
}

const OWN_CONDITIONS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

async fn report(node: &Arc<Node>, before: Option<&NodeStatus>) -> skiff_client::Result<NodeObject> {
    let status = status(node, before).await;
    let mut value = serde_json::to_value(&status).unwrap_or_default();
    if let Some(addresses) = value.get_mut("addresses").and_then(serde_json::Value::as_array_mut) {
        // Addresses merge by type, but one type may appear more than once.
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    node.client
        .patch_subresource::<NodeObject>("", &node.config.name, "status", &Patch::Strategic(json!({"status": value})))
        .await
}

async fn status(node: &Node, before: Option<&NodeStatus>) -> NodeStatus {
    NodeStatus {
        addresses: Some(addresses(node)),
        allocatable: Some(node.allocatable()),
        capacity: Some(node.capacity()),
        conditions: Some(conditions(node, before).await),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(node.config.listen.port()) }),
        }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        images: Some(images(node).await),
        node_info: Some(info(node).await),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            name: Some(String::new()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(true),
                user_namespaces: Some(false),
            }),
        }]),
        ..NodeStatus::default()
    }
}

fn addresses(node: &Node) -> Vec<NodeAddress> {
    let own =
        node.config.addresses.iter().map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() });
    let host = NodeAddress { type_: "Hostname".into(), address: node.config.name.clone() };
    own.chain([host]).collect()
}

async fn conditions(node: &Node, before: Option<&NodeStatus>) -> Vec<NodeCondition> {
    let now = node.clock.now();
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text, "MemAvailable:"));
    let low_memory = memory.is_some_and(|available| available < MEMORY_AVAILABLE_MIN);
    let low_disk = nix::sys::statvfs::statvfs(&node.config.data_dir).is_ok_and(|stat| {
        is_disk_low(stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size())
    });
    let pressure = |type_: &str, low: bool, what: &str| {
        let (reason, message) = if low {
            (
                format!("KubeletHas{what}Pressure").replace("PIDPressure", "InsufficientPID"),
                format!("kubelet has {}", describe(what, true)),
            )
        } else {
            (enough(what), format!("kubelet has {}", describe(what, false)))
        };
        condition(type_, low, &reason, &message)
    };
    let mut list = vec![
        pressure("MemoryPressure", low_memory, "Memory"),
        pressure("DiskPressure", low_disk, "Disk"),
        pressure("PIDPressure", false, "PID"),
        ready(node).await,
    ];
    for new in &mut list {
        let old = before
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .find(|old| old.type_ == new.type_);
        let since = old.filter(|old| old.status == new.status).and_then(|old| old.last_transition_time.clone());
        let (new_time, old_status) = (since.is_none(), old.map(|old| old.status.clone()));
        new.last_heartbeat_time = Some(to_time(now));
        new.last_transition_time = Some(since.unwrap_or_else(|| to_time(now)));
        if new_time && old_status.is_some() {
            event_for(node, new);
        }
    }
    list
}

fn is_disk_low(total: u64, available: u64) -> bool {
    available < (total / 100 * DISK_FREE_PERCENT_MIN).min(DISK_FREE_BYTES_MIN)
}

fn event_for(node: &Node, condition: &NodeCondition) {
    let reason = match (condition.type_.as_str(), condition.status.as_str()) {
        ("Ready", "True") => "NodeReady",
        ("Ready", _) => "NodeNotReady",
        ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
        ("MemoryPressure", _) => "NodeHasSufficientMemory",
        ("DiskPressure", "True") => "NodeHasDiskPressure",
        ("DiskPressure", _) => "NodeHasNoDiskPressure",
        _ => return,
    };
    let message = format!("Node {} status is now: {reason}", node.config.name);
    node.events.node(&node.config.name, Severity::Normal, reason, message);
}

fn enough(what: &str) -> String {
    match what {
        "Memory" => "KubeletHasSufficientMemory",
        "Disk" => "KubeletHasNoDiskPressure",
        _ => "KubeletHasSufficientPID",
    }
    .to_owned()
}

fn describe(what: &str, low: bool) -> &'static str {
    match (what, low) {
        ("Memory", true) => "insufficient memory available",
        ("Memory", false) => "sufficient memory available",
        ("Disk", true) => "disk pressure",
        ("Disk", false) => "no disk pressure",
        (_, true) => "insufficient PID available",
        (_, false) => "sufficient PID available",
    }
}

fn condition(type_: &str, holds: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: type_.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        ..NodeCondition::default()
    }
}

async fn ready(node: &Node) -> NodeCondition {
    let answer = node.runtime.status(cri::StatusRequest { verbose: false }).await;
    let problems: Vec<String> = match answer {
        Ok(answer) => {
            let conditions = answer.status.unwrap_or_default().conditions;
            let failing = conditions.into_iter().filter(|condition| {
                !condition.status && matches!(condition.r#type.as_str(), "RuntimeReady" | "NetworkReady")
            });
            failing
                .map(|condition| {
                    format!(
                        "container runtime: {} is false: {} {}",
                        condition.r#type, condition.reason, condition.message
                    )
                })
                .collect()
        }
        Err(status) => vec![format!("container runtime is down: {}", status.message())],
    };
    if problems.is_empty() {
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        condition("Ready", false, "KubeletNotReady", &format!("[{}]", problems.join(", ")))
    }
}

async fn images(node: &Node) -> Vec<ContainerImage> {
    let answer = node.images.list_images(cri::ListImagesRequest::default()).await;
    let mut images: Vec<cri::Image> = answer.map(|answer| answer.images).unwrap_or_default();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = images.into_iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect()),
        size_bytes: i64::try_from(image.size).ok(),
    });
    shown.collect()
}

async fn info(node: &Node) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let version = node.runtime.version(cri::VersionRequest::default()).await.unwrap_or_default();
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: arch().into(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.into(),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        operating_system: "linux".into(),
        os_image: os_image(),
        swap: None,
    }
}

fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Renews the node's lease until the task ends.
pub(crate) async fn keep_lease(node: Arc<Node>, node_uid: String) {
    let mut held: Option<Lease> = None;
    loop {
        match renew(&node, held.take(), &node_uid).await {
            Ok(lease) => {
                held = Some(lease);
                node.clock.sleep(LEASE_RENEWAL).await;
            }
            Err(error) => {
                tracing::debug!(%error, "node lease not renewed");
                node.clock.sleep(RETRY * 5).await;
            }
        }
    }
}

async fn renew(node: &Node, held: Option<Lease>, node_uid: &str) -> skiff_client::Result<Lease> {
    let nanos = i128::from(node.clock.now().as_nanos() / 1000 * 1000);
    let now = MicroTime(k8s_openapi::jiff::Timestamp::from_nanosecond(nanos).unwrap_or_default());
    let known = match held {
        Some(lease) => Some(lease),
        None => node.client.find::<Lease>(LEASE_NAMESPACE, &node.config.name).await?,
    };
    match known {
        Some(mut lease) => {
            let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
            spec.renew_time = Some(now);
            spec.holder_identity = Some(node.config.name.clone());
            spec.lease_duration_seconds = Some(LEASE_SECONDS);
            node.client.replace(&lease).await
        }
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(node.config.name.clone()),
                    namespace: Some(LEASE_NAMESPACE.into()),
                    owner_references: Some(vec![OwnerReference {
                        api_version: "v1".into(),
                        kind: "Node".into(),
                        name: node.config.name.clone(),
                        uid: node_uid.to_owned(),
                        ..OwnerReference::default()
                    }]),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(node.config.name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            node.client.create(&lease).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_disk_low;

    #[test]
    fn a_large_disk_is_low_only_when_little_is_left() {
        const GIB: u64 = 1 << 30;
        assert!(!is_disk_low(252 * GIB, 20 * GIB));
        assert!(is_disk_low(252 * GIB, GIB / 2));
        assert!(!is_disk_low(4 * GIB, GIB / 2));
        assert!(is_disk_low(4 * GIB, GIB / 4));
        assert!(!is_disk_low(0, 0));
    }
}
