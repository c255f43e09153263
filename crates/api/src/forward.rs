//! Passing a request on to another server: kubelets, pods, Services, aggregated API servers.
//!
//! Bodies stream both ways, an upgrade becomes a pipe of bytes, and dropping the answer drops the
//! connection. What the client proved to this server (credentials, impersonation, front-proxy
//! headers) never leaves it. Headers, redirects, links and errors are those of upstream's
//! `k8s.io/apimachinery/pkg/util/proxy` over Go's reverse proxy.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONNECTION, HOST, HeaderMap, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyDataStream, Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::body::{Body, BodyError, RequestBody};
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::outbound;
use crate::proxy::{Connection, Destination};
use crate::server::ApiServer;

mod headers;
mod html;
pub mod location;

pub(crate) use headers::{answered, forwarded_for, is_upgrade, passed};
pub use location::Rewrite;

/// A destination that does not accept in this time counts as unreachable, as in upstream's dialer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes on their way between two upgraded connections, in each direction.
const PIPE_BYTES: usize = 32 * 1024;

/// A request on its way out.
pub struct Outgoing {
    /// Where it goes.
    pub destination: Destination,
    /// What is spoken to an address; the way to a kubelet brings its own TLS.
    pub scheme: Scheme,
    /// Path and query; an empty path is the root of the other server.
    pub target: String,
    /// The method.
    pub method: Method,
    /// Headers that are set in place of what the client sent under these names.
    pub headers: HeaderMap,
    /// The `Host` to say; the client's own when there is none.
    pub host: Option<String>,
    /// How paths of the other server appear below paths of this one, where they do.
    pub rewrite: Option<Rewrite>,
    /// Whether a request makes sense only as an upgrade (`exec`).
    pub upgrade: Upgrade,
}

/// What an address is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP.
    Plain,
    /// HTTPS with whoever answers: pods and Services show certificates of nobody in particular,
    /// and upstream's proxy asks them for none.
    Tls,
}

/// What a destination makes of upgrades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// A client may ask for one.
    Welcome,
    /// Without one there is nothing to do.
    Required,
}

impl Outgoing {
    /// A request as the client sent it, to `target` at `destination`.
    pub fn new(destination: Destination, method: Method, target: String) -> Self {
        Self {
            destination,
            scheme: Scheme::Plain,
            target,
            method,
            headers: HeaderMap::new(),
            host: None,
            rewrite: None,
            upgrade: Upgrade::Welcome,
        }
    }
}

/// Sends a request on and gives the answer as it comes.
///
/// # Errors
/// 503 when the destination cannot be reached, 400 when an upgrade is needed and not asked for,
/// 500 when an upgrade fails.
pub async fn forward(server: &Arc<ApiServer>, mut call: Call, outgoing: Outgoing) -> ApiResult<Response<Body>> {
    let upgrade = headers::is_upgrade(&call.headers).then(|| call.upgrade.take()).flatten();
    if upgrade.is_none() && outgoing.upgrade == Upgrade::Required {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let path_is_empty = outgoing.target.is_empty() || outgoing.target.starts_with('?');
    if upgrade.is_none() && path_is_empty && matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(location::to_slash(&call.info.path, &call.query));
    }
    let request = request(&mut call, &outgoing, upgrade.is_some())?;
    match upgrade {
        None => exchange(server, request, &outgoing).await,
        Some(upgrade) => switch(server, request, &outgoing, upgrade).await,
    }
}

type OutgoingBody = Either<Full<Bytes>, Incoming>;

/// The request as the destination gets it.
fn request(call: &mut Call, outgoing: &Outgoing, upgrade: bool) -> ApiResult<Request<OutgoingBody>> {
    let body = match call.body.take() {
        Some(RequestBody::Incoming(incoming)) => Either::Right(incoming),
        Some(RequestBody::Whole(bytes)) => Either::Left(Full::new(bytes)),
        None => Either::Left(Full::default()),
    };
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    let target =
        if outgoing.target.starts_with('/') { outgoing.target.clone() } else { format!("/{}", outgoing.target) };
    *request.uri_mut() = target.parse::<Uri>().map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut headers = headers::passed(&call.headers);
    if upgrade && let Some(protocol) = call.headers.get(UPGRADE) {
        headers.insert(UPGRADE, protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if let Some(address) = call.remote {
        headers::forwarded_for(&mut headers, address);
    }
    if !upgrade && let Some(rewrite) = &outgoing.rewrite {
        rewrite.describe(&mut headers, request.uri().path());
    }
    let fallback = || address_text(&outgoing.destination);
    let host = match &outgoing.host {
        Some(host) => Some(host.clone()),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned),
    };
    let host = HeaderValue::try_from(host.unwrap_or_else(fallback))
        .map_err(|error| ApiError::bad_request(format!("host: {error}")))?;
    headers.insert(HOST, host);
    for (name, value) in &outgoing.headers {
        headers.append(name, value.clone());
    }
    *request.headers_mut() = headers;
    Ok(request)
}

fn address_text(destination: &Destination) -> String {
    match destination {
        Destination::Kubelet { node } => node.clone(),
        Destination::Address(address) => address.to_string(),
    }
}

fn unreachable(error: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {error}"))
}

/// An error without a reason, as upstream makes of what is no API error.
fn failed(message: String) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}

/// One request, one answer; both bodies stream.
async fn exchange(
    server: &Arc<ApiServer>,
    request: Request<OutgoingBody>,
    outgoing: &Outgoing,
) -> ApiResult<Response<Body>> {
    let request_host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("").to_owned();
    let connection = connect(server, outgoing).await.map_err(unreachable)?;
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(unreachable)?;
    server.config.tasks.spawn("proxy", async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "proxied connection broke");
        }
    });
    let response = sender.send_request(request).await.map_err(|error| unreachable(cause(&error)))?;
    let (head, body) = response.into_parts();
    // The sender lives as long as the body: dropping it would end the connection.
    let stream = BodyDataStream::new(body).map(move |chunk| {
        let _ = &sender;
        chunk.map_err(|error| BodyError(error.to_string()))
    });
    let mut answer = Response::new(Body::Stream(stream.boxed()));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = headers::answered(&head.headers);
    match &outgoing.rewrite {
        None => Ok(answer),
        Some(rewrite) => {
            let rewrite = rewrite.between(&address_text(&outgoing.destination), &request_host);
            Ok(rewrite.answer(answer))
        }
    }
}

/// What went wrong below hyper's own words.
fn cause(error: &hyper::Error) -> String {
    use std::error::Error;
    match error.source() {
        // Go's words for a server that hangs up before it answers.
        None if error.is_incomplete_message() => "EOF".to_owned(),
        None => error.to_string(),
        Some(cause) => cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), io_text),
    }
}

/// An upgrade: when the other side switches too, bytes go through as they are.
async fn switch(
    server: &Arc<ApiServer>,
    request: Request<OutgoingBody>,
    outgoing: &Outgoing,
    downstream: OnUpgrade,
) -> ApiResult<Response<Body>> {
    let connection =
        connect(server, outgoing).await.map_err(|error| failed(format!("error dialing backend: {error}")))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await;
    let (mut sender, driver) = handshake.map_err(|error| failed(format!("error dialing backend: {error}")))?;
    server.config.tasks.spawn("proxy", async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "proxied connection broke");
        }
    });
    let sent = sender.send_request(request).await;
    let response = sent.map_err(|error| failed(format!("error sending request: {}", cause(&error))))?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(pipe(server, response, downstream));
    }
    if status.as_u16() < 400 {
        return Err(failed(format!("invalid upgrade response: status code {}", status.as_u16())));
    }
    let (head, body) = response.into_parts();
    let stream = BodyDataStream::new(body).map(move |chunk| {
        let _ = &sender;
        chunk.map_err(|error| BodyError(error.to_string()))
    });
    let mut answer = Response::new(Body::Stream(stream.boxed()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers::answered(&head.headers);
    Ok(answer)
}

/// Both sides have switched protocols: from here on bytes go through as they are.
pub(crate) fn pipe(server: &Arc<ApiServer>, response: Response<Incoming>, downstream: OnUpgrade) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers::answered(response.headers());
    for name in [UPGRADE, CONNECTION] {
        if let Some(value) = response.headers().get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    let upstream = hyper::upgrade::on(response);
    let shutdown = server.config.tasks.shutdown().clone();
    server.config.tasks.spawn("pipe", async move {
        let both = async { futures::join!(downstream, upstream) };
        let Some((Ok(downstream), Ok(upstream))) = shutdown.until(both).await else { return };
        shutdown.until(copy_both(TokioIo::new(downstream), TokioIo::new(upstream))).await;
    });
    answer
}

/// Copies both ways until either side has sent its last byte: a client that is gone must not
/// leave a connection behind whose other end never closes.
async fn copy_both(one: impl AsyncRead + AsyncWrite + Unpin, other: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut one_read, mut one_write) = tokio::io::split(one);
    let (mut other_read, mut other_write) = tokio::io::split(other);
    let ended = tokio::select! {
        biased;
        ended = copy(&mut other_read, &mut one_write) => ended,
        ended = copy(&mut one_read, &mut other_write) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "piped connection broke");
    }
    // Both have ended or broken: what these say is of no use to anybody.
    drop(one_write.shutdown().await);
    drop(other_write.shutdown().await);
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut from = tokio::io::BufReader::with_capacity(PIPE_BYTES, from);
    tokio::io::copy_buf(&mut from, to).await?;
    to.flush().await
}

/// Connects, in Go's words when it fails: they are what people search for.
async fn connect(server: &ApiServer, outgoing: &Outgoing) -> Result<Box<dyn Connection>, String> {
    let dialer = server.config.dialer.as_ref().ok_or("this server reaches no nodes")?;
    let place = match &outgoing.destination {
        Destination::Kubelet { node } => node.clone(),
        Destination::Address(address) => address.to_string(),
    };
    let dialed = tokio::time::timeout(DIAL_TIMEOUT, dialer.dial(&outgoing.destination)).await;
    let connection = match dialed {
        Err(_) => return Err(format!("dial tcp {place}: i/o timeout")),
        Ok(Err(error)) => return Err(format!("dial tcp {place}: {}", io_text(&error))),
        Ok(Ok(connection)) => connection,
    };
    let Destination::Address(address) = outgoing.destination else { return Ok(connection) };
    if outgoing.scheme == Scheme::Plain {
        return Ok(connection);
    }
    let config = server.outbound.tls_to_anybody().map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(address.ip().into());
    match tokio::time::timeout(DIAL_TIMEOUT, TlsConnector::from(config).connect(name, connection)).await {
        Err(_) => Err("net/http: TLS handshake timeout".to_owned()),
        Ok(Err(error)) => Err(outbound::Error::handshake(&error).to_string()),
        Ok(Ok(connection)) => Ok(Box::new(connection)),
    }
}

/// The kernel's errors as Go writes them.
fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
        io::ErrorKind::UnexpectedEof => "EOF".into(),
        _ => error.to_string(),
    }
}

/// Whether a proxied address may be connected to: nothing of this machine itself and nothing that
/// is not one machine's (upstream's `IsGlobalUnicast`).
pub fn is_allowed(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            let link_local = ip.segments()[0] & 0xffc0 == 0xfe80;
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
        }
    }
}
