//! exec, attach and port-forward as in-process byte streams.
//!
//! CRI's own `Exec`, `Attach` and `PortForward` answer a URL of a streaming server. Inside one
//! process the detour is pointless: the kubelet speaks WebSocket and SPDY to the world and takes
//! plain streams from here.

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

use crate::cri::{AttachRequest, ExecRequest};

/// Bytes from a process.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Bytes to a process; shutting it down closes the process's end.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// How many terminal sizes may wait for the process; a slower one sees the latest few.
pub const RESIZE_BUFFER: usize = 4;

/// The streams of a started exec or of an attach. Streams that were not asked for are `None`;
/// with a terminal, everything arrives on `stdout`.
pub struct Session {
    /// To the process's standard input.
    pub stdin: Option<Writer>,
    /// From the process's standard output.
    pub stdout: Option<Reader>,
    /// From the process's standard error.
    pub stderr: Option<Reader>,
    /// New terminal sizes; ignored without a terminal.
    pub resize: tokio::sync::mpsc::Sender<TerminalSize>,
    /// The exit code: 128 + signal for a killed process. For an attach it resolves when the
    /// container ends. Dropping the session before that ends an exec'd process (SIGKILL) and
    /// only detaches from a container.
    pub exit: BoxFuture<'static, Result<i32, Status>>,
}

/// A connection to a port inside a sandbox.
pub struct Connection {
    /// From the port.
    pub reader: Reader,
    /// To the port.
    pub writer: Writer,
}

/// Streaming calls of the embedded runtime.
#[async_trait]
pub trait Streaming: Send + Sync + 'static {
    /// Starts a process in a running container.
    async fn exec(&self, request: ExecRequest) -> Result<Session, Status>;

    /// Attaches to the main process of a running container.
    async fn attach(&self, request: AttachRequest) -> Result<Session, Status>;

    /// Connects to `port` on the loopback interface of a sandbox's network namespace.
    async fn port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Connection, Status>;
}
