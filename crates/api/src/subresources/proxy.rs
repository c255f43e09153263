//! `proxy` of nodes, pods and services: finding who is meant.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Response;
use skiff_object::{Tree, json};

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::forward::{self, Outgoing, Rewrite, Scheme};
use crate::meta;
use crate::proxy::Destination;
use crate::server::ApiServer;
use crate::verbs::Subject;

/// The port of a pod that names none.
const HTTP_PORT: u16 = 80;
/// The same over TLS.
const HTTPS_PORT: u16 = 443;

/// Passes a request on to a node, a pod or a service.
///
/// # Errors
/// 400 for a name that means nobody, 404 or 503 when there is nobody to pass it on to.
pub async fn proxy(server: &Arc<ApiServer>, call: Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let facts = subject.kind.facts();
    // The path as it was sent: what is escaped stays escaped.
    let raw = call.info.path.as_str();
    let at = end_of_proxy(raw);
    let target = if call.query.is_empty() { raw[at..].to_owned() } else { format!("{}?{}", &raw[at..], call.query) };
    let request = Request::parse(&subject.name).ok_or_else(|| {
        ApiError::bad_request(format!("invalid {} request {:?}", facts.singular.as_str(), subject.name))
    })?;
    let destination = match facts.plural.as_str() {
        "nodes" => node(server, &request).await?,
        "pods" => pod(server, subject, &request).await?,
        _ => service(server, subject, &request).await?,
    };
    let outgoing = Outgoing {
        scheme: if request.scheme == "https" { Scheme::Tls } else { Scheme::Plain },
        rewrite: Some(Rewrite::below(&raw[..at])),
        ..Outgoing::new(destination, call.method.clone(), target)
    };
    forward::forward(server, call, outgoing).await
}

/// Where the part of the path ends that is this server's: after the segment `proxy` that follows
/// resource and name.
fn end_of_proxy(path: &str) -> usize {
    let mut at = 0;
    let mut before = ["", ""];
    for segment in path.split('/') {
        let end = at + segment.len();
        if segment == "proxy" && matches!(before[0], "nodes" | "pods" | "services") {
            return end;
        }
        before = [before[1], segment];
        at = end + 1;
    }
    path.len()
}

/// `https:web:8443`, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Request<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn default_port(&self) -> u16 {
        if self.scheme == "https" { HTTPS_PORT } else { HTTP_PORT }
    }
}

async fn object(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> ApiResult<Tree> {
    let stored = server.collection("", plural).require(namespace, name).await?;
    json::decode_untyped(&stored.value).map_err(ApiError::internal)
}

/// An address that may be connected to.
fn allowed(ip: &str) -> ApiResult<IpAddr> {
    let ip = ip.parse().ok().filter(|ip| forward::is_allowed(*ip));
    ip.ok_or_else(|| ApiError::bad_request("address not allowed"))
}

fn number(port: &str) -> ApiResult<u16> {
    let invalid =
        || ApiError::unavailable(format!("error trying to reach service: dial tcp: address {port}: invalid port"));
    port.parse().map_err(|_| invalid())
}

/// The kubelet, or another port of its machine.
async fn node(server: &ApiServer, request: &Request<'_>) -> ApiResult<Destination> {
    let node = object(server, "nodes", "", request.name).await?;
    let kubelet = node.int_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or(10_250);
    if request.port.is_empty() || request.port == kubelet.to_string() {
        return Ok(Destination::Kubelet { node: request.name.to_owned() });
    }
    let addresses = node.list_at(&["status", "addresses"]);
    let internal = addresses.iter().find(|one| one.str_at(&["type"]) == "InternalIP");
    let ip = allowed(internal.map_or("", |one| one.str_at(&["address"])))?;
    Ok(Destination::Address(SocketAddr::new(ip, number(request.port)?)))
}

async fn pod(server: &ApiServer, subject: &Subject, request: &Request<'_>) -> ApiResult<Destination> {
    let pod = object(server, "pods", &subject.namespace, request.name).await?;
    let ports = pod.list_at(&["spec", "containers"]).iter().flat_map(|container| container.list_at(&["ports"]));
    // Without a port the first one of all containers counts; a name is one of theirs.
    let found = ports.clone().find(|one| request.port.is_empty() || one.str_at(&["name"]) == request.port);
    let declared = found.and_then(|one| one.int_at(&["containerPort"])).and_then(|port| u16::try_from(port).ok());
    let port = match declared {
        Some(port) => port,
        None if request.port.is_empty() => request.default_port(),
        None => number(request.port)?,
    };
    let ip = allowed(pod.str_at(&["status", "podIP"]))?;
    Ok(Destination::Address(SocketAddr::new(ip, port)))
}

async fn service(server: &ApiServer, subject: &Subject, request: &Request<'_>) -> ApiResult<Destination> {
    let service = object(server, "services", &subject.namespace, request.name).await?;
    let port = match request.port.parse::<i64>() {
        Err(_) => request.port.to_owned(),
        Ok(number) => {
            let ports = service.list_at(&["spec", "ports"]);
            let declared = ports.iter().find(|one| one.int_at(&["port"]) == Some(number));
            let unknown =
                || ApiError::unavailable(format!("no service port {number} found for service {:?}", request.name));
            declared.ok_or_else(unknown)?.str_at(&["name"]).to_owned()
        }
    };
    let mut candidates = endpoints(server, &subject.namespace, request.name, &port).await?;
    while !candidates.is_empty() {
        let pick = server.random().below(candidates.len() as u64) as usize;
        let candidate = candidates.swap_remove(pick);
        if candidate.is_its_pods(server, &subject.namespace).await? {
            return Ok(Destination::Address(candidate.address));
        }
    }
    Err(ApiError::unavailable(format!("no endpoints available for service {:?}", subject.name)))
}

/// An endpoint of a Service.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pod: String,
    namespace: String,
}

impl Endpoint {
    /// Whether the address is that of the pod it claims: whoever may write endpoints must not send
    /// the API server anywhere else.
    async fn is_its_pods(&self, server: &ApiServer, namespace: &str) -> ApiResult<bool> {
        if self.pod.is_empty() || self.namespace != namespace {
            return Ok(false);
        }
        let Some(stored) = server.collection("", "pods").get(namespace, &self.pod).await? else { return Ok(false) };
        let pod = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
        let ip = self.address.ip().to_string();
        let listed = pod.list_at(&["status", "podIPs"]).iter().any(|one| one.str_at(&["ip"]) == ip);
        Ok(listed || pod.str_at(&["status", "podIP"]) == ip)
    }
}

/// The ready endpoints of a Service behind the port named `port`.
pub(crate) async fn endpoints(
    server: &ApiServer,
    namespace: &str,
    service: &str,
    port: &str,
) -> ApiResult<Vec<Endpoint>> {
    let mut found = Vec::new();
    for item in server.collection("discovery.k8s.io", "endpointslices").list(namespace).await? {
        let slice = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        if meta::label(&slice, "kubernetes.io/service-name") != Some(service) {
            continue;
        }
        let number = slice.list_at(&["ports"]).iter().find(|one| one.str_at(&["name"]) == port);
        let Some(number) = number.and_then(|one| one.int_at(&["port"])).and_then(|one| u16::try_from(one).ok()) else {
            continue;
        };
        for endpoint in slice.list_at(&["endpoints"]) {
            let ready = endpoint.bool_at(&["conditions", "ready"]) != Some(false);
            let ip = endpoint.list_at(&["addresses"]).first().and_then(Tree::as_str).and_then(|ip| ip.parse().ok());
            let Some(ip) = ip.filter(|_| ready) else { continue };
            let is_pod = endpoint.str_at(&["targetRef", "kind"]) == "Pod";
            found.push(Endpoint {
                address: SocketAddr::new(ip, number),
                pod: if is_pod { endpoint.str_at(&["targetRef", "name"]).to_owned() } else { String::new() },
                namespace: endpoint.str_at(&["targetRef", "namespace"]).to_owned(),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        let check = |text, scheme, name, port| assert_eq!(Request::parse(text), Some(Request { scheme, name, port }));
        check("web", "", "web", "");
        check("web:80", "", "web", "80");
        check("http:web:80", "http", "web", "80");
        check("https:web:", "https", "web", "");
        for bad in ["ftp:web:80", "a:b:c:d", ":80", ""] {
            assert_eq!(Request::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_other_server_s_path_begins_behind_proxy() {
        let check = |path: &str, rest| assert_eq!(&path[end_of_proxy(path)..], rest, "{path}");
        check("/api/v1/namespaces/proxy/pods/proxy/proxy", "");
        check("/api/v1/namespaces/a/pods/b/proxy/", "/");
        check("/api/v1/namespaces/a/services/http%3Ab%3Ac/proxy/x%2Fy/proxy", "/x%2Fy/proxy");
        check("/api/v1/nodes/n/proxy/proxy/x", "/proxy/x");
    }
}
