//! Another runtime behind its unix socket.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// A CRI v1 runtime reached over a unix socket; connects on first use and again after a loss.
#[derive(Clone, Debug)]
pub struct Remote {
    channel: Channel,
    socket: PathBuf,
}

impl Remote {
    /// The answer bound that the kubelet uses for CRI (16 MiB).
    pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

    /// The runtime that listens on `socket`, e.g. `/run/containerd/containerd.sock`.
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_path_buf();
        let connector = Connector(path.clone());
        // The authority is required by HTTP/2 and ignored by the servers.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self { channel, socket: path }
    }

    /// Where the runtime listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

#[derive(Clone)]
struct Connector(PathBuf);

impl tonic::codegen::Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(&path).await.map(TokioIo::new) })
    }
}
