//! `proxy` of nodes, pods and services, and the passing on of a request in general.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, LOCATION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyDataStream, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use skiff_object::{Tree, json};

use crate::body::{Body, BodyError};
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::proxy::Destination;
use crate::server::ApiServer;
use crate::verbs::Subject;

/// A request on its way out.
pub struct Outgoing {
    /// Where it goes.
    pub destination: Destination,
    /// Path and query.
    pub target: String,
    /// The method.
    pub method: Method,
    /// The path of this server below which the target's paths appear, for redirects.
    pub prefix: Option<String>,
}

/// Headers that concern one connection only, and the credentials of the client.
const NOT_PASSED: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "authorization",
    "content-length",
];

/// Passes a request on to a node, a pod or a service.
///
/// # Errors
/// 404 or 503 when there is nobody to pass it on to.
pub async fn proxy(server: &Arc<ApiServer>, call: Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let facts = subject.kind.facts();
    // The path as it was sent: what is escaped stays escaped.
    let marker = format!("/{}/proxy", call.info.parts.get(1).map_or("", String::as_str));
    let raw = call.info.path.as_str();
    let at = raw.find(&marker).map_or(raw.len(), |at| at + marker.len());
    let rest = if raw[at..].is_empty() { "/" } else { &raw[at..] };
    let target = if call.query.is_empty() { rest.to_owned() } else { format!("{rest}?{}", call.query) };
    let (scheme, name, port) = split_name(&subject.name);
    if scheme == "https" && facts.plural != *"nodes" {
        return Err(ApiError::unavailable("proxying to pods and services over TLS is not supported"));
    }
    let destination = match facts.plural.as_str() {
        "nodes" => node(server, name).await?,
        "pods" => pod(server, subject, name, port).await?,
        _ => service(server, subject, name, port).await?,
    };
    let outgoing = Outgoing { destination, target, method: call.method.clone(), prefix: Some(raw[..at].to_owned()) };
    send(server, call, outgoing).await
}

/// `https:web:8443` as scheme, name and port.
fn split_name(text: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => ("", text, ""),
    }
}

async fn object(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> ApiResult<Tree> {
    let stored = server.collection("", plural).require(namespace, name).await?;
    json::decode_untyped(&stored.value).map_err(ApiError::internal)
}

async fn node(server: &ApiServer, name: &str) -> ApiResult<Destination> {
    object(server, "nodes", "", name).await?;
    Ok(Destination::Kubelet { node: name.to_owned() })
}

fn address(ip: &str, port: i64) -> ApiResult<Destination> {
    let address = ip.parse().ok().zip(u16::try_from(port).ok());
    let (ip, port) = address.ok_or_else(|| ApiError::unavailable(format!("address not allowed: {ip}:{port}")))?;
    Ok(Destination::Address(SocketAddr::new(ip, port)))
}

async fn pod(server: &ApiServer, subject: &Subject, name: &str, port: &str) -> ApiResult<Destination> {
    let pod = object(server, "pods", &subject.namespace, name).await?;
    let number = match port.parse::<i64>() {
        Ok(number) => number,
        Err(_) => {
            // Without a port the first one of the first container counts, with a name that one.
            let ports = pod.list_at(&["spec", "containers"]).iter().flat_map(|container| container.list_at(&["ports"]));
            let found = ports.clone().find(|one| port.is_empty() || one.str_at(&["name"]) == port);
            found.and_then(|one| one.int_at(&["containerPort"])).unwrap_or(80)
        }
    };
    let ip = pod.str_at(&["status", "podIP"]);
    if ip.is_empty() {
        return Err(ApiError::unavailable(format!("pod {name} has no address")));
    }
    address(ip, number)
}

async fn service(server: &ApiServer, subject: &Subject, name: &str, port: &str) -> ApiResult<Destination> {
    let service = object(server, "services", &subject.namespace, name).await?;
    let ports = service.list_at(&["spec", "ports"]);
    let unavailable = || ApiError::unavailable(format!("no endpoints available for service {:?}", subject.name));
    let wanted = match ports {
        [one] if port.is_empty() => one,
        _ => ports
            .iter()
            .find(|one| {
                one.str_at(&["name"]) == port || one.int_at(&["port"]).is_some_and(|number| number.to_string() == port)
            })
            .ok_or_else(|| ApiError::unavailable(format!("no service port {port:?} found for service {name:?}")))?,
    };
    let port_name = wanted.str_at(&["name"]).to_owned();
    let mut candidates = Vec::new();
    for item in server.collection("discovery.k8s.io", "endpointslices").list(&subject.namespace).await? {
        let slice = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        if meta::label(&slice, "kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let number = slice.list_at(&["ports"]).iter().find(|one| one.str_at(&["name"]) == port_name);
        let Some(number) = number.and_then(|one| one.int_at(&["port"])) else { continue };
        for endpoint in slice.list_at(&["endpoints"]) {
            if endpoint.bool_at(&["conditions", "ready"]) != Some(false)
                && let Some(ip) = endpoint.list_at(&["addresses"]).first().and_then(Tree::as_str)
            {
                candidates.push((ip.to_owned(), number));
            }
        }
    }
    let pick = server.random().below(candidates.len() as u64) as usize;
    let (ip, number) = candidates.get(pick).ok_or_else(unavailable)?;
    address(ip, *number)
}

/// Sends a request on and gives the answer as it comes; an upgrade becomes a pipe of bytes.
///
/// # Errors
/// 503 when the destination cannot be reached.
pub async fn send(server: &Arc<ApiServer>, mut call: Call, outgoing: Outgoing) -> ApiResult<Response<Body>> {
    let unreachable =
        |error: &dyn std::fmt::Display| ApiError::unavailable(format!("error trying to reach service: {error}"));
    let dialer = server.config.dialer.clone().ok_or_else(|| ApiError::unavailable("this server reaches no nodes"))?;
    let body = call.read_body().await?;
    let connection = dialer.dial(&outgoing.destination).await.map_err(|error| unreachable(&error))?;
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(|error| unreachable(&error))?;
    server.config.tasks.spawn("proxy", async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "proxied connection broke");
        }
    });
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = outgoing.method;
    *request.uri_mut() = outgoing.target.parse::<Uri>().map_err(|error| ApiError::bad_request(error.to_string()))?;
    *request.headers_mut() = pass_headers(&call.headers);
    let host = match &outgoing.destination {
        Destination::Kubelet { node } => node.clone(),
        Destination::Address(address) => address.to_string(),
    };
    request.headers_mut().insert(HOST, HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("localhost")));
    if call.upgrade.is_some()
        && let Some(protocol) = call.headers.get(UPGRADE)
    {
        request.headers_mut().insert(UPGRADE, protocol.clone());
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    let response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(pipe(server, call, response));
    }
    let (head, body) = response.into_parts();
    // The sender lives as long as the body: dropping it would end the connection.
    let stream = BodyDataStream::new(body).map(move |chunk| {
        let _ = &sender;
        chunk.map_err(|error| BodyError(error.to_string()))
    });
    let mut answer = Response::new(Body::Stream(stream.boxed()));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = pass_headers(&head.headers);
    if let Some(prefix) = &outgoing.prefix {
        rewrite_location(answer.headers_mut(), prefix);
    }
    Ok(answer)
}

fn pass_headers(headers: &HeaderMap) -> HeaderMap {
    let dropped = |name: &HeaderName| NOT_PASSED.contains(&name.as_str()) || name.as_str().starts_with("impersonate-");
    headers.iter().filter(|(name, _)| !dropped(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A redirect to a path of the target becomes one to a path of this server.
fn rewrite_location(headers: &mut HeaderMap, prefix: &str) {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(path) = location.filter(|location| location.starts_with('/') && !location.starts_with("//"))
        && let Ok(value) = HeaderValue::from_str(&format!("{prefix}{path}"))
    {
        headers.insert(LOCATION, value);
    }
}

/// Both sides have switched protocols: from here on bytes go through as they are.
fn pipe(server: &Arc<ApiServer>, mut call: Call, response: Response<Incoming>) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = pass_headers(response.headers());
    for name in [UPGRADE, CONNECTION] {
        if let Some(value) = response.headers().get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    let upstream = hyper::upgrade::on(response);
    if let Some(downstream) = call.upgrade.take() {
        server.config.tasks.spawn("pipe", async move {
            let (Ok(downstream), Ok(upstream)) = futures::join!(downstream, upstream) else { return };
            let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
            if let Err(error) = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await {
                tracing::debug!(%error, "piped connection broke");
            }
        });
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        assert_eq!(split_name("web"), ("", "web", ""));
        assert_eq!(split_name("web:80"), ("", "web", "80"));
        assert_eq!(split_name("http:web:80"), ("http", "web", "80"));
    }
}
