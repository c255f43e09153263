//! Listeners: TLS bytes become requests with a peer, answers become bytes.
//!
//! Several listeners may serve one server. Connections speak HTTP/2 or HTTP/1.1 by ALPN, may be
//! upgraded, and drain when the server stops: a watch ends cleanly, a request is answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use skiff_base::{Corked, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::authn::UserInfo;
use crate::authn::certificate::ClientCertificate;
use crate::body::{Body, RequestBody};
use crate::server::ApiServer;

mod inline;

use inline::Inline;

/// A client that does not finish its handshake in this time is cut.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not send its request head in this time is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Bytes of headers in one request, Go's default of 1 MiB.
const HEADER_BYTES_MAX: u32 = 1024 * 1024;
/// Headers in one request.
const HEADERS_MAX: usize = 256;
/// Connections at once on one listener: each costs memory before anybody is authenticated.
const CONNECTIONS_MAX: usize = 20_000;
/// How long connections may take to drain when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A caller in the same process, who already is somebody.
    Local(Arc<UserInfo>),
    /// A client on the network.
    Remote {
        /// Where it connects from.
        address: SocketAddr,
        /// Its certificate and what that is worth.
        certificate: Option<Arc<ClientCertificate>>,
    },
}

impl Peer {
    /// Where it connects from; `None` for a caller in the same process.
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        match self {
            Self::Local(_) => None,
            Self::Remote { address, .. } => Some(address.ip()),
        }
    }
}

/// Why a listener cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds no usable certificate or key.
    #[error("read {what}: {cause}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// Key and certificate do not go together.
    #[error("server certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client authority cannot verify anybody.
    #[error("client certificate authority: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Certificates for a listener, as PEM texts.
#[derive(Clone, Debug)]
pub struct TlsMaterial {
    /// The server's chain, its own certificate first.
    pub certificate: String,
    /// The key of the first certificate.
    pub key: String,
    /// Who signs client certificates; several may stand in one text. Empty takes none.
    pub client_authority: String,
}

/// The TLS configuration of a listener that is no API server's: TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1.
/// Where there is a client authority, clients must show a certificate of it: nothing behind such a
/// listener asks again.
///
/// # Errors
/// [`TlsError`] names the text that cannot be used.
pub fn tls_config(material: &TlsMaterial) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    listener_tls(material, WithoutCertificate::Refused)
}

/// As [`tls_config`], but clients may come without a certificate: what is behind the listener asks
/// them for something else. One that is shown must be of the authority.
///
/// # Errors
/// [`TlsError`] names the text that cannot be used.
pub fn tls_config_for_anybody(material: &TlsMaterial) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    listener_tls(material, WithoutCertificate::Taken)
}

/// What becomes of clients that show no certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WithoutCertificate {
    Refused,
    Taken,
}

fn listener_tls(material: &TlsMaterial, without: WithoutCertificate) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("server certificate", &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes())
        .map_err(|error| TlsError::Pem { what: "server key", cause: error.to_string() })?;
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = if material.client_authority.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("client certificate authority", &material.client_authority)? {
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = match without {
            WithoutCertificate::Refused => verifier,
            WithoutCertificate::Taken => verifier.allow_unauthenticated(),
        };
        builder.with_client_cert_verifier(verifier.build()?)
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS for a listener of an API server: `clients` says what is asked of clients.
pub(crate) fn api_tls(
    certificate: &str,
    key: &str,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = certificates("server certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| TlsError::Pem { what: "server key", cause: error.to_string() })?;
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { what, cause: error.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Pem { what, cause: "no certificate in it".into() });
    }
    Ok(found)
}

/// Accepts connections until the server stops, then drains them.
///
/// # Errors
/// When the listener itself fails; a failing connection only costs itself.
pub async fn serve(
    server: Arc<ApiServer>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    tasks: Tasks,
) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let stop = tasks.shutdown().clone();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return Ok(()) };
        let (stream, address) = match stop.until(listener.accept()).await {
            None => return Ok(()),
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) if is_passing(&error) => {
                tracing::warn!(%error, "accept failed");
                // Out of descriptors: waiting is all there is until a connection ends.
                server.clock().sleep(Duration::from_millis(50)).await;
                continue;
            }
            Some(Err(error)) => return Err(error),
        };
        let (server, acceptor, stop) = (Arc::clone(&server), acceptor.clone(), stop.clone());
        tasks.spawn_draining("connection", async move {
            let _permit = permit;
            connection(server, acceptor, stream, address, stop).await;
        });
    }
}

/// Errors of `accept` that concern one connection or a moment.
fn is_passing(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotConnected)
}

async fn connection(
    server: Arc<ApiServer>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    stop: skiff_base::Shutdown,
) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = match stop.until(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            return;
        }
        Some(Err(_)) | None => return,
    };
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(|chain| server.authn.inspect(chain)).map(Arc::new);
    let peer = Peer::Remote { address, certificate };
    let server_limits = server.config.limits.clone();
    let go_away = Arc::new(tokio::sync::Notify::new());
    let (chance, leaving) = (server_limits.goaway_chance, Arc::clone(&go_away));
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (Arc::clone(&server), peer.clone());
        let is_http2 = request.version() == http::Version::HTTP_2;
        let leaving = Arc::clone(&leaving);
        // This request and those that run are still answered; the client comes again elsewhere.
        if chance > 0.0 && is_http2 && server.random().unit() < chance {
            leaving.notify_one();
        }
        async move {
            let response = answer(&server, request, peer).await;
            // HTTP/2 has no such header: it says the same with GOAWAY.
            if is_http2 && response.headers().get(http::header::CONNECTION).is_some_and(|value| value == "close") {
                leaving.notify_one();
            }
            Ok::<Response<Body>, std::convert::Infallible>(response)
        }
    });
    // HTTP/1.1 may hand its connection on to users that flush once.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = if is_http2 { Corked::new(stream) } else { Corked::transparent(stream) };
    let builder = builder(server_limits.http2_streams_max);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break Some(ended),
            () = go_away.notified() => connection.as_mut().graceful_shutdown(),
            () = stop.wait() => break None,
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "connection broke");
    }
}

fn builder(streams_max: u32) -> auto::Builder<Inline> {
    let mut builder = auto::Builder::new(Inline);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(30));
    builder
}

async fn answer(server: &Arc<ApiServer>, mut request: Request<Incoming>, peer: Peer) -> Response<Body> {
    if !inline::is_short(&request) {
        inline::leave().await;
    }
    // HTTP/2 carries the host elsewhere; whoever looks for it looks in one place.
    if let Some(host) = request.uri().authority().and_then(|host| http::HeaderValue::try_from(host.as_str()).ok()) {
        request.headers_mut().entry(http::header::HOST).or_insert(host);
    }
    let upgrade = request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let mut request = request.map(RequestBody::Incoming);
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    server.handle(request, peer).await
}
