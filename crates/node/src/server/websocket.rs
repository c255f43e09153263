//! WebSocket: the `channel.k8s.io` protocols, whose messages begin with a channel number, and the
//! tunnel that carries SPDY.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::session::{self, Input, Output};

/// The port-forward tunnel.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The largest message taken: clients send chunks of 32 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes within the tunnel before its writer waits.
const TUNNEL_BUFFER: usize = 64 << 10;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// An established WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The subprotocols of exec and attach, best first.
pub(super) const REMOTE: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];

/// Whether the request asks for a WebSocket.
pub(super) fn is_request(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

/// The first of `known` that the client offers; an empty one when it offers none.
pub(super) fn choose(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    if offered.is_empty() {
        return Some("");
    }
    known.iter().find(|known| offered.contains(known)).copied()
}

/// The answer that accepts the upgrade.
pub(super) fn accept<B: Default>(headers: &HeaderMap, protocol: &str) -> Response<B> {
    let mut response = Response::new(B::default());
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(key) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        out.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    if let Ok(protocol) = HeaderValue::from_str(protocol)
        && !protocol.is_empty()
    {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// The socket after the upgrade.
pub(super) async fn socket(upgraded: Upgraded) -> Socket {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// How messages of a subprotocol look.
#[derive(Clone, Copy)]
struct Dialect {
    base64: bool,
    /// The end is a `Status`, as of version 4; before it was text.
    status: bool,
    /// Channels can be closed one by one, as of version 5.
    close: bool,
}

impl Dialect {
    fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64"),
            status: protocol.starts_with("v4.") || protocol.starts_with("v5."),
            close: protocol.starts_with("v5."),
        }
    }

    fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data)));
        }
        let mut out = BytesMut::with_capacity(data.len() + 1);
        out.extend_from_slice(&[channel]);
        out.extend_from_slice(data);
        Message::Binary(out.freeze())
    }

    /// The channel and data of a message; `None` when it is neither.
    fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        let mut data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text.as_str().as_bytes().to_vec()),
            _ => return None,
        };
        if data.is_empty() {
            return None;
        }
        let channel = data.split_to(1)[0];
        if self.base64 {
            return Some((channel.checked_sub(b'0')?, STANDARD.decode(&data).ok()?.into()));
        }
        Some((channel, data))
    }
}

/// Carries one exec or attach over `socket`.
pub(super) async fn carry(
    socket: Socket,
    protocol: &str,
    input: mpsc::Sender<Input>,
    mut output: mpsc::Receiver<Output>,
    stdout: bool,
) {
    let dialect = Dialect::of(protocol);
    let (mut sink, mut stream) = socket.split();
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            let event = match dialect.decode(message) {
                Some((STDIN, data)) => Input::Stdin(data),
                Some((RESIZE, data)) => match session::terminal_size(&data) {
                    Some(size) => Input::Resize(size),
                    None => continue,
                },
                Some((CLOSE, data)) if dialect.close && data.first() == Some(&STDIN) => Input::StdinClosed,
                _ => continue,
            };
            if input.send(event).await.is_err() {
                break;
            }
        }
        // The client left: the session ends with its channel.
        drop(input);
    };
    let writing = async {
        // Clients wait for a first message to know that the streams are there.
        sink.send(dialect.encode(if stdout { STDOUT } else { STDERR }, b"")).await?;
        while let Some(event) = output.recv().await {
            let message = match event {
                Output::Stdout(data) => dialect.encode(STDOUT, &data),
                Output::Stderr(data) => dialect.encode(STDERR, &data),
                Output::Ended(status) => {
                    let text = if dialect.status { Some(status.to_string()) } else { plain(&status) };
                    if let Some(text) = text {
                        sink.send(dialect.encode(ERROR, text.as_bytes())).await?;
                    }
                    break;
                }
            };
            sink.send(message).await?;
        }
        sink.send(close()).await?;
        sink.close().await
    };
    let mut reading = std::pin::pin!(reading);
    let mut read_all = false;
    let mut writing = std::pin::pin!(writing);
    loop {
        tokio::select! {
            biased;
            result = &mut writing => {
                if let Err(error) = result {
                    tracing::debug!(%error, "exec connection broke off");
                }
                return;
            }
            () = &mut reading, if !read_all => read_all = true,
        }
    }
}

/// The end as it should be; clients log a missing code as an error.
fn close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// What versions before 4 send: nothing on success, else the message.
fn plain(status: &serde_json::Value) -> Option<String> {
    if status.get("status").and_then(serde_json::Value::as_str) == Some("Success") {
        return None;
    }
    status.get("message").and_then(serde_json::Value::as_str).map(str::to_owned)
}

/// The bytes within a tunnel: each binary message a piece of one stream.
///
/// Runs the tunnel together with `work` on the inner stream; ends with either.
pub(super) async fn tunnel<F>(socket: Socket, work: impl FnOnce(tokio::io::DuplexStream) -> F)
where
    F: Future<Output = ()>,
{
    let (outer, inner) = tokio::io::duplex(TUNNEL_BUFFER);
    let (mut reader, mut writer) = tokio::io::split(outer);
    let (mut sink, mut stream) = socket.split();
    let incoming = async {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(data) if writer.write_all(&data).await.is_ok() => {}
                Message::Binary(_) => break,
                Message::Close(_) => break,
                _ => {}
            }
        }
        drop(writer.shutdown().await);
    };
    let outgoing = async {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(read) => sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..read]))).await?,
            }
        }
        sink.send(close()).await?;
        Ok::<(), Error>(())
    };
    let work = work(inner);
    let ((), result, ()) = tokio::join!(incoming, outgoing, work);
    if let Err(error) = result {
        tracing::debug!(%error, "port-forward connection broke off");
    }
}

/// Legacy port-forward: for each port a data and an error channel, each opened with the port as
/// two little-endian bytes.
pub(super) async fn forward<F>(
    socket: Socket,
    protocol: &str,
    ports: &[u16],
    mut connect: impl FnMut(u16, mpsc::Receiver<Bytes>, mpsc::Sender<Bytes>, mpsc::Sender<Bytes>) -> F,
) where
    F: Future<Output = ()> + Send,
{
    let dialect = Dialect::of(protocol);
    let (mut sink, mut stream) = socket.split();
    let (out, mut outgoing) = mpsc::channel::<(u8, Bytes)>(session::BUFFER);
    let mut inputs = Vec::new();
    let mut work = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let data = u8::try_from(index * 2).unwrap_or(u8::MAX);
        let (sender, receiver) = mpsc::channel(session::BUFFER);
        inputs.push(sender);
        let (data_sender, mut data_receiver) = mpsc::channel::<Bytes>(session::BUFFER);
        let (error_sender, mut error_receiver) = mpsc::channel::<Bytes>(1);
        let connection = connect(*port, receiver, data_sender, error_sender);
        let (data_out, error_out, port) = (out.clone(), out.clone(), Bytes::copy_from_slice(&port.to_le_bytes()));
        work.push(async move {
            drop(data_out.send((data, port.clone())).await);
            drop(error_out.send((data + 1, port)).await);
            let data_pump = async {
                while let Some(bytes) = data_receiver.recv().await {
                    if data_out.send((data, bytes)).await.is_err() {
                        break;
                    }
                }
            };
            let error_pump = async {
                while let Some(bytes) = error_receiver.recv().await {
                    drop(error_out.send((data + 1, bytes)).await);
                }
            };
            tokio::join!(connection, data_pump, error_pump);
        });
    }
    drop(out);
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            let Some((channel, data)) = dialect.decode(message) else { continue };
            if channel % 2 == 0
                && let Some(input) = inputs.get(usize::from(channel / 2))
            {
                drop(input.send(data).await);
            }
        }
    };
    let writing = async {
        while let Some((channel, data)) = outgoing.recv().await {
            if sink.send(dialect.encode(channel, &data)).await.is_err() {
                return;
            }
        }
        drop(sink.close().await);
    };
    tokio::select! {
        biased;
        () = reading => {}
        () = async { tokio::join!(writing, futures::future::join_all(work)); } => {}
    }
}
