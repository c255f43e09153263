//! `LimitRanger`: defaults and bounds for what pods and claims ask for, by namespace.

use async_trait::async_trait;
use skiff_object::quantity::Quantity;
use skiff_object::{Tree, json};

use super::pod_resources::{Amounts, amounts, of_pod};
use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::registry;
use crate::server::ApiServer;

/// See the [module](self).
pub struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_resize =
            attributes.subject.subresource == "resize" && registry::is(attributes.subject.kind.as_ref(), "", "pods");
        match attributes.operation {
            Operation::Create => attributes.is("", "pods") || attributes.is("", "persistentvolumeclaims"),
            // Nothing else of what is limited can change in a pod.
            Operation::Update => is_resize || attributes.is("", "persistentvolumeclaims"),
            _ => false,
        }
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        if attributes.is("", "pods") && attributes.operation == Operation::Create {
            for limit in limits(server, &attributes.subject.namespace, "Container").await? {
                set_defaults(object, &limit);
            }
        }
        Ok(())
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        if old.is_some_and(meta::is_deleting) {
            // What is on its way out may shed what keeps it.
            return Ok(());
        }
        let namespace = attributes.subject.namespace.as_str();
        let mut found = Vec::new();
        if registry::is(attributes.subject.kind.as_ref(), "", "pods") {
            for limit in limits(server, namespace, "Container").await? {
                for list in ["containers", "initContainers"] {
                    for container in object.list_at(&["spec", list]) {
                        let requests = amounts(container.at(&["resources", "requests"]));
                        let limits = amounts(container.at(&["resources", "limits"]));
                        check("Container", &limit, &requests, &limits, &mut found);
                    }
                }
            }
            for limit in limits(server, namespace, "Pod").await? {
                check("Pod", &limit, &of_pod(object, "requests"), &of_pod(object, "limits"), &mut found);
            }
        } else {
            for limit in limits(server, namespace, "PersistentVolumeClaim").await? {
                let requests = amounts(object.at(&["spec", "resources", "requests"]));
                check_claim(&limit, &requests, &mut found);
            }
        }
        let why = match found.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(attributes.forbidden(object, &why))
    }
}

/// The limits of one type in a namespace.
async fn limits(server: &ApiServer, namespace: &str, ty: &str) -> ApiResult<Vec<Tree>> {
    let mut found = Vec::new();
    for item in server.collection("", "limitranges").known_list(namespace).await? {
        let range = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        let limits = range.list_at(&["spec", "limits"]);
        found.extend(limits.iter().filter(|limit| limit.str_at(&["type"]) == ty).cloned());
    }
    Ok(found)
}

fn set_defaults(pod: &mut Tree, limit: &Tree) {
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod.at_mut(&["spec", list]).and_then(Tree::as_list_mut) else { continue };
        for container in containers {
            let name = container.str_at(&["name"]).to_owned();
            for (part, defaults, what) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                let set = fill(container, part, limit.get(defaults));
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set(&["metadata", "annotations", ANNOTATION], note);
    }
}

/// Puts in the amounts that are absent; gives their names.
fn fill(container: &mut Tree, part: &'static str, defaults: Option<&Tree>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.and_then(Tree::as_map).into_iter().flat_map(skiff_object::Map::iter) {
        let present = container.at(&["resources", part]).is_some_and(|amounts| amounts.get(name.as_str()).is_some());
        if !present {
            let resources = container.ensure_map().entry_or("resources", Tree::map).ensure_map();
            resources.entry_or(part, Tree::map).ensure_map().insert(name.clone(), amount.clone());
            set.push(name.as_str().to_owned());
        }
    }
    set.sort();
    set
}

fn check(ty: &str, limit: &Tree, requests: &Amounts, limits: &Amounts, found: &mut Vec<String>) {
    for (name, least) in amounts(limit.get("min")) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        let prefix = format!("minimum {name} usage per {ty} is {least}");
        match request {
            None => found.push(format!("{prefix}.  No request is specified")),
            Some(request) if *request < least => found.push(format!("{prefix}, but request is {request}")),
            Some(_) => {
                if let Some(limit) = limit.filter(|limit| **limit < least) {
                    found.push(format!("{prefix}, but limit is {limit}"));
                }
            }
        }
    }
    for (name, most) in amounts(limit.get("max")) {
        let (request, limit) = (requests.get(&name), limits.get(&name));
        let prefix = format!("maximum {name} usage per {ty} is {most}");
        match limit {
            None => found.push(format!("{prefix}.  No limit is specified")),
            Some(limit) if *limit > most => found.push(format!("{prefix}, but limit is {limit}")),
            Some(_) => {
                if let Some(request) = request.filter(|request| **request > most) {
                    found.push(format!("{prefix}, but request is {request}"));
                }
            }
        }
    }
    for (name, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        check_ratio(ty, &name, ratio, requests.get(&name), limits.get(&name), found);
    }
}

fn check_ratio(
    ty: &str,
    name: &str,
    ratio: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
    found: &mut Vec<String>,
) {
    let prefix = format!("{name} max limit to request ratio per {ty} is {ratio}");
    let nonzero = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
    match (nonzero(request), nonzero(limit)) {
        (None, _) => found.push(format!("{prefix}, but no request is specified or request is 0")),
        (_, None) => found.push(format!("{prefix}, but no limit is specified or limit is 0")),
        (Some(request), Some(limit)) => {
            let observed = limit.nanos() as f64 / request.nanos() as f64;
            if observed > ratio.nanos() as f64 / 1e9 {
                found.push(format!("{prefix}, but provided ratio is {observed:.6}"));
            }
        }
    }
}

fn check_claim(limit: &Tree, requests: &Amounts, found: &mut Vec<String>) {
    let ty = "PersistentVolumeClaim";
    for (name, least) in amounts(limit.get("min")) {
        if let Some(request) = requests.get(&name).filter(|request| **request < least) {
            found.push(format!("minimum {name} usage per {ty} is {least}, but request is {request}"));
        }
    }
    for (name, most) in amounts(limit.get("max")) {
        if let Some(request) = requests.get(&name).filter(|request| **request > most) {
            found.push(format!("maximum {name} usage per {ty} is {most}, but request is {request}"));
        }
    }
}
