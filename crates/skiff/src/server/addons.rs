//! The objects of parts that run inside the process: the cluster's DNS as a Service.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use skiff_client::{Client, Patch, View};

use crate::profile::{CLUSTER_DOMAIN, DNS_SERVICE_IP};

const MANAGER: &str = "skiff";

/// Makes `kube-system/kube-dns` lead to the DNS server of the node at `node_address`. Where several
/// servers share the cluster, each node (this one is `node`) asks its own.
pub async fn dns(client: &Client, node_address: std::net::Ipv4Addr, ports: u16, node: Option<&str>) -> Result<()> {
    let labels = serde_json::json!({ "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true" });
    let port = |name: &str, protocol: &str, target: u16| serde_json::json!({ "name": name, "port": 53, "protocol": protocol, "targetPort": target });
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": labels },
        "spec": {
            "clusterIP": DNS_SERVICE_IP.to_string(),
            "ports": [port("dns", "UDP", ports), port("dns-tcp", "TCP", ports)],
            "internalTrafficPolicy": if node.is_some() { "Local" } else { "Cluster" },
        },
    });
    apply::<Service>(client, "kube-system", "kube-dns", service).await?;
    let mut endpoint = serde_json::json!({
        "addresses": [node_address.to_string()], "conditions": { "ready": true, "serving": true, "terminating": false },
    });
    let mut name = "kube-dns".to_owned();
    if let Some(node) = node {
        endpoint["nodeName"] = node.into();
        name = format!("kube-dns-{node}");
    }
    let slice = serde_json::json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "kube-system",
            "labels": { "kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": MANAGER },
        },
        "addressType": "IPv4",
        "endpoints": [endpoint],
        "ports": [
            { "name": "dns", "port": ports, "protocol": "UDP" },
            { "name": "dns-tcp", "port": ports, "protocol": "TCP" },
        ],
    });
    apply::<EndpointSlice>(client, "kube-system", &name, slice).await
}

/// Publishes where this cluster is and whom to trust, as `kubeadm join` reads it.
pub async fn cluster_info(client: &Client, server: &str, authority: &str) -> Result<()> {
    use base64::Engine;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    certificate-authority-data: {authority}\n    server: {server}\n"
    );
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "cluster-info", "namespace": "kube-public" },
        "data": { "kubeconfig": kubeconfig, "clusterDomain": CLUSTER_DOMAIN },
    });
    apply::<ConfigMap>(client, "kube-public", "cluster-info", object).await
}

async fn apply<K: View>(client: &Client, namespace: &str, name: &str, object: serde_json::Value) -> Result<()> {
    let patch = Patch::Apply { object, manager: MANAGER.to_owned(), force: true };
    client
        .patch::<K>(namespace, name, &patch)
        .await
        .with_context(|| format!("apply {} {namespace}/{name}", K::RESOURCE.kind))
        .map(drop)
}
