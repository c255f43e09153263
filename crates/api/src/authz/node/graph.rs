//! What is related to which node: pods to theirs, and through pods what they use.
//!
//! Every source (pods, volumes, attachments, slices) is followed by a task of its own and says how
//! far it is, so that a reader can wait for what the store already knows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use skiff_base::{Clock, Tasks};
use skiff_object::{Tree, json};
use skiff_store::{Entry, Event, EventKind, Frontier, Range, Revision, Store, prefix_end};
use tokio::sync::watch;

use crate::meta;
use crate::storage::storage_key;

/// Between two attempts to read a source after the store failed.
const RETRY: Duration = Duration::from_millis(500);
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Something that a node may be related to; namespace and name, or only a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Vertex {
    ConfigMap(String, String),
    Secret(String, String),
    Claim(String, String),
    ResourceClaim(String, String),
    ServiceAccount(String, String),
    Pod(String, String),
    Volume(String),
    Attachment(String),
    Slice(String),
}

impl Vertex {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::ConfigMap(_, name)
            | Self::Secret(_, name)
            | Self::Claim(_, name)
            | Self::ResourceClaim(_, name)
            | Self::ServiceAccount(_, name)
            | Self::Pod(_, name)
            | Self::Volume(name)
            | Self::Attachment(name)
            | Self::Slice(name) => name,
        }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// What each object of a source brings, to take it back.
    edges: HashMap<Vertex, Edges>,
    /// How many objects relate something to a node.
    nodes: HashMap<Vertex, HashMap<Arc<str>, usize>>,
    /// The volumes whose secrets these are.
    volumes: HashMap<Vertex, HashSet<String>>,
    /// The claims of volumes.
    claims: HashMap<String, Vertex>,
}

/// What one object relates to what.
#[derive(Debug)]
enum Edges {
    /// All of these to one node.
    Node(Arc<str>, Vec<Vertex>),
    /// A volume to its claim, and its secrets to it.
    Volume(String, Vec<Vertex>),
}

impl Graph {
    /// Whether `vertex` is related to `node`.
    pub(super) fn relates(&self, vertex: &Vertex, node: &str) -> bool {
        if self.nodes.get(vertex).is_some_and(|nodes| nodes.contains_key(node)) {
            return true;
        }
        let bound = |volume: &String| {
            let claim = self.claims.get(volume).and_then(|claim| self.nodes.get(claim));
            claim.is_some_and(|nodes| nodes.contains_key(node))
        };
        match vertex {
            Vertex::Volume(name) => bound(name),
            Vertex::Secret(..) => self.volumes.get(vertex).is_some_and(|volumes| volumes.iter().any(bound)),
            _ => false,
        }
    }

    fn forget(&mut self, own: &Vertex) {
        match self.edges.remove(own) {
            None => {}
            Some(Edges::Node(node, vertices)) => {
                for vertex in vertices {
                    let Some(nodes) = self.nodes.get_mut(&vertex) else { continue };
                    if let Some(count) = nodes.get_mut(&node) {
                        *count -= 1;
                        if *count == 0 {
                            nodes.remove(&node);
                        }
                    }
                    if nodes.is_empty() {
                        self.nodes.remove(&vertex);
                    }
                }
            }
            Some(Edges::Volume(volume, secrets)) => {
                for secret in secrets {
                    if let Some(volumes) = self.volumes.get_mut(&secret) {
                        volumes.remove(&volume);
                        if volumes.is_empty() {
                            self.volumes.remove(&secret);
                        }
                    }
                }
                self.claims.remove(&volume);
            }
        }
    }

    fn relate(&mut self, own: Vertex, node: &str, mut vertices: Vec<Vertex>) {
        let node: Arc<str> = node.into();
        vertices.push(own.clone());
        for vertex in &vertices {
            *self.nodes.entry(vertex.clone()).or_default().entry(Arc::clone(&node)).or_default() += 1;
        }
        self.edges.insert(own, Edges::Node(node, vertices));
    }

    fn relate_volume(&mut self, name: String, claim: Vertex, secrets: Vec<Vertex>) {
        for secret in &secrets {
            self.volumes.entry(secret.clone()).or_default().insert(name.clone());
        }
        self.claims.insert(name.clone(), claim);
        self.edges.insert(Vertex::Volume(name.clone()), Edges::Volume(name, secrets));
    }
}

/// How far a source has been followed.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) applied: Revision,
    pub(super) frontier: Option<Arc<dyn Frontier>>,
}

/// A kind of objects that relate something to nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    group: &'static str,
    plural: &'static str,
    /// What stands in the JSON of every object that relates something: others are not even decoded.
    needle: &'static str,
    vertex: fn(String, String) -> Vertex,
    add: fn(&mut Graph, Vertex, &Tree),
}

const NODE_NAME: &str = "\"nodeName\"";

pub(super) const SOURCES: [Source; 4] = [
    Source { group: "", plural: "pods", needle: NODE_NAME, vertex: Vertex::Pod, add: add_pod },
    Source {
        group: "",
        plural: "persistentvolumes",
        needle: "\"claimRef\"",
        vertex: |_, name| Vertex::Volume(name),
        add: add_volume,
    },
    Source {
        group: "storage.k8s.io",
        plural: "volumeattachments",
        needle: NODE_NAME,
        vertex: |_, name| Vertex::Attachment(name),
        add: add_by_node_name,
    },
    Source {
        group: "resource.k8s.io",
        plural: "resourceslices",
        needle: NODE_NAME,
        vertex: |_, name| Vertex::Slice(name),
        add: add_by_node_name,
    },
];

impl Source {
    /// Reads all objects and follows their changes.
    pub(super) async fn follow(
        self,
        store: &Arc<dyn Store>,
        cluster: &str,
        graph: &Arc<RwLock<Graph>>,
        clock: &Clock,
        tasks: &Tasks,
    ) -> Result<watch::Receiver<Followed>, skiff_store::Error> {
        let mut prefix = storage_key(cluster, self.group, self.plural, "", "").to_vec();
        prefix.pop(); // the slash between namespace and name
        let prefix = Bytes::from(prefix);
        let revision = self.read_all(&**store, &prefix, graph).await?;
        let (progress, followed) = watch::channel(Followed { applied: revision, frontier: None });
        let (store, graph, clock) = (Arc::clone(store), Arc::clone(graph), clock.clone());
        tasks.spawn("node-authorizer", async move {
            loop {
                if let Err(error) = self.watch(&*store, &prefix, &graph, &progress).await {
                    tracing::warn!(source = self.plural, %error, "watch for the node authorizer broke, reading again");
                }
                progress.send_modify(|followed| followed.frontier = None);
                match self.read_all(&*store, &prefix, &graph).await {
                    Ok(revision) => progress.send_modify(|followed| followed.applied = revision),
                    Err(error) => {
                        tracing::error!(source = self.plural, %error, "read for the node authorizer");
                        clock.sleep(RETRY).await;
                    }
                }
            }
        });
        Ok(followed)
    }

    async fn read_all(
        self,
        store: &dyn Store,
        prefix: &Bytes,
        graph: &RwLock<Graph>,
    ) -> Result<Revision, skiff_store::Error> {
        let range = Range { start: prefix.clone(), end: prefix_end(prefix), ..Range::default() };
        let result = store.range(range).await?;
        let mut graph = graph.write();
        let sample = (self.vertex)(String::new(), String::new());
        let old: Vec<Vertex> = graph.edges.keys().filter(|vertex| same_kind(vertex, &sample)).cloned().collect();
        old.iter().for_each(|vertex| graph.forget(vertex));
        for entry in &result.entries {
            self.apply(&mut graph, prefix, EventKind::Put, entry);
        }
        Ok(result.revision)
    }

    async fn watch(
        self,
        store: &dyn Store,
        prefix: &Bytes,
        graph: &RwLock<Graph>,
        progress: &watch::Sender<Followed>,
    ) -> Result<(), skiff_store::Error> {
        let from = progress.borrow().applied;
        let mut watch = store.watch(prefix.clone(), prefix_end(prefix), Some(from)).await?;
        progress.send_modify(|followed| followed.frontier = Some(watch.frontier()));
        while let Some(event) = watch.next().await {
            let revision = match event? {
                Event::Change { kind, entry, .. } => {
                    self.apply(&mut graph.write(), prefix, kind, &entry);
                    entry.mod_revision
                }
                Event::Progress(revision) => revision,
            };
            progress.send_modify(|followed| followed.applied = revision);
        }
        Ok(())
    }

    fn apply(self, graph: &mut Graph, prefix: &[u8], kind: EventKind, entry: &Entry) {
        let Some(key) = entry.key.strip_prefix(prefix).and_then(|key| std::str::from_utf8(key).ok()) else { return };
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let vertex = (self.vertex)(namespace.to_owned(), name.to_owned());
        graph.forget(&vertex);
        if kind == EventKind::Delete || memchr::memmem::find(&entry.value, self.needle.as_bytes()).is_none() {
            return;
        }
        match json::decode_untyped(&entry.value) {
            Ok(object) => (self.add)(graph, vertex, &object),
            Err(error) => tracing::error!(key, %error, "stored object is unreadable and relates nothing to nodes"),
        }
    }
}

fn same_kind(one: &Vertex, other: &Vertex) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn add_by_node_name(graph: &mut Graph, own: Vertex, object: &Tree) {
    let node = object.str_at(&["spec", "nodeName"]);
    if !node.is_empty() {
        graph.relate(own, node, Vec::new());
    }
}

fn add_pod(graph: &mut Graph, own: Vertex, pod: &Tree) {
    let (namespace, node) = (meta::namespace(pod), pod.str_at(&["spec", "nodeName"]));
    if node.is_empty() {
        return;
    }
    // A node makes its own mirror pods; they must not give it anything.
    let used = if meta::annotation(pod, MIRROR).is_some() { Vec::new() } else { uses(pod, namespace) };
    graph.relate(own, node, used);
}

/// What a pod uses of its namespace.
fn uses(pod: &Tree, namespace: &str) -> Vec<Vertex> {
    let mut used = HashSet::new();
    let mut add = |vertex: fn(String, String) -> Vertex, name: &str| {
        if !name.is_empty() {
            used.insert(vertex(namespace.to_owned(), name.to_owned()));
        }
    };
    add(Vertex::ServiceAccount, pod.str_at(&["spec", "serviceAccountName"]));
    for secret in pod.list_at(&["spec", "imagePullSecrets"]) {
        add(Vertex::Secret, secret.str_at(&["name"]));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in pod.list_at(&["spec", list]) {
            for from in container.list_at(&["envFrom"]) {
                add(Vertex::Secret, from.str_at(&["secretRef", "name"]));
                add(Vertex::ConfigMap, from.str_at(&["configMapRef", "name"]));
            }
            for variable in container.list_at(&["env"]) {
                add(Vertex::Secret, variable.str_at(&["valueFrom", "secretKeyRef", "name"]));
                add(Vertex::ConfigMap, variable.str_at(&["valueFrom", "configMapKeyRef", "name"]));
            }
        }
    }
    for volume in pod.list_at(&["spec", "volumes"]) {
        add(Vertex::Secret, volume.str_at(&["secret", "secretName"]));
        add(Vertex::Secret, volume.str_at(&["azureFile", "secretName"]));
        add(Vertex::Secret, volume.str_at(&["csi", "nodePublishSecretRef", "name"]));
        for plugin in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            add(Vertex::Secret, volume.str_at(&[plugin, "secretRef", "name"]));
        }
        add(Vertex::ConfigMap, volume.str_at(&["configMap", "name"]));
        for source in volume.list_at(&["projected", "sources"]) {
            add(Vertex::Secret, source.str_at(&["secret", "name"]));
            add(Vertex::ConfigMap, source.str_at(&["configMap", "name"]));
        }
        add(Vertex::Claim, volume.str_at(&["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some_and(|ephemeral| !ephemeral.is_null()) {
            add(Vertex::Claim, &format!("{}-{}", meta::name(pod), volume.str_at(&["name"])));
        }
    }
    resource_claims(pod, |name| add(Vertex::ResourceClaim, name));
    used.into_iter().collect()
}

fn resource_claims(pod: &Tree, mut add: impl FnMut(&str)) {
    for claim in pod.list_at(&["spec", "resourceClaims"]) {
        add(claim.str_at(&["resourceClaimName"]));
    }
    for made in pod.list_at(&["status", "resourceClaimStatuses"]) {
        add(made.str_at(&["resourceClaimName"]));
    }
    add(pod.str_at(&["status", "extendedResourceClaimStatus", "resourceClaimName"]));
}

fn add_volume(graph: &mut Graph, own: Vertex, volume: &Tree) {
    let namespace = volume.str_at(&["spec", "claimRef", "namespace"]);
    let claim = volume.str_at(&["spec", "claimRef", "name"]);
    if claim.is_empty() {
        return;
    }
    let mut secrets = Vec::new();
    let mut add = |of: &str, name: &str| {
        if !name.is_empty() {
            let of = if of.is_empty() { namespace } else { of };
            secrets.push(Vertex::Secret(of.to_owned(), name.to_owned()));
        }
    };
    let spec = |path: &[&str]| volume.str_at(&[&["spec"], path].concat()).to_owned();
    add(&spec(&["azureFile", "secretNamespace"]), &spec(&["azureFile", "secretName"]));
    // Those of CSI that only the controllers of a driver use are not for nodes.
    for secret in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        add(&spec(&["csi", secret, "namespace"]), &spec(&["csi", secret, "name"]));
    }
    for plugin in ["cephfs", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
        add(&spec(&[plugin, "secretRef", "namespace"]), &spec(&[plugin, "secretRef", "name"]));
    }
    let claim = Vertex::Claim(namespace.to_owned(), claim.to_owned());
    graph.relate_volume(own.name().to_owned(), claim, secrets);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Tree {
        json::decode_untyped(text.as_bytes()).unwrap()
    }

    fn vertex(kind: fn(String, String) -> Vertex, name: &str) -> Vertex {
        kind("ns".into(), name.into())
    }

    #[test]
    fn a_pod_relates_what_it_uses_until_it_is_gone() {
        let mut graph = Graph::default();
        let pod = tree(
            r#"{"metadata":{"name":"p","namespace":"ns"},"spec":{"nodeName":"n1","serviceAccountName":"sa",
            "imagePullSecrets":[{"name":"pull"}],"containers":[{"envFrom":[{"configMapRef":{"name":"env"}}]}],
            "volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c"}},{"name":"e","ephemeral":{}},
            {"projected":{"sources":[{"secret":{"name":"s"}}]}}]}}"#,
        );
        let volume = tree(
            r#"{"metadata":{"name":"pv"},"spec":{"claimRef":{"namespace":"ns","name":"c"},
            "csi":{"nodeStageSecretRef":{"namespace":"ns","name":"stage"},
            "controllerPublishSecretRef":{"namespace":"ns","name":"control"}}}}"#,
        );
        add_volume(&mut graph, Vertex::Volume("pv".into()), &volume);
        assert!(!graph.relates(&Vertex::Volume("pv".into()), "n1"));
        add_pod(&mut graph, vertex(Vertex::Pod, "p"), &pod);
        let related = [
            vertex(Vertex::Pod, "p"),
            vertex(Vertex::ServiceAccount, "sa"),
            vertex(Vertex::Secret, "pull"),
            vertex(Vertex::ConfigMap, "env"),
            vertex(Vertex::Claim, "c"),
            vertex(Vertex::Claim, "p-e"),
            vertex(Vertex::Secret, "s"),
            vertex(Vertex::Secret, "stage"),
            Vertex::Volume("pv".into()),
        ];
        for vertex in &related {
            assert!(graph.relates(vertex, "n1"), "{vertex:?}");
            assert!(!graph.relates(vertex, "n2"), "{vertex:?}");
        }
        assert!(!graph.relates(&vertex(Vertex::Secret, "control"), "n1"));
        graph.forget(&vertex(Vertex::Pod, "p"));
        for vertex in &related {
            assert!(!graph.relates(vertex, "n1"), "{vertex:?}");
        }
        graph.forget(&Vertex::Volume("pv".into()));
        assert!(
            graph.edges.is_empty() && graph.nodes.is_empty() && graph.volumes.is_empty() && graph.claims.is_empty()
        );
    }

    #[test]
    fn a_mirror_pod_gives_its_node_nothing() {
        let mut graph = Graph::default();
        let pod = tree(
            r#"{"metadata":{"name":"p","namespace":"ns","annotations":{"kubernetes.io/config.mirror":"x"}},
            "spec":{"nodeName":"n1","imagePullSecrets":[{"name":"pull"}]}}"#,
        );
        add_pod(&mut graph, vertex(Vertex::Pod, "p"), &pod);
        assert!(graph.relates(&vertex(Vertex::Pod, "p"), "n1"));
        assert!(!graph.relates(&vertex(Vertex::Secret, "pull"), "n1"));
    }
}
