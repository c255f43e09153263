//! What both endpoint controllers ask of Services and their pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skiff_client::{Informer, ObjectKey, WorkQueue};

use super::{Meta, pods, selector};

/// A port as it is at one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodPort {
    pub(crate) name: String,
    pub(crate) port: i32,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

pub(crate) fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The Service's selector, when its endpoints are ours to keep.
pub(crate) fn selects(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    Some(selector).filter(|selector| !selector.is_empty() && !is_external_name(service))
}

/// Every address of the pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut addresses: Vec<&str> =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).filter(|ip| !ip.is_empty()).collect();
    if addresses.is_empty() {
        addresses.extend(status.pod_ip.as_deref().filter(|ip| !ip.is_empty()));
    }
    addresses
}

/// The ports of `service` at `pod`; a named port that the pod does not have is left out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<PodPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let resolve = |port: &ServicePort| {
        Some(PodPort {
            name: port.name.clone().unwrap_or_default(),
            port: target_port(port, pod)?,
            protocol: protocol(port.protocol.as_deref()).to_owned(),
            app_protocol: port.app_protocol.clone(),
        })
    };
    ports.iter().filter_map(resolve).collect()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let mut ports =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let found = ports.find(|found| {
                found.name.as_deref() == Some(name)
                    && protocol(found.protocol.as_deref()) == protocol(port.protocol.as_deref())
            });
            found.map(|found| found.container_port)
        }
    }
}

/// The host name by which the pod is found under `service`.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == Some(service.metadata.id())).then_some(hostname)
}

/// Adds to `queue` every Service that selects a pod that changed.
pub(crate) fn enqueue_for_pods(services: &Informer<Service>, pods: &Informer<Pod>, queue: &WorkQueue) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.subscribe(move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !matters(old, new)
        {
            return;
        }
        let store = services.store();
        let key = change.key();
        for service in store.namespace(&key.namespace) {
            let Some(wanted) = selects(&service) else { continue };
            let selected = |pod: &Arc<Pod>| selector::subset(wanted, pod.metadata.labels.as_ref());
            if change.old.iter().chain(&change.new).any(selected) {
                queue.add(ObjectKey::of(&service.metadata));
            }
        }
    });
}

/// Whether a change of a pod can change an endpoint.
fn matters(old: &Pod, new: &Pod) -> bool {
    old.metadata.is_deleting() != new.metadata.is_deleting()
        || old.metadata.labels != new.metadata.labels
        || addresses(old) != addresses(new)
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_finished(old) != pods::is_finished(new)
        || pods::node_name(old) != pods::node_name(new)
        || old.metadata.uid != new.metadata.uid
}
