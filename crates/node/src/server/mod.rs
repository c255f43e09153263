//! The node's HTTPS server: logs, exec, attach, port-forward, pods and statistics.
//!
//! The API server shows a certificate of an authority that signs for nobody else; who shows none is
//! asked for a token and for what it allows ([`access`]).

pub(crate) mod access;
mod remote;
mod session;
mod spdy;
mod stats;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Pod;
use skiff_base::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use self::access::Caller;
use crate::logs::{self, Format};
use crate::mirror;
use crate::node::Node;
use crate::observed::{ContainerView, Run};
use crate::pod::PodView;

/// The TLS handshake must be over by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections served at a time.
const CONNECTIONS_MAX: usize = 1_024;
/// Log chunks that may wait for a slow reader.
const LOG_BUFFER: usize = 64;

/// A response body.
#[derive(Default)]
pub(crate) struct Body(Option<UnsyncBoxBody<Bytes, io::Error>>);

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Some(body) => std::pin::Pin::new(body).poll_frame(cx),
            None => std::task::Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.0.as_ref().map_or_else(|| hyper::body::SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

type Answer = Response<Body>;

fn empty(code: StatusCode) -> Answer {
    let mut response = Response::new(Body::default());
    *response.status_mut() = code;
    response
}

fn full(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut response = Response::new(Body(Some(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn error(code: StatusCode, message: impl Into<String>) -> Answer {
    full(code, "text/plain; charset=utf-8", message.into())
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => full(StatusCode::OK, "application/json", body),
        Err(cause) => error(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()),
    }
}

/// Serves `listener` until the node's tasks end.
pub(crate) fn start(node: &Arc<Node>, listener: TcpListener) {
    let serving = Arc::clone(node);
    node.tasks.spawn("server", async move {
        let permits = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let node = Arc::clone(&serving);
                    serving.tasks.spawn("connection", async move {
                        connection(node, stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "node server accepts no connection");
                    serving.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
}

async fn connection(node: Arc<Node>, stream: TcpStream) {
    drop(stream.set_nodelay(true));
    let result = match node.config.tls.clone() {
        Some(config) => {
            let accepted =
                tokio::time::timeout(HANDSHAKE_TIMEOUT, tokio_rustls::TlsAcceptor::from(config).accept(stream)).await;
            match accepted {
                Ok(Ok(stream)) => {
                    // The handshake has checked it: only the API server has one that passes.
                    let shown = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                    serve(node, stream, if shown { Caller::ApiServer } else { Caller::Unknown }).await
                }
                Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake with the node server failed"),
                Err(_) => return tracing::debug!("TLS handshake with the node server timed out"),
            }
        }
        // Without TLS there is nobody to tell apart: a test's own socket.
        None => serve(node, stream, Caller::ApiServer).await,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection to the node server broke off");
    }
}

async fn serve<S>(node: Arc<Node>, stream: S, caller: Caller) -> hyper::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let node = Arc::clone(&node);
        async move { Ok::<_, Infallible>(answer(&node, caller, request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
}

/// A request's query parameters, decoded.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "True" | "TRUE" | "t"))
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A container a request names.
pub(crate) struct Found {
    pub(crate) container_id: String,
    pub(crate) tty: bool,
}

async fn answer(node: &Arc<Node>, caller: Caller, request: Request<Incoming>) -> Answer {
    match access::check(node, caller, request.method(), request.uri().path(), request.headers()).await {
        Ok(()) => route(node, request).await,
        Err(refusal) => *refusal,
    }
}

async fn route(node: &Arc<Node>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let get = *request.method() == Method::GET;
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz"] if get => full(StatusCode::OK, "text/plain; charset=utf-8", "ok"),
        ["pods"] if get => pods(node, |_| true),
        ["runningpods"] if get => pods(node, |handle| handle.observed().any_running()),
        ["stats", "summary"] if get => stats::summary(node).await,
        ["metrics", "resource"] if get => stats::resource_metrics(node).await,
        ["metrics", "cadvisor"] if get => stats::cadvisor(node).await,
        ["metrics"] if get => stats::metrics(node),
        ["containerLogs", namespace, pod, container] if get => {
            container_logs(node, namespace, pod, container, &query).await
        }
        ["exec", namespace, pod, .., container] if parts.len() <= 5 => match find(node, namespace, pod, container) {
            Ok(found) => remote::session(node, remote::Kind::Exec, &found, &query, request).await,
            Err(answer) => *answer,
        },
        ["attach", namespace, pod, .., container] if parts.len() <= 5 => match find(node, namespace, pod, container) {
            Ok(found) => remote::session(node, remote::Kind::Attach, &found, &query, request).await,
            Err(answer) => *answer,
        },
        ["portForward", namespace, pod, ..] if parts.len() <= 4 => match sandbox(node, namespace, pod) {
            Ok(sandbox) => remote::forward(node, sandbox, &query, request).await,
            Err(answer) => *answer,
        },
        _ => error(StatusCode::NOT_FOUND, format!("404 page not found: {path}")),
    }
}

fn not_found(namespace: &str, pod: &str) -> Box<Answer> {
    Box::new(error(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found in namespace \"{namespace}\" on this node")))
}

fn handle_of(node: &Node, namespace: &str, pod: &str) -> Option<(Arc<PodView>, Arc<crate::observed::Observed>)> {
    let pod = node.pod_named(namespace, pod)?;
    let observed = node.pods.lock().get(&pod.uid)?.observed();
    Some((pod, observed))
}

fn find(node: &Node, namespace: &str, pod: &str, container: &str) -> Result<Found, Box<Answer>> {
    let (view, observed) = handle_of(node, namespace, pod).ok_or_else(|| not_found(namespace, pod))?;
    let spec = view
        .container(container)
        .ok_or_else(|| Box::new(error(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))))?;
    match observed.latest(container) {
        Some(found) if found.run == Run::Running => {
            Ok(Found { container_id: found.id.clone(), tty: spec.container.tty.unwrap_or(false) })
        }
        _ => Err(Box::new(error(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))),
    }
}

fn sandbox(node: &Node, namespace: &str, pod: &str) -> Result<String, Box<Answer>> {
    let (_, observed) = handle_of(node, namespace, pod).ok_or_else(|| not_found(namespace, pod))?;
    let sandbox = observed.ready_sandbox().map(|sandbox| sandbox.id.clone());
    sandbox.ok_or_else(|| Box::new(error(StatusCode::NOT_FOUND, format!("pod \"{pod}\" has no running sandbox"))))
}

fn pods(node: &Node, wanted: impl Fn(&crate::worker::Handle) -> bool) -> Answer {
    let items: Vec<Pod> =
        node.pods.lock().values().filter(|handle| wanted(handle)).map(|handle| (*handle.pod().pod).clone()).collect();
    json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn log_options(query: &Query, now: Timestamp) -> Result<logs::Options, String> {
    let number = |name: &str| match query.get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("invalid {name}: {text:?}")),
    };
    let since_seconds = number("sinceSeconds")?.map(|seconds| now.minus(Duration::from_secs(seconds)));
    let since_time = match query.get("sinceTime").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let time: k8s_openapi::jiff::Timestamp =
                text.parse().map_err(|_| format!("invalid sinceTime: {text:?}"))?;
            Some(Timestamp::from_nanos(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)))
        }
    };
    let stream = query.get("stream").filter(|stream| !matches!(*stream, "" | "All")).map(str::to_owned);
    Ok(logs::Options {
        follow: query.flag("follow"),
        tail_lines: number("tailLines")?,
        since: since_time.or(since_seconds),
        timestamps: query.flag("timestamps"),
        limit_bytes: number("limitBytes")?,
        stream,
    })
}

async fn container_logs(node: &Arc<Node>, namespace: &str, pod: &str, container: &str, query: &Query) -> Answer {
    let options = match log_options(query, node.clock.now()) {
        Ok(options) => options,
        Err(cause) => return error(StatusCode::BAD_REQUEST, cause),
    };
    let component = node.config.components.iter().find(|component| {
        namespace == mirror::NAMESPACE
            && pod.strip_suffix(&node.config.name).and_then(|rest| rest.strip_suffix('-')) == Some(&component.name)
    });
    if let Some(component) = component {
        return stream_log(node, component.log_path.clone(), Format::Plain, options, std::future::pending()).await;
    }
    let Some((view, observed)) = handle_of(node, namespace, pod) else { return *not_found(namespace, pod) };
    if view.container(container).is_none() {
        let message = format!("container \"{container}\" in pod \"{pod}\" is not available");
        return error(StatusCode::BAD_REQUEST, message);
    }
    let chosen = if query.flag("previous") { observed.previous(container) } else { observed.latest(container) };
    match chosen {
        Some(found) if !found.log_path.is_empty() => {
            let path = PathBuf::from(&found.log_path);
            let ended = container_end(node, &view, found);
            stream_log(node, path, Format::Cri, options, ended).await
        }
        _ if query.flag("previous") => {
            let message = format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
            error(StatusCode::BAD_REQUEST, message)
        }
        _ => {
            let message = format!(
                "container \"{container}\" in pod \"{pod}\" is waiting to start: {}",
                waiting_reason(&view, container)
            );
            error(StatusCode::BAD_REQUEST, message)
        }
    }
}

fn waiting_reason(view: &PodView, container: &str) -> String {
    let status = view.status();
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let waiting = all
        .find(|status| status.name == container)
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting.unwrap_or_else(|| "ContainerCreating".into())
}

/// Resolves when the container no longer runs.
fn container_end(
    node: &Arc<Node>,
    view: &PodView,
    container: &ContainerView,
) -> impl Future<Output = ()> + Send + use<> {
    let observed = node.pods.lock().get(&view.uid).map(crate::worker::Handle::watch_observed);
    let id = container.id.clone();
    async move {
        let Some(mut observed) = observed else { return };
        let ended = |observed: &Arc<crate::observed::Observed>| {
            !observed.containers.iter().any(|container| container.id == id && container.run == Run::Running)
        };
        drop(observed.wait_for(ended).await);
    }
}

async fn stream_log(
    node: &Arc<Node>,
    path: PathBuf,
    format: Format,
    options: logs::Options,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Answer {
    if let Err(cause) = tokio::fs::metadata(&path).await {
        return error(StatusCode::NOT_FOUND, format!("open {}: {cause}", path.display()));
    }
    let (out, mut chunks) = mpsc::channel(LOG_BUFFER);
    let clock = node.clock.clone();
    node.tasks.spawn("log", async move {
        logs::read(path, format, options, clock, ended, out).await;
    });
    let stream: BoxStream<'static, io::Result<Bytes>> =
        futures::stream::poll_fn(move |cx| chunks.poll_recv(cx)).boxed();
    let body = StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync();
    let mut response = Response::new(Body(Some(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
