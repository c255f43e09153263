//! `NodeRestriction`: a kubelet writes its own node and the pods bound to it, nothing else.

use std::collections::BTreeSet;

use async_trait::async_trait;
use skiff_object::{Map, Tree, json};

use super::service_account::MIRROR;
use super::{Attributes, Operation, Plugin};
use crate::authn::UserInfo;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct NodeRestriction;

/// The node that a user is the kubelet of; empty when it cannot be told.
fn node_of(user: &UserInfo) -> Option<&str> {
    user.in_group("system:nodes").then(|| user.name.strip_prefix("system:node:").unwrap_or(""))
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && node_of(attributes.user).is_some()
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let asking = Asking { server, attributes, node, object, old };
        if node.is_empty() {
            return asking.refuse(&format!("could not determine node from user {:?}", attributes.user.name));
        }
        let facts = attributes.subject.kind.facts();
        match (facts.group.as_str(), facts.plural.as_str(), attributes.subject.subresource.as_str()) {
            ("", "pods", "") => asking.pod().await,
            ("", "pods", "status") => asking.pod_status(),
            ("", "pods", "eviction") => asking.pod_eviction().await,
            ("", "pods", sub) => {
                asking.refuse(&format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => asking.node(),
            ("", "persistentvolumeclaims", "status") => asking.claim_status(),
            ("", "persistentvolumeclaims", _) => asking.refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") => asking.token().await,
            ("coordination.k8s.io", "leases", _) => asking.lease(),
            ("storage.k8s.io", "csinodes", _) => {
                asking.named_as_node("can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices", _) => asking.resource_slice(),
            _ => Ok(()),
        }
    }
}

/// What a kubelet asks for.
struct Asking<'a> {
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    node: &'a str,
    object: &'a Tree,
    old: Option<&'a Tree>,
}

impl Asking<'_> {
    fn refuse(&self, why: &str) -> ApiResult<()> {
        Err(self.attributes.forbidden(self.object, why))
    }

    fn unexpected(&self) -> ApiResult<()> {
        self.refuse(&format!("unexpected operation {:?}", self.attributes.operation.as_str()))
    }

    async fn stored_pod(&self, name: &str) -> ApiResult<Tree> {
        let namespace = &self.attributes.subject.namespace;
        let stored = self.server.collection("", "pods").get(namespace, name).await?;
        let stored = stored.ok_or_else(|| ApiError::not_found(Qualified { group: "", name: "pods" }, name))?;
        json::decode_untyped(&stored.value).map_err(ApiError::internal)
    }

    async fn pod(&self) -> ApiResult<()> {
        let node = self.node;
        match self.attributes.operation {
            Operation::Create => self.new_pod().await,
            Operation::Delete if self.old.is_some_and(|old| old.str_at(&["spec", "nodeName"]) == node) => Ok(()),
            Operation::Delete => {
                self.refuse(&format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            other => {
                let operation = other.as_str();
                let why =
                    format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods");
                self.refuse(&why)
            }
        }
    }

    async fn new_pod(&self) -> ApiResult<()> {
        let (pod, node) = (self.object, self.node);
        if meta::annotation(pod, MIRROR).is_none() {
            let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
            return self.refuse(&why);
        }
        if pod.str_at(&["spec", "nodeName"]) != node {
            return self.refuse(&format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        self.owner().await?;
        if !pod.str_at(&["spec", "serviceAccountName"]).is_empty() {
            return self.refuse(&format!("node {node:?} can not create pods that reference a service account"));
        }
        let referenced = references(pod);
        for what in ["secrets", "configmaps", "clustertrustbundles", "persistentvolumeclaims"] {
            if referenced.contains(what) {
                return self.refuse(&format!("node {node:?} can not create pods that reference {what}"));
            }
        }
        Ok(())
    }

    /// A mirror pod belongs to its node and to nobody else.
    async fn owner(&self) -> ApiResult<()> {
        let node = self.node;
        let itself = format!("node {node:?} can only create pods with an owner reference set to itself");
        let owner = match self.object.list_at(&["metadata", "ownerReferences"]) {
            [owner] => owner,
            [] => return self.refuse(&itself),
            _ => {
                let why = format!("node {node:?} can only create pods with a single owner reference set to itself");
                return self.refuse(&why);
            }
        };
        let text = |field: &str| owner.str_at(&[field]);
        if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
            return self.refuse(&itself);
        }
        if owner.bool_at(&["controller"]) != Some(true) {
            let why = format!("node {node:?} can only create pods with a controller owner reference set to itself");
            return self.refuse(&why);
        }
        if owner.bool_at(&["blockOwnerDeletion"]) == Some(true) {
            return self.refuse(&format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let stored = self.server.collection("", "nodes").require("", node).await?;
        let stored = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
        let (expected, got) = (text("uid"), meta::uid(&stored));
        if expected != got {
            return self.refuse(&format!("node {node} UID mismatch: expected {expected} got {got}"));
        }
        Ok(())
    }

    fn pod_status(&self) -> ApiResult<()> {
        let Some(old) = self.old.filter(|_| self.attributes.operation == Operation::Update) else {
            return self.unexpected();
        };
        let node = self.node;
        if old.str_at(&["spec", "nodeName"]) != node {
            let why = format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself");
            return self.refuse(&why);
        }
        if !labels(self.object).eq(&labels(old)) {
            return self.refuse(&format!("node {node:?} cannot update labels through pod status"));
        }
        let claims = |pod: &Tree| pod.list_at(&["status", "resourceClaimStatuses"]).to_vec();
        if claims(self.object) != claims(old) {
            return self.refuse(&format!("node {node:?} cannot update resource claim statues"));
        }
        Ok(())
    }

    async fn pod_eviction(&self) -> ApiResult<()> {
        if self.attributes.operation != Operation::Create {
            return self.unexpected();
        }
        let pod = self.stored_pod(self.attributes.name).await?;
        if pod.str_at(&["spec", "nodeName"]) != self.node {
            let why = format!("node {} can only evict pods with spec.nodeName set to itself", self.node);
            return self.refuse(&why);
        }
        Ok(())
    }

    fn node(&self) -> ApiResult<()> {
        let (node, name) = (self.node, self.attributes.name);
        if name != node {
            return self.refuse(&format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let has_source = |node: &Tree| node.at(&["spec", "configSource"]).is_some_and(|source| !source.is_null());
        match (self.attributes.operation, self.old) {
            (Operation::Create, _) => {
                if has_source(self.object) {
                    let why = format!("node {node:?} is not allowed to create pods with a non-nil configSource");
                    return self.refuse(&why);
                }
                let forbidden = forbidden_labels(&labels(self.object), &BTreeSet::new());
                if !forbidden.is_empty() {
                    let listed = forbidden.join(", ");
                    return self.refuse(&format!("node {node:?} is not allowed to set the following labels: {listed}"));
                }
            }
            (Operation::Update, Some(old)) => {
                let differs = |path: &[&str]| self.object.at(path) != old.at(path);
                if has_source(self.object) && differs(&["spec", "configSource"]) {
                    let why =
                        format!("node {node:?} is not allowed to update configSource to a new non-nil configSource");
                    return self.refuse(&why);
                }
                if self.object.list_at(&["spec", "taints"]) != old.list_at(&["spec", "taints"]) {
                    return self.refuse(&format!("node {node:?} is not allowed to modify taints"));
                }
                let forbidden = forbidden_labels(&labels(self.object), &labels(old));
                if !forbidden.is_empty() {
                    return self.refuse(&format!("is not allowed to modify labels: {}", forbidden.join(", ")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn claim_status(&self) -> ApiResult<()> {
        let Some(old) = self.old.filter(|_| self.attributes.operation == Operation::Update) else {
            return self.unexpected();
        };
        let rest = |claim: &Tree| {
            let mut claim = claim.clone();
            for path in [["metadata", "resourceVersion"], ["metadata", "managedFields"]] {
                claim.unset(&path);
            }
            for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                claim.unset(&["status", field]);
            }
            claim
        };
        if rest(self.object) == rest(old) {
            return Ok(());
        }
        let node = self.node;
        let why =
            format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions");
        self.refuse(&why)
    }

    async fn token(&self) -> ApiResult<()> {
        if self.attributes.operation != Operation::Create {
            return Ok(());
        }
        let bound = |field: &str| self.object.str_at(&["spec", "boundObjectRef", field]);
        if (bound("apiVersion"), bound("kind")) != ("v1", "Pod") || bound("name").is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        if bound("uid").is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.stored_pod(bound("name")).await?;
        if bound("uid") != meta::uid(&pod) {
            return self.refuse(&format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                bound("uid")
            ));
        }
        if pod.str_at(&["spec", "nodeName"]) != self.node {
            return self.refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(&pod)
    }

    /// A node gets tokens for those audiences only that the pod's own volumes ask for.
    fn audience(&self, pod: &Tree) -> ApiResult<()> {
        let audience = match self.object.list_at(&["spec", "audiences"]) {
            [] => "",
            [one] => one.as_str().unwrap_or(""),
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        let volumes = pod.list_at(&["spec", "volumes"]);
        let mut projected = volumes
            .iter()
            .flat_map(|volume| volume.list_at(&["projected", "sources"]))
            .filter_map(|source| source.get("serviceAccountToken"))
            .map(|token| token.str_at(&["audience"]));
        // What drivers ask for is written in their own objects, which the kubelet goes by.
        let has_driver = volumes.iter().any(|volume| volume.get("csi").is_some_and(|csi| !csi.is_null()))
            || volumes.iter().any(|volume| volume.get("persistentVolumeClaim").is_some_and(|claim| !claim.is_null()));
        if projected.any(|one| one == audience) || has_driver {
            return Ok(());
        }
        self.refuse(&format!("audience {audience:?} not found in pod spec volume"))
    }

    fn named_as_node(&self, why: &str) -> ApiResult<()> {
        let name =
            if self.attributes.operation == Operation::Create { meta::name(self.object) } else { self.attributes.name };
        if name == self.node { Ok(()) } else { self.refuse(why) }
    }

    fn lease(&self) -> ApiResult<()> {
        if self.attributes.subject.namespace != "kube-node-lease" {
            return self.refuse("can only access leases in the \"kube-node-lease\" system namespace");
        }
        self.named_as_node("can only access node lease with the same name as the requesting node")
    }

    fn resource_slice(&self) -> ApiResult<()> {
        let slice = if self.object.is_null() { self.old.unwrap_or(self.object) } else { self.object };
        let is_own = slice.str_at(&["spec", "nodeName"]) == self.node;
        match self.attributes.operation {
            Operation::Create if !is_own => {
                self.refuse("can only create ResourceSlice with the same NodeName as the requesting node")
            }
            Operation::Delete if !is_own => {
                self.refuse("can only delete ResourceSlice with the same NodeName as the requesting node")
            }
            _ => Ok(()),
        }
    }
}

fn labels(object: &Tree) -> BTreeSet<(String, String)> {
    let labels = object.at(&["metadata", "labels"]).and_then(Tree::as_map).into_iter().flat_map(Map::iter);
    labels.map(|(key, value)| (key.as_str().to_owned(), value.as_str().unwrap_or("").to_owned())).collect()
}

/// Labels that a kubelet may set although their domain is Kubernetes's.
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The changed labels by which a node could draw workloads to itself.
fn forbidden_labels(new: &BTreeSet<(String, String)>, old: &BTreeSet<(String, String)>) -> Vec<String> {
    let is_in =
        |domain: &str, of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    let changed: BTreeSet<&str> = new.symmetric_difference(old).map(|(key, _)| key.as_str()).collect();
    let forbidden = changed.into_iter().filter(|key| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let is_kubernetes = is_in(domain, "kubernetes.io") || is_in(domain, "k8s.io");
        let is_kubelets = KUBELET_LABELS.contains(key) || KUBELET_DOMAINS.iter().any(|allowed| is_in(domain, allowed));
        is_in(domain, "node-restriction.kubernetes.io") || (is_kubernetes && !is_kubelets)
    });
    forbidden.map(str::to_owned).collect()
}

/// The kinds of objects that a pod refers to.
pub(super) fn references(pod: &Tree) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut note = |what: &'static str, tree: Option<&Tree>| {
        if tree.is_some_and(|tree| !tree.is_null()) {
            found.insert(what);
        }
    };
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.list_at(&["spec", list]) {
            for source in container.list_at(&["envFrom"]) {
                note("secrets", source.get("secretRef"));
                note("configmaps", source.get("configMapRef"));
            }
            for env in container.list_at(&["env"]) {
                note("secrets", env.at(&["valueFrom", "secretKeyRef"]));
                note("configmaps", env.at(&["valueFrom", "configMapKeyRef"]));
            }
        }
    }
    note("secrets", pod.list_at(&["spec", "imagePullSecrets"]).first());
    for volume in pod.list_at(&["spec", "volumes"]) {
        note("secrets", volume.get("secret"));
        note("configmaps", volume.get("configMap"));
        note("persistentvolumeclaims", volume.get("persistentVolumeClaim"));
        for source in ["azureFile", "cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            note("secrets", volume.at(&[source, "secretRef"]));
        }
        note("secrets", volume.at(&["csi", "nodePublishSecretRef"]));
        for source in volume.list_at(&["projected", "sources"]) {
            note("secrets", source.get("secret"));
            note("configmaps", source.get("configMap"));
            note("clustertrustbundles", source.get("clusterTrustBundle"));
        }
    }
    found
}
