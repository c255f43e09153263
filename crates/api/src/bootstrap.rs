//! What every cluster begins with: namespaces, the `kubernetes` Service, priority classes.
//!
//! Everything goes through the pipeline like any other request and is only made when it is absent,
//! so that running it again changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use skiff_object::{Map, Tree, json};

use std::sync::Arc;

use crate::authn::{self, MASTERS, UserInfo};
use crate::authz::policy::{self, PolicyObject};
use crate::authz::reconcile::{Reconciled, reconciled};
use crate::server::{ApiServer, Local};

/// An object that every cluster begins with could not be made.
#[derive(Debug, thiserror::Error)]
#[error("bootstrap {path}: {status} {message}")]
pub struct BootstrapError {
    /// Where it was posted.
    pub path: String,
    /// What the server answered.
    pub status: StatusCode,
    /// The body of the answer.
    pub message: String,
}

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is absent.
///
/// # Errors
/// The first object that the server refuses for another reason than that it is there.
pub async fn run(server: &Arc<ApiServer>) -> Result<(), BootstrapError> {
    let local = server.local(UserInfo::new("system:apiserver", &[MASTERS]));
    crate::registry::repair::start(server).await.map_err(|error| BootstrapError {
        path: "service addresses".into(),
        status: error.code,
        message: error.message,
    })?;
    let namespaces = NAMESPACES.map(|namespace| object("v1", "Namespace", "", namespace));
    create_all(&local, "/api/v1/namespaces", &namespaces).await?;
    authn::reload::follow(server);
    if let Some(map) = authn::published::config_map(&server.config.authn) {
        replace(&local, "/api/v1/namespaces/kube-system/configmaps", &map).await?;
    }
    let policy = policy::objects();
    futures::future::try_join_all(policy.iter().map(|one| ensure_role(server, &local, one))).await?;
    create_all(&local, "/apis/scheduling.k8s.io/v1/priorityclasses", &priority_classes()).await?;
    create(&local, "/apis/networking.k8s.io/v1/servicecidrs", &service_cidr(server)).await?;
    create(&local, "/api/v1/namespaces/default/services", &kubernetes_service(server)).await?;
    crate::endpoint_lease::start(server).await?;
    create_all(&local, "/apis/apiregistration.k8s.io/v1/apiservices", &crate::aggregation::register::own(server))
        .await?;
    crate::flow_control::configure::start(server).await.map_err(|error| BootstrapError {
        path: "flow schemas and priority levels".into(),
        status: error.code,
        message: error.message,
    })?;
    crate::custom::start(server).await.map_err(|error| BootstrapError {
        path: "custom resource definitions".into(),
        status: error.code,
        message: error.message,
    })?;
    crate::admission::policy::type_check::start(server);
    crate::aggregation::worker::start(server).await.map_err(|error| BootstrapError {
        path: "API services".into(),
        status: error.code,
        message: error.message,
    })?;
    server.health().set_bootstrapped();
    Ok(())
}

async fn send(local: &Local, method: Method, path: &str, object: &Tree) -> (StatusCode, Bytes) {
    let mut request = Request::new(Bytes::from(json::encode_untyped(object)));
    *request.method_mut() = method;
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    request.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    request.headers_mut().insert(http::header::USER_AGENT, http::HeaderValue::from_static("kube-apiserver"));
    let response = local.call(request).await;
    let status = response.status();
    (status, response.into_body().collect().await.unwrap_or_default())
}

/// Makes what is absent of these, all at once: one write to the disk serves many.
async fn create_all(local: &Local, path: &str, objects: &[Tree]) -> Result<(), BootstrapError> {
    futures::future::try_join_all(objects.iter().map(|object| create(local, path, object))).await.map(drop)
}

/// Makes a role or binding, or adds what it lacks.
async fn ensure_role(server: &Arc<ApiServer>, local: &Local, wanted: &PolicyObject) -> Result<(), BootstrapError> {
    const GROUP: &str = "/apis/rbac.authorization.k8s.io/v1";
    let path = match wanted.namespace {
        "" => format!("{GROUP}/{}", wanted.plural),
        namespace => format!("{GROUP}/namespaces/{namespace}/{}", wanted.plural),
    };
    let name = crate::meta::name(&wanted.object);
    let collection = server.collection("rbac.authorization.k8s.io", wanted.plural);
    let unreadable = |message: String| BootstrapError {
        path: format!("{path}/{name}"),
        status: StatusCode::INTERNAL_SERVER_ERROR,
        message,
    };
    let Some(stored) = collection.get(wanted.namespace, name).await.map_err(|error| unreadable(error.to_string()))?
    else {
        return create(local, &path, &wanted.object).await;
    };
    let existing = json::decode_untyped(&stored.json()).map_err(|error| unreadable(error.to_string()))?;
    let one = format!("{path}/{name}");
    match reconciled(&existing, &wanted.object) {
        Reconciled::Kept => Ok(()),
        Reconciled::Changed(object) => {
            let (status, body) = send(local, Method::PUT, &one, &object).await;
            // Who was faster is another server that starts: it adds the same.
            check(&one, status, &body, &[StatusCode::OK, StatusCode::CONFLICT])
        }
        Reconciled::Remade => {
            let (status, body) = send(local, Method::DELETE, &one, &Tree::map()).await;
            check(&one, status, &body, &[StatusCode::OK, StatusCode::NOT_FOUND])?;
            create(local, &path, &wanted.object).await
        }
    }
}

/// Makes the object unless it is there. Looked for first: what is there may hold an address that
/// a second attempt would be refused for.
async fn create(local: &Local, path: &str, object: &Tree) -> Result<(), BootstrapError> {
    let one = format!("{path}/{}", crate::meta::name(object));
    if send(local, Method::GET, &one, &Tree::map()).await.0 == StatusCode::OK {
        return Ok(());
    }
    let (status, body) = send(local, Method::POST, path, object).await;
    check(path, status, &body, &[StatusCode::CREATED, StatusCode::CONFLICT])
}

/// Makes the object, or makes it what it must be: addresses may have changed since the last start.
pub(crate) async fn replace(local: &Local, path: &str, object: &Tree) -> Result<(), BootstrapError> {
    let one = format!("{path}/{}", crate::meta::name(object));
    let (status, body) = send(local, Method::GET, &one, &Tree::map()).await;
    if status == StatusCode::NOT_FOUND {
        let (status, body) = send(local, Method::POST, path, object).await;
        // Another server made it meanwhile, and looks at it again soon.
        return check(path, status, &body, &[StatusCode::CREATED, StatusCode::CONFLICT]);
    }
    check(&one, status, &body, &[StatusCode::OK])?;
    if json::decode_untyped(&body).is_ok_and(|existing| holds(&existing, object)) {
        return Ok(());
    }
    let (status, body) = send(local, Method::PUT, &one, object).await;
    check(&one, status, &body, &[StatusCode::OK])
}

/// Whether everything of `wanted` is in `existing`, lists as they are.
fn holds(existing: &Tree, wanted: &Tree) -> bool {
    match (existing, wanted) {
        (Tree::Map(existing), Tree::Map(wanted)) => {
            wanted.iter().all(|(key, value)| existing.get(key.as_str()).is_some_and(|existing| holds(existing, value)))
        }
        _ => existing == wanted,
    }
}

/// Deletes the object if it is there.
pub(crate) async fn delete(local: &Local, path: &str) -> Result<(), BootstrapError> {
    let (status, body) = send(local, Method::DELETE, path, &Tree::map()).await;
    check(path, status, &body, &[StatusCode::OK, StatusCode::NOT_FOUND])
}

fn check(path: &str, status: StatusCode, body: &[u8], fine: &[StatusCode]) -> Result<(), BootstrapError> {
    if fine.contains(&status) {
        return Ok(());
    }
    Err(BootstrapError { path: path.to_owned(), status, message: String::from_utf8_lossy(body).into_owned() })
}

pub(crate) fn object(api_version: &'static str, kind: &'static str, namespace: &str, name: &str) -> Tree {
    let mut tree = Tree::map();
    tree.set(&["apiVersion"], api_version);
    tree.set(&["kind"], kind);
    tree.set(&["metadata", "name"], name);
    if !namespace.is_empty() {
        tree.set(&["metadata", "namespace"], namespace);
    }
    tree
}

fn priority_classes() -> [Tree; 2] {
    [("system-cluster-critical", 2_000_000_000_i64), ("system-node-critical", 2_000_001_000)].map(|(name, value)| {
        let mut class = object("scheduling.k8s.io/v1", "PriorityClass", "", name);
        class.set(&["value"], value);
        class.set(&["preemptionPolicy"], "PreemptLowerPriority");
        class.set(&["description"], "For pods that the cluster or its node cannot do without.");
        class
    })
}

/// The address `offset` into a network.
pub(crate) fn address_in((network, prefix): (IpAddr, u8), offset: u128) -> IpAddr {
    match network {
        IpAddr::V4(network) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from((u32::from(network) & mask).wrapping_add(offset as u32)))
        }
        IpAddr::V6(network) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from((u128::from(network) & mask).wrapping_add(offset)))
        }
    }
}

fn service_cidr(server: &ApiServer) -> Tree {
    let (address, prefix) = server.config.service_cidr;
    let mut cidr = object("networking.k8s.io/v1", "ServiceCIDR", "", "kubernetes");
    cidr.set(&["spec", "cidrs"], vec![Tree::from(format!("{address}/{prefix}"))]);
    cidr
}

pub(crate) fn labels(tree: &mut Tree, labels: &[(&'static str, &str)]) {
    for (key, value) in labels {
        tree.set(&["metadata", "labels", key], *value);
    }
}

pub(crate) fn port(number: u16) -> Map {
    let mut port = Map::new();
    port.insert("name", "https");
    port.insert("port", i64::from(number));
    port.insert("protocol", "TCP");
    port
}

fn kubernetes_service(server: &ApiServer) -> Tree {
    let mut service = object("v1", "Service", "default", "kubernetes");
    labels(&mut service, &[("component", "apiserver"), ("provider", "kubernetes")]);
    let mut https = port(443);
    https.insert("targetPort", i64::from(server.config.advertise.port()));
    service.set(&["spec", "ports"], vec![Tree::Map(https)]);
    service.set(&["spec", "clusterIP"], address_in(server.config.service_cidr, 1).to_string());
    service.set(&["spec", "type"], "ClusterIP");
    service.set(&["spec", "sessionAffinity"], "None");
    service
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_from_the_network() {
        let v4 = ("10.96.5.7".parse().unwrap(), 16);
        assert_eq!(address_in(v4, 1).to_string(), "10.96.0.1");
        let v6 = ("fd00::7".parse().unwrap(), 112);
        assert_eq!(address_in(v6, 10).to_string(), "fd00::a");
    }
}
