//! What the scheduler knows of the cluster at one moment: nodes and the pods on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::resources::{Resources, requests, requests_for_scoring};

/// A port that a pod takes on its node: address, protocol, number.
pub type HostPort = (String, String, i32);

/// A node with what is on it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<Node>,
    /// What pods may use.
    pub allocatable: Resources,
    /// What its pods have asked for.
    pub requested: Resources,
    /// The same, as scores count it.
    pub requested_for_scoring: Resources,
    /// Its pods, by uid.
    pub pods: BTreeMap<String, Arc<Pod>>,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> Self {
        let allocatable = Resources::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        Self {
            node,
            allocatable,
            requested: Resources::default(),
            requested_for_scoring: Resources::default(),
            pods: BTreeMap::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    /// The value of its label `key`.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    fn add(&mut self, pod: Arc<Pod>) {
        self.requested.add(&requests(&pod));
        self.requested_for_scoring.add(&requests_for_scoring(&pod));
        self.pods.insert(uid(&pod).to_owned(), pod);
    }

    fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.subtract(&requests(&pod));
            self.requested_for_scoring.subtract(&requests_for_scoring(&pod));
        }
    }

    fn replace(&mut self, node: Arc<Node>) {
        self.allocatable = Resources::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.node = node;
    }
}

/// All nodes, by name. Pods whose node is not known (yet) are kept aside and join it when it comes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    homeless: BTreeMap<String, Arc<Pod>>,
    /// Where each pod is, by uid.
    places: BTreeMap<String, String>,
}

impl Snapshot {
    /// The nodes, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// The node `name`.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// A node came or changed.
    pub fn put_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        match self.nodes.get_mut(&name) {
            Some(info) => info.replace(node),
            None => {
                let mut info = NodeInfo::new(node);
                for pod in std::mem::take(&mut self.homeless).into_values() {
                    if node_of(&pod) == name {
                        info.add(pod);
                    } else {
                        self.homeless.insert(uid(&pod).to_owned(), pod);
                    }
                }
                self.nodes.insert(name, info);
            }
        }
    }

    /// A node went; its pods wait for it to come back or to be deleted.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name) {
            self.homeless.extend(info.pods);
        }
    }

    /// A pod is on a node (bound, or assumed to be soon), or has changed there.
    pub fn put_pod(&mut self, pod: Arc<Pod>) {
        self.remove_pod(uid(&pod));
        let node = node_of(&pod).to_owned();
        self.places.insert(uid(&pod).to_owned(), node.clone());
        match self.nodes.get_mut(&node) {
            Some(info) => info.add(pod),
            None => {
                self.homeless.insert(uid(&pod).to_owned(), pod);
            }
        }
    }

    /// A pod no longer takes anything from its node. Says whether it was known.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(node) = self.places.remove(uid) else { return false };
        self.homeless.remove(uid);
        if let Some(info) = self.nodes.get_mut(&node) {
            info.remove(uid);
        }
        true
    }
}

/// The ports that `pod` takes on its node. An address of all zeros means every address.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address =
                port.host_ip.clone().filter(|address| !address.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".into()), number))
        })
        .collect()
}

/// The node that `pod` is bound to, `""` when to none.
pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The pod's uid.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::resources::tests::pod;

    pub(crate) fn node(name: &str, cpu: &str) -> Arc<Node> {
        Arc::new(
            serde_json::from_value(serde_json::json!({
                "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
                "status": { "allocatable": { "cpu": cpu, "memory": "4Gi", "pods": "110" } }
            }))
            .unwrap(),
        )
    }

    fn bound(name: &str, node: &str) -> Arc<Pod> {
        Arc::new(pod(
            name,
            serde_json::json!({ "nodeName": node, "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] }),
        ))
    }

    #[test]
    fn pods_that_come_before_their_node_are_counted_when_it_comes() {
        let mut snapshot = Snapshot::default();
        snapshot.put_pod(bound("a", "n1"));
        snapshot.put_node(node("n1", "4"));
        snapshot.put_pod(bound("b", "n1"));
        snapshot.put_pod(bound("b", "n1"));
        assert_eq!(snapshot.node("n1").unwrap().requested.get("cpu"), 2_000);
        assert!(snapshot.remove_pod("a"));
        assert!(!snapshot.remove_pod("a"));
        assert_eq!(snapshot.node("n1").unwrap().requested.get("cpu"), 1_000);
        snapshot.remove_node("n1");
        snapshot.put_node(node("n1", "4"));
        assert_eq!(snapshot.node("n1").unwrap().requested.get("cpu"), 1_000);
    }
}
