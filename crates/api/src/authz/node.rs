//! The Node authorizer: a kubelet reads what the pods of its node use, and writes what is its own.
//!
//! Secrets, config maps, claims, volumes and service accounts are allowed by way of a [`Graph`] of
//! what is related to which node; everything else by the rules of the role `system:node`. A pod
//! reaches the kubelet as fast as it reaches the graph, so before a kubelet is refused the graph
//! catches up with the store.

mod graph;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use skiff_base::{Clock, Tasks};
use skiff_store::Store;
use tokio::sync::watch;

use self::graph::{Followed, Graph, Vertex};
use super::rbac::Rule;
use super::{Attributes, Authorizer, Decision, Rules, Target, policy};
use crate::authn::UserInfo;

/// The namespace of the leases by which nodes show that they are alive.
const LEASES: &str = "kube-node-lease";
/// A store that does not answer is no reason to hold a kubelet for longer.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// See the [module](self).
pub struct NodeAuthorizer {
    graph: Arc<RwLock<Graph>>,
    followed: Vec<watch::Receiver<Followed>>,
    rules: Vec<Rule>,
}

/// A refusal, with why.
fn no(why: impl Into<String>) -> Decision {
    Decision::NoOpinion(why.into())
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

/// The node whose kubelet `user` is: `Some("")` for a member of the group without a node's name.
fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.in_group("system:nodes").then_some(name)
}

impl NodeAuthorizer {
    /// Reads what is related to the nodes of `cluster` and follows it for as long as `tasks` live.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        cluster: &str,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, skiff_store::Error> {
        let graph = Arc::new(RwLock::new(Graph::default()));
        let mut followed = Vec::new();
        for source in graph::SOURCES {
            followed.push(source.follow(&store, cluster, &graph, &clock, tasks).await?);
        }
        Ok(Arc::new(Self { graph, followed, rules: node_rules() }))
    }

    fn decide(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", attributes.user.name));
        }
        let Target::Resource { group, resource, .. } = attributes.target else { return self.by_role(attributes) };
        match (group, resource) {
            ("", "secrets") => self.read(node, attributes, Vertex::Secret),
            ("", "configmaps") => self.read(node, attributes, Vertex::ConfigMap),
            ("", "persistentvolumeclaims") => self.claim(node, attributes),
            ("", "persistentvolumes") => self.get(node, attributes, |_, name| Vertex::Volume(name)),
            ("resource.k8s.io", "resourceclaims") => self.get(node, attributes, Vertex::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => self.get(node, attributes, |_, name| Vertex::Attachment(name)),
            ("", "serviceaccounts") => self.token(node, attributes),
            ("coordination.k8s.io", "leases") => lease(node, attributes),
            ("storage.k8s.io", "csinodes") => csi_node(node, attributes),
            ("resource.k8s.io", "resourceslices") => self.slice(node, attributes),
            ("", "nodes") => own_node(node, attributes),
            ("", "pods") => self.pod(node, attributes),
            _ => self.by_role(attributes),
        }
    }

    fn by_role(&self, attributes: &Attributes<'_>) -> Decision {
        if self.rules.iter().any(|rule| rule.allows(attributes)) { yes() } else { no("") }
    }

    fn related(&self, node: &str, vertex: Vertex) -> Decision {
        if vertex.name().is_empty() {
            return no("No Object name found");
        }
        if self.graph.read().relates(&vertex, node) {
            return yes();
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    /// One object of a namespace: got, listed or watched by its name.
    fn read(&self, node: &str, attributes: &Attributes<'_>, vertex: fn(String, String) -> Vertex) -> Decision {
        let Parts { namespace, name, subresource } = parts(attributes);
        if !matches!(attributes.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !subresource.is_empty() {
            return no("cannot read subresource");
        }
        if namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, vertex(namespace.to_owned(), name.to_owned()))
    }

    fn get(&self, node: &str, attributes: &Attributes<'_>, vertex: fn(String, String) -> Vertex) -> Decision {
        let Parts { namespace, name, subresource } = parts(attributes);
        if attributes.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, vertex(namespace.to_owned(), name.to_owned()))
    }

    fn claim(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let Parts { namespace, name, subresource } = parts(attributes);
        if subresource != "status" {
            return self.get(node, attributes, Vertex::Claim);
        }
        if !matches!(attributes.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, Vertex::Claim(namespace.to_owned(), name.to_owned()))
    }

    fn token(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let Parts { namespace, name, subresource } = parts(attributes);
        if attributes.verb != "create" || name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, Vertex::ServiceAccount(namespace.to_owned(), name.to_owned()))
    }

    fn slice(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let Parts { name, subresource, .. } = parts(attributes);
        if !subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb {
            // Whose it will be is checked by NodeRestriction, which sees the object.
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => self.related(node, Vertex::Slice(name.to_owned())),
            "watch" | "list" | "deletecollection"
                if selects(attributes, "nodeName", node) || selects(attributes, "spec.nodeName", node) =>
            {
                yes()
            }
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                     patch, delete, deletecollection"),
        }
    }

    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let Parts { namespace, name, subresource } = parts(attributes);
        match (subresource, attributes.verb) {
            ("", "get") => self.get(node, attributes, Vertex::Pod),
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => yes(),
            ("", "list" | "watch") if !name.is_empty() => {
                self.related(node, Vertex::Pod(namespace.to_owned(), name.to_owned()))
            }
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            // Which ones is checked by NodeRestriction, which sees the object.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            _ => no(""),
        }
    }

    /// Waits until the graph knows what the store knew when this was called.
    async fn catch_up(&self) {
        for followed in &self.followed {
            let mut followed = followed.clone();
            let frontier = followed.borrow().frontier.clone();
            let Some(frontier) = frontier else { continue };
            // A store that cannot say leaves what is known.
            let Ok(outstanding) = frontier.outstanding().await else { continue };
            let _ = followed.wait_for(|followed| followed.applied >= outstanding.seen).await;
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        node_of(attributes.user).map_or_else(|| no(""), |node| self.decide(node, attributes))
    }

    fn asks(&self, user: &UserInfo) -> bool {
        node_of(user).is_some()
    }

    fn ask<'a>(&'a self, attributes: Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        let node = node_of(attributes.user)?;
        let first = self.decide(node, &attributes);
        if first.is_allowed() {
            return Some(std::future::ready(first).boxed());
        }
        Some(
            async move {
                let _ = tokio::time::timeout(CATCH_UP_TIMEOUT, self.catch_up()).await;
                self.decide(node, &attributes)
            }
            .boxed(),
        )
    }

    fn rules(&self, user: &UserInfo, _: &str) -> Rules {
        let mut rules = Rules::default();
        if node_of(user).is_some() {
            rules.incomplete = true;
            rules.evaluation_error = "node authorizer does not support user rule resolution".into();
        }
        rules
    }
}

struct Parts<'a> {
    namespace: &'a str,
    name: &'a str,
    subresource: &'a str,
}

fn parts<'a>(attributes: &Attributes<'a>) -> Parts<'a> {
    match attributes.target {
        Target::Resource { namespace, name, subresource, .. } => Parts { namespace, name, subresource },
        Target::Path(_) => Parts { namespace: "", name: "", subresource: "" },
    }
}

fn selects(attributes: &Attributes<'_>, field: &str, value: &str) -> bool {
    attributes.selectors.is_some_and(|selectors| selectors.require(field, value))
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Decision {
    let Parts { namespace, name, .. } = parts(attributes);
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if namespace != LEASES {
        return no(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of a new one is in the body; NodeRestriction checks it.
    if attributes.verb != "create" && name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    let Parts { name, subresource, .. } = parts(attributes);
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    let Parts { name, subresource, .. } = parts(attributes);
    match (subresource, attributes.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match name {
            "" => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
            own if own == node => yes(),
            other => no(format!("node '{node}' cannot read '{other}', only its own Node object")),
        },
        _ => no(""),
    }
}

/// The rules of the role `system:node`.
fn node_rules() -> Vec<Rule> {
    let role = policy::objects()
        .into_iter()
        .find(|one| one.plural == "clusterroles" && crate::meta::name(&one.object) == "system:node");
    role.map(|role| role.object.list_at(&["rules"]).iter().map(Rule::of).collect()).unwrap_or_default()
}
