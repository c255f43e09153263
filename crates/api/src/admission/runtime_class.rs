//! `RuntimeClass`: a pod gets the overhead and the placement of its class.

use async_trait::async_trait;
use skiff_object::{Map, Tree, json};

use super::pod_resources::amounts;
use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// See the [module](self).
pub struct RuntimeClass;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

async fn class_of(server: &ApiServer, attributes: &Attributes<'_>, pod: &Tree) -> ApiResult<Option<Tree>> {
    let Some(name) = pod.at(&["spec", "runtimeClassName"]).and_then(Tree::as_str) else { return Ok(None) };
    match server.collection("node.k8s.io", "runtimeclasses").get("", name).await? {
        Some(stored) => json::decode_untyped(&stored.value).map(Some).map_err(ApiError::internal),
        None => Err(attributes.forbidden(pod, &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn present<'a>(tree: &'a Tree, path: &[&str]) -> Option<&'a Tree> {
    tree.at(path).filter(|value| !value.is_null())
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let Some(class) = class_of(server, attributes, pod).await? else { return Ok(()) };
        if present(&class, &["overhead"]).is_some() {
            let overhead = class.at(&["overhead", "podFixed"]).filter(|overhead| !overhead.is_null());
            let given = present(pod, &["spec", "overhead"]);
            if given.is_some() && amounts(given) != amounts(overhead) {
                return Err(attributes.forbidden(pod, MISMATCH));
            }
            if let Some(overhead) = overhead {
                pod.set(&["spec", "overhead"], overhead.clone());
            }
        }
        schedule(attributes, pod, &class)
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        pod: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let class = class_of(server, attributes, pod).await?;
        let given = present(pod, &["spec", "overhead"]);
        let overhead = class.as_ref().and_then(|class| present(class, &["overhead"]));
        match (overhead, given) {
            (Some(overhead), _) if amounts(overhead.get("podFixed")) != amounts(given) => {
                Err(attributes.forbidden(pod, MISMATCH))
            }
            (None, Some(_)) => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(attributes.forbidden(pod, why))
            }
            _ => Ok(()),
        }
    }
}

/// Merges the class's node selector and tolerations into the pod's.
fn schedule(attributes: &Attributes<'_>, pod: &mut Tree, class: &Tree) -> ApiResult<()> {
    let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Tree::as_map).into_iter().flat_map(Map::iter);
    for (key, value) in selector {
        let (key, wanted) = (key.as_str(), value.as_str().unwrap_or(""));
        let own = pod.at(&["spec", "nodeSelector"]).and_then(|selector| selector.get(key)).and_then(Tree::as_str);
        if let Some(own) = own.filter(|own| *own != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(attributes.forbidden(pod, &why));
        }
        let spec = pod.ensure_map().entry_or("spec", Tree::map).ensure_map();
        spec.entry_or("nodeSelector", Tree::map).ensure_map().insert(key.to_owned(), wanted);
    }
    for toleration in class.list_at(&["scheduling", "tolerations"]) {
        if !pod.list_at(&["spec", "tolerations"]).contains(toleration) {
            add_toleration(pod, toleration.clone());
        }
    }
    Ok(())
}

/// Adds a toleration to a pod.
pub(super) fn add_toleration(pod: &mut Tree, toleration: Tree) {
    let spec = pod.ensure_map().entry_or("spec", Tree::map).ensure_map();
    match spec.entry_or("tolerations", Tree::list) {
        Tree::List(items) => items.push(toleration),
        other => *other = Tree::List(vec![toleration]),
    }
}
