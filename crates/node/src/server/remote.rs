//! exec, attach and port-forward: from a request to the runtime's streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use skiff_runtime::cri;
use skiff_runtime::streaming::Session;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::session::{self, Input, Output};
use super::spdy;
use super::{Answer, Found, Query, empty, error, websocket};
use crate::node::Node;

/// The SPDY subprotocols of exec and attach, best first.
const REMOTE_SPDY: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const FORWARD_SPDY: &[&str] = &["portforward.k8s.io"];
const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
/// How long a client may take to open the streams it said it would.
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Exec,
    Attach,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn of(query: &Query) -> Self {
        let tty = query.flag("tty");
        // A terminal has no separate stderr.
        Self {
            stdin: query.flag("input") || query.flag("stdin"),
            stdout: query.flag("output") || query.flag("stdout"),
            stderr: !tty && (query.flag("error") || query.flag("stderr")),
            tty,
        }
    }
}

/// Serves `/exec` and `/attach`.
pub(super) async fn session(
    node: &Arc<Node>,
    kind: Kind,
    found: &Found,
    query: &Query,
    request: http::Request<Incoming>,
) -> Answer {
    let wanted = Wanted::of(query);
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return error(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let headers = request.headers().clone();
    let socket = websocket::is_request(&headers);
    let protocol =
        if socket { websocket::choose(&headers, websocket::REMOTE) } else { spdy_protocol(&headers, REMOTE_SPDY) };
    let Some(protocol) = protocol else {
        return error(StatusCode::FORBIDDEN, "none of the offered subprotocols is supported");
    };
    let command = query.all("command");
    if kind == Kind::Exec && command.is_empty() {
        return error(StatusCode::BAD_REQUEST, "you must specify at least 1 command for the exec");
    }
    let session = match open(node, kind, found, command, wanted).await {
        Ok(session) => session,
        Err(status) => return error(http_code(&status), status.message()),
    };
    if socket {
        let response = websocket::accept(&headers, protocol);
        spawn_upgraded(node, request, move |upgraded| async move {
            let socket = websocket::socket(upgraded).await;
            let (input, events) = mpsc::channel(session::BUFFER);
            let (output, told) = mpsc::channel(session::BUFFER);
            let stdout = wanted.stdout || !wanted.stderr;
            tokio::join!(
                session::run(session, events, output),
                websocket::carry(socket, protocol, input, told, stdout)
            );
        });
        response
    } else {
        let response = spdy_accept(protocol);
        spawn_upgraded(node, request, move |upgraded| async move {
            let (accepted, streams) = mpsc::channel(8);
            let serving = spdy::serve(TokioIo::new(upgraded), accepted);
            let carrying = carry_spdy(session, wanted, protocol, streams);
            // The connection ends with the session, after what is left to send.
            tokio::select! {
                biased;
                result = serving => if let Err(error) = result {
                    tracing::debug!(%error, "exec connection broke off");
                },
                () = carrying => {}
            }
        });
        response
    }
}

fn http_code(status: &tonic::Status) -> StatusCode {
    match status.code() {
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn open(
    node: &Node,
    kind: Kind,
    found: &Found,
    command: Vec<String>,
    wanted: Wanted,
) -> Result<Session, tonic::Status> {
    let container_id = found.container_id.clone();
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    match kind {
        Kind::Exec => {
            node.streaming.exec(cri::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr }).await
        }
        Kind::Attach => {
            let tty = found.tty;
            node.streaming.attach(cri::AttachRequest { container_id, stdin, tty, stdout, stderr: stderr && !tty }).await
        }
    }
}

fn spdy_protocol(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !upgrade.to_ascii_lowercase().contains("spdy/3.1") {
        return None;
    }
    let offered: Vec<&str> = headers
        .get_all(PROTOCOL_VERSION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if offered.is_empty() {
        return known.last().copied();
    }
    known.iter().find(|known| offered.contains(known)).copied()
}

fn spdy_accept(protocol: &'static str) -> Answer {
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    response
}

fn spawn_upgraded<F>(
    node: &Arc<Node>,
    request: http::Request<Incoming>,
    work: impl FnOnce(hyper::upgrade::Upgraded) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    node.tasks.spawn("stream", async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => work(upgraded).await,
            Err(error) => tracing::debug!(%error, "connection not upgraded"),
        }
    });
}

async fn carry_spdy(session: Session, wanted: Wanted, protocol: &str, mut streams: mpsc::Receiver<spdy::Stream>) {
    let resizes = wanted.tty && matches!(protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let expected =
        1 + usize::from(wanted.stdin) + usize::from(wanted.stdout) + usize::from(wanted.stderr) + usize::from(resizes);
    let mut named = BTreeMap::new();
    let gather = async {
        while named.len() < expected {
            let Some(stream) = streams.recv().await else { return };
            named.insert(stream.header("streamtype").to_ascii_lowercase(), stream);
        }
    };
    if tokio::time::timeout(STREAMS_TIMEOUT, gather).await.is_err() || named.len() < expected {
        return tracing::debug!("the client did not open its streams in time");
    }
    let (input, events) = mpsc::channel(session::BUFFER);
    let (output, mut told) = mpsc::channel(session::BUFFER);
    let stdin = named.remove("stdin");
    let resize = named.remove("resize");
    let reading = async {
        let sizes = input.clone();
        let typed = async {
            if let Some(mut stream) = stdin {
                while let Some(data) = stream.input.recv().await {
                    drop(input.send(Input::Stdin(data)).await);
                }
                drop(input.send(Input::StdinClosed).await);
            }
        };
        let resized = async {
            if let Some(mut stream) = resize {
                while let Some(data) = stream.input.recv().await {
                    if let Some(size) = session::terminal_size(&data) {
                        drop(sizes.send(Input::Resize(size)).await);
                    }
                }
            }
        };
        tokio::join!(typed, resized);
        // The client is there until its connection ends, even with nothing to say.
        std::future::pending::<()>().await;
    };
    let full_status = protocol == "v4.channel.k8s.io";
    let writing = async {
        while let Some(event) = told.recv().await {
            let (name, data) = match event {
                Output::Stdout(data) => ("stdout", data),
                Output::Stderr(data) => ("stderr", data),
                Output::Ended(status) => {
                    let failed = status.get("status").and_then(|status| status.as_str()) != Some("Success");
                    let message = status.get("message").and_then(|message| message.as_str()).unwrap_or_default();
                    let text = if full_status { status.to_string() } else { message.to_owned() };
                    if let Some(stream) = named.get("error").filter(|_| failed || full_status) {
                        stream.output.send(Bytes::from(text)).await;
                    }
                    break;
                }
            };
            if let Some(stream) = named.get(name) {
                stream.output.send(data).await;
            }
        }
        for stream in named.values() {
            stream.output.end().await;
        }
        // The client closes the connection once it has read everything.
        while streams.recv().await.is_some() {}
    };
    tokio::select! {
        biased;
        ((), ()) = async { tokio::join!(session::run(session, events, output), writing) } => {}
        () = reading => {}
    }
}

/// Serves `/portForward`.
pub(super) async fn forward(
    node: &Arc<Node>,
    sandbox: String,
    query: &Query,
    request: http::Request<Incoming>,
) -> Answer {
    let headers = request.headers().clone();
    if websocket::is_request(&headers) {
        let known = &[websocket::TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
        let Some(protocol) = websocket::choose(&headers, known) else {
            return error(StatusCode::FORBIDDEN, "none of the offered subprotocols is supported");
        };
        let response = websocket::accept(&headers, protocol);
        let ports: Vec<u16> = query
            .all("port")
            .iter()
            .chain(&query.all("ports"))
            .flat_map(|list| list.split(','))
            .filter_map(|port| port.parse().ok())
            .collect();
        let tunnel = protocol == websocket::TUNNEL;
        if !tunnel && ports.is_empty() {
            return error(StatusCode::BAD_REQUEST, "query parameter \"port\" is required");
        }
        let node_of_task = Arc::clone(node);
        spawn_upgraded(node, request, move |upgraded| async move {
            let socket = websocket::socket(upgraded).await;
            if tunnel {
                websocket::tunnel(socket, |inner| forward_spdy(node_of_task, sandbox, inner)).await;
            } else {
                let connect = |port, input, output, problems| {
                    forward_legacy(Arc::clone(&node_of_task), sandbox.clone(), port, input, output, problems)
                };
                websocket::forward(socket, protocol, &ports, connect).await;
            }
        });
        return response;
    }
    if request.method() != Method::POST && request.method() != Method::GET {
        return error(StatusCode::METHOD_NOT_ALLOWED, "port-forward is a POST or a WebSocket");
    }
    let Some(protocol) = spdy_protocol(&headers, FORWARD_SPDY) else {
        return error(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request");
    };
    let response = spdy_accept(protocol);
    let node_of_task = Arc::clone(node);
    spawn_upgraded(node, request, move |upgraded| async move {
        forward_spdy(node_of_task, sandbox, TokioIo::new(upgraded)).await;
    });
    response
}

/// Forwards every pair of data and error stream of one SPDY connection.
async fn forward_spdy<S>(node: Arc<Node>, sandbox: String, io: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin,
{
    let (accepted, mut streams) = mpsc::channel::<spdy::Stream>(16);
    let pairs = node.tasks.group("forward");
    let pairing = async {
        let mut waiting: BTreeMap<String, spdy::Stream> = BTreeMap::new();
        while let Some(stream) = streams.recv().await {
            let request = stream.header("requestid").to_owned();
            let (data, problems) = match waiting.remove(&request) {
                None => {
                    waiting.insert(request, stream);
                    continue;
                }
                Some(other) if stream.header("streamtype") == "data" => (stream, other),
                Some(other) => (other, stream),
            };
            let Ok(port) = data.header("port").parse::<u16>() else { continue };
            pairs.spawn("connection", forward_pair(Arc::clone(&node), sandbox.clone(), port, data, problems));
        }
    };
    let (result, ()) = tokio::join!(spdy::serve(io, accepted), pairing);
    pairs.shutdown().signal();
    if let Err(error) = result {
        tracing::debug!(%error, "port-forward connection broke off");
    }
}

async fn forward_pair(node: Arc<Node>, sandbox: String, port: u16, mut data: spdy::Stream, problems: spdy::Stream) {
    match node.streaming.port_forward(&sandbox, port).await {
        Ok(connection) => {
            let (mut reader, mut writer) = (connection.reader, connection.writer);
            let upward = async {
                while let Some(bytes) = data.input.recv().await {
                    if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                        break;
                    }
                }
                drop(writer.shutdown().await);
            };
            let downward = async {
                let mut buffer = vec![0; 32 << 10];
                while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                    if !data.output.send(Bytes::copy_from_slice(&buffer[..read])).await {
                        break;
                    }
                }
                data.output.end().await;
            };
            // When the pod has closed, what the client still sends has nowhere to go.
            tokio::select! {
                biased;
                () = downward => {}
                () = async { upward.await; std::future::pending::<()>().await } => {}
            }
        }
        Err(status) => {
            let text = format!("error forwarding port {port} to pod {sandbox}: {}", status.message());
            problems.output.send(Bytes::from(text)).await;
            data.output.end().await;
        }
    }
    problems.output.end().await;
}

async fn forward_legacy(
    node: Arc<Node>,
    sandbox: String,
    port: u16,
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<Bytes>,
    problems: mpsc::Sender<Bytes>,
) {
    let connection = match node.streaming.port_forward(&sandbox, port).await {
        Ok(connection) => connection,
        Err(status) => {
            let text = format!("error forwarding port {port} to pod {sandbox}: {}", status.message());
            return drop(problems.send(Bytes::from(text)).await);
        }
    };
    let (mut reader, mut writer) = (connection.reader, connection.writer);
    let upward = async {
        while let Some(bytes) = input.recv().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        drop(writer.shutdown().await);
        std::future::pending::<()>().await;
    };
    let downward = async {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if output.send(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = downward => {}
        () = upward => {}
    }
}
