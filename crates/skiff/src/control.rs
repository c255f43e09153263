//! The socket on which a running server takes commands of this machine's root: its state, its
//! images, and the order to stop. HTTP/1.1 over a unix socket.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use skiff_base::Tasks;
use tokio::net::{UnixListener, UnixStream};

/// An answer is never longer than this.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What a running server says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The server's process.
    pub pid: u32,
    /// The version of its binary.
    pub version: String,
    /// Where `kubectl` finds it.
    pub server: String,
    /// Whether the start is complete.
    pub ready: bool,
    /// How long it took until the node was Ready, in milliseconds.
    pub ready_millis: Option<u64>,
    /// The nodes of this process.
    pub nodes: Vec<String>,
}

/// An image of the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Bytes on disk, layers shared with other images included.
    pub size: u64,
}

/// The chunks of an uploaded archive.
pub type Upload = futures::stream::BoxStream<'static, std::io::Result<Bytes>>;

/// What the socket can do; the running server implements it.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Its state.
    async fn state(&self) -> State;
    /// Begins an orderly stop.
    async fn stop(&self);
    /// Loads the images of an archive; gives their names.
    async fn load_images(&self, archive: Upload) -> Result<Vec<String>>;
    /// Pulls an image; gives its id.
    async fn pull_image(&self, reference: &str) -> Result<String>;
    /// All images.
    async fn images(&self) -> Result<Vec<Image>>;
    /// Removes an image.
    async fn remove_image(&self, reference: &str) -> Result<()>;
}

/// Serves `handler` on the socket `path` for as long as `tasks` live.
pub fn serve(path: &Path, handler: Arc<dyn Handler>, tasks: &Tasks) -> Result<()> {
    let attempt = || format!("listen on {}", path.display());
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(attempt),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(attempt)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(attempt)?;
    let connections = tasks.group("control");
    tasks.spawn("control", async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    connections.spawn("connection", async move {
                        let service = service_fn(|request| {
                            let handler = Arc::clone(&handler);
                            async move { Ok::<_, Infallible>(respond(handler, request).await) }
                        });
                        let served =
                            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                        if let Err(error) = served.await {
                            tracing::debug!(%error, "control connection ended");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "accept on the control socket"),
            }
        }
    });
    Ok(())
}

async fn respond(handler: Arc<dyn Handler>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = match dispatch(&*handler, request).await {
        Ok(Some(body)) => (StatusCode::OK, body),
        Ok(None) => (StatusCode::NOT_FOUND, b"no such command".to_vec()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}").into_bytes()),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.1)));
    *response.status_mut() = answer.0;
    response
}

async fn dispatch(handler: &dyn Handler, request: Request<Incoming>) -> Result<Option<Vec<u8>>> {
    let reference = request.uri().path().strip_prefix("/images/").map(ToOwned::to_owned);
    Ok(Some(match (request.method(), request.uri().path()) {
        (&Method::GET, "/state") => serde_json::to_vec(&handler.state().await)?,
        (&Method::POST, "/stop") => {
            handler.stop().await;
            b"{}".to_vec()
        }
        (&Method::GET, "/images") => serde_json::to_vec(&handler.images().await?)?,
        (&Method::POST, "/images") => {
            let frames = request.into_body().into_data_stream().map_err(std::io::Error::other);
            serde_json::to_vec(&handler.load_images(Box::pin(frames)).await?)?
        }
        (&Method::PUT, _) if reference.is_some() => {
            serde_json::to_vec(&handler.pull_image(&reference.unwrap_or_default()).await?)?
        }
        (&Method::DELETE, _) if reference.is_some() => {
            handler.remove_image(&reference.unwrap_or_default()).await?;
            b"{}".to_vec()
        }
        _ => return Ok(None),
    }))
}

/// Why nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoServer {
    /// Nobody listens.
    Absent,
    /// It went away before it had answered.
    Gone,
}

impl std::fmt::Display for NoServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "the cluster does not run; start it with: skiff up",
            Self::Gone => "the server ended before it answered; see: skiff logs",
        })
    }
}

/// Speaks to the server behind a control socket.
pub struct Client<'a> {
    socket: &'a Path,
}

impl<'a> Client<'a> {
    /// A client of the server on `socket`.
    pub fn new(socket: &'a Path) -> Self {
        Self { socket }
    }

    /// The server's state; `None` when no server listens.
    pub async fn state(&self) -> Result<Option<State>> {
        match self.call(Method::GET, "/state", empty()).await {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.is::<NoServer>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the server to stop.
    pub async fn stop(&self) -> Result<()> {
        let _: serde_json::Value = self.call(Method::POST, "/stop", empty()).await?;
        Ok(())
    }

    /// Sends an archive; gives the names of the images that it held.
    pub async fn load_images(&self, archive: Upload) -> Result<Vec<String>> {
        self.call(Method::POST, "/images", UnsyncBoxBody::new(StreamBody::new(archive.map_ok(Frame::data)))).await
    }

    /// Has an image pulled; gives its id.
    pub async fn pull_image(&self, reference: &str) -> Result<String> {
        self.call(Method::PUT, &format!("/images/{reference}"), empty()).await
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<Image>> {
        self.call(Method::GET, "/images", empty()).await
    }

    /// Removes an image.
    pub async fn remove_image(&self, reference: &str) -> Result<()> {
        let _: serde_json::Value = self.call(Method::DELETE, &format!("/images/{reference}"), empty()).await?;
        Ok(())
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: UnsyncBoxBody<Bytes, std::io::Error>,
    ) -> Result<T> {
        let stream = UnixStream::connect(self.socket).await.context(NoServer::Absent)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context(NoServer::Gone)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "skiff")
            .body(body)
            .context("make the request")?;
        let exchange = async {
            let response = sender.send_request(request).await.context(NoServer::Gone)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!("read the server's answer: {error}").context(NoServer::Gone))?
                .to_bytes();
            if !status.is_success() {
                bail!("{}", String::from_utf8_lossy(&body));
            }
            serde_json::from_slice(&body).context("read the server's answer")
        };
        // The connection is driven by hand: a task of its own would outlive this call.
        tokio::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                answer = &mut exchange => return answer,
                ended = &mut connection, if open => {
                    open = false;
                    ended.context(NoServer::Gone)?;
                }
            }
        }
    }
}

fn empty() -> UnsyncBoxBody<Bytes, std::io::Error> {
    UnsyncBoxBody::new(Full::default().map_err(|never| match never {}))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use skiff_base::Shutdown;

    use super::*;

    struct Fake;

    #[async_trait]
    impl Handler for Fake {
        async fn state(&self) -> State {
            State { pid: 7, version: "v".into(), server: "s".into(), ready: true, ready_millis: Some(1), nodes: vec![] }
        }
        async fn stop(&self) {}
        async fn load_images(&self, mut archive: Upload) -> Result<Vec<String>> {
            let mut bytes = 0;
            while let Some(chunk) = archive.next().await {
                bytes += chunk?.len();
            }
            Ok(vec![bytes.to_string()])
        }
        async fn pull_image(&self, reference: &str) -> Result<String> {
            Ok(reference.to_owned())
        }
        async fn images(&self) -> Result<Vec<Image>> {
            bail!("list images in /x: disk on fire")
        }
        async fn remove_image(&self, _: &str) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_server_that_is_killed_while_it_is_asked_is_no_server() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let dying = async {
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            drop(stream); // what was sent is unread: the other side sees a reset
        };
        let client = Client::new(&socket);
        let (state, ()) = tokio::join!(client.state(), dying);
        assert_eq!(state.unwrap(), None);
    }

    #[tokio::test]
    async fn commands_cross_the_socket_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let client = Client::new(&socket);
        assert_eq!(client.state().await.unwrap(), None);
        assert!(client.images().await.unwrap_err().to_string().contains("skiff up"));
        let tasks = Tasks::new("test", Shutdown::new());
        serve(&socket, Arc::new(Fake), &tasks).unwrap();
        assert_eq!(client.state().await.unwrap().unwrap().pid, 7);
        assert_eq!(client.pull_image("reg:5000/a/b:c@sha256:x").await.unwrap(), "reg:5000/a/b:c@sha256:x");
        let upload = futures::stream::iter((0..100).map(|_| Ok(Bytes::from_static(&[0; 1000])))).boxed();
        assert_eq!(client.load_images(upload).await.unwrap(), ["100000"]);
        assert_eq!(client.images().await.unwrap_err().to_string(), "list images in /x: disk on fire");
        tasks.stop().await;
    }
}
