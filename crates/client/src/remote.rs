//! The API server across the network: TLS and HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use skiff_base::{Corked, Tasks};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Body, Endpoint, TransportError};

/// How long connecting (TCP and TLS) may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// A connection that answers no ping is given up, so that a watch over a dead link ends.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(15);

/// Streams on one connection before another is opened. Servers allow 100 to 250, and requests
/// beyond that would wait behind watches that never end.
const STREAMS_PER_CONNECTION: usize = 90;

/// What the server may send before it is read: on one stream, and on all of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// TLS asks for a quarter of a record at a time; this is asked of the system instead.
const READ_BYTES: usize = 64 * 1024;

/// Connections at the same time; beyond, streams share.
const CONNECTIONS_MAX: usize = 128;

/// What proves who we are.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// A client certificate chain and its key, PEM.
    Certificate {
        /// The chain.
        chain_pem: Vec<u8>,
        /// The key.
        key_pem: Vec<u8>,
    },
    /// A bearer token.
    Token(String),
}

/// Where a server is and how it is trusted.
#[derive(Clone, Default)]
pub struct Target {
    /// `https://host:port` with an optional path.
    pub server: String,
    /// The certificate authorities that may have signed the server's certificate, PEM.
    pub ca_pem: Vec<u8>,
    /// The name to expect in the certificate, when not the host.
    pub server_name: Option<String>,
    /// What proves who we are.
    pub credentials: Credentials,
}

/// Why a [`Target`] cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("connect to {server}: {cause}")]
pub struct TargetError {
    /// The server's address as given.
    pub server: String,
    /// What is wrong.
    pub cause: String,
}

/// An [`Endpoint`] over TLS. Connects when first used and again after a failure.
pub struct TlsEndpoint {
    host: String,
    port: u16,
    prefix: String,
    authority: String,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    authorization: Option<HeaderValue>,
    connections: Mutex<Vec<Arc<Connection>>>,
    connecting: tokio::sync::Mutex<()>,
    tasks: Tasks,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    streams: AtomicUsize,
}

/// Counts a stream for as long as its body lives.
struct Stream(Arc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TlsEndpoint {
    /// An endpoint for `target`; its connections run under `tasks`.
    ///
    /// # Errors
    /// When the address or the key material does not parse.
    pub fn new(target: &Target, tasks: Tasks) -> Result<Self, TargetError> {
        let fail = |cause: String| TargetError { server: target.server.clone(), cause };
        let uri: Uri = target.server.parse().map_err(|error| fail(format!("no address: {error}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(fail("the address does not begin with https://".into()));
        }
        let host = uri.host().unwrap_or("").trim_matches(['[', ']']).to_owned();
        let name = target.server_name.clone().unwrap_or_else(|| host.clone());
        let server_name = ServerName::try_from(name).map_err(|error| fail(error.to_string()))?;
        let config = tls_config(target).map_err(fail)?;
        let authorization = match &target.credentials {
            Credentials::Token(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| fail("the token holds characters a header may not".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
            _ => None,
        };
        let port = uri.port_u16().unwrap_or(443);
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(Self {
            host,
            port,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authority,
            server_name,
            tls: TlsConnector::from(Arc::new(config)),
            authorization,
            connections: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            tasks,
        })
    }

    /// A connection with room for one more stream, which is counted.
    async fn connection(&self) -> Result<Stream, String> {
        if let Some(stream) = self.reserve(STREAMS_PER_CONNECTION) {
            return Ok(stream);
        }
        // One at a time: many requests that start together shall share the new connection.
        let _one = self.connecting.lock().await;
        if let Some(stream) = self.reserve(STREAMS_PER_CONNECTION) {
            return Ok(stream);
        }
        if self.connections.lock().len() >= CONNECTIONS_MAX
            && let Some(stream) = self.reserve(usize::MAX)
        {
            return Ok(stream);
        }
        let connected = tokio::time::timeout(CONNECT_DEADLINE, self.connect()).await;
        let sender = connected.map_err(|_| format!("no connection within {} s", CONNECT_DEADLINE.as_secs()))??;
        let connection = Arc::new(Connection { sender, streams: AtomicUsize::new(1) });
        self.connections.lock().push(connection.clone());
        Ok(Stream(connection))
    }

    fn reserve(&self, streams_max: usize) -> Option<Stream> {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !connection.sender.is_closed());
        let least = connections.iter().min_by_key(|connection| connection.streams.load(Ordering::Relaxed))?;
        if least.streams.load(Ordering::Relaxed) >= streams_max {
            return None;
        }
        least.streams.fetch_add(1, Ordering::Relaxed);
        Some(Stream(least.clone()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let tcp = BufReader::with_capacity(READ_BYTES, tcp);
        let tls = self.tls.connect(self.server_name.clone(), tcp).await.map_err(|error| error.to_string())?;
        let executor = OnTasks(self.tasks.clone());
        let (sender, driver) = http2::Builder::new(executor)
            .timer(hyper_util::rt::TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_DEADLINE)
            .keep_alive_while_idle(false)
            .handshake(hyper_util::rt::TokioIo::new(Corked::new(tls)))
            .await
            .map_err(|error| error.to_string())?;
        let server = self.authority.clone();
        self.tasks.spawn("connection", async move {
            if let Err(error) = driver.await {
                tracing::debug!(server, %error, "connection ended");
            }
        });
        Ok(sender)
    }

    fn address(&self, request: &mut Request<Bytes>) -> Result<(), String> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("https://{}{}{path}", self.authority, self.prefix);
        *request.uri_mut() = uri.parse().map_err(|error| format!("no address: {error}"))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(http::header::AUTHORIZATION, authorization.clone());
        }
        Ok(())
    }
}

#[async_trait]
impl Endpoint for TlsEndpoint {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let path = request.uri().path().to_owned();
        let attempt = format!("{} {path} at {}", request.method(), self.authority);
        let fail = |cause: String| TransportError { attempt: attempt.clone(), cause };
        self.address(&mut request).map_err(fail)?;
        let stream = self.connection().await.map_err(fail)?;
        let mut sender = stream.0.sender.clone();
        let answer = sender.send_request(request.map(Full::new)).await.map_err(|error| fail(error.to_string()))?;
        let (head, body) = answer.into_parts();
        let body = body.into_data_stream().map(move |chunk| {
            let _held = &stream;
            chunk.map_err(|error| TransportError { attempt: attempt.clone(), cause: error.to_string() })
        });
        Ok(Response::from_parts(head, body.boxed()))
    }
}

#[derive(Clone)]
struct OnTasks(Tasks);

impl<F> hyper::rt::Executor<F> for OnTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http2", future);
    }
}

fn tls_config(target: &Target) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&target.ca_pem, "certificate authority")? {
        roots.add(certificate).map_err(|error| format!("certificate authority: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match &target.credentials {
        Credentials::Certificate { chain_pem, key_pem } => {
            let chain = certificates(chain_pem, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| format!("client key: {error}"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("client certificate: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| format!("{what}: {error}"))
}
