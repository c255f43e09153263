//! Reaching the members of an etcd cluster: TLS, deadlines, another member when one fails.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use skiff_base::Clock;
use skiff_store::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::proto::etcdserverpb::StatusRequest;
use crate::proto::etcdserverpb::maintenance_client::MaintenanceClient;

/// How long a member may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A member that answers no ping for [`PING_TIMEOUT`] after an idle [`PING_INTERVAL`] is given up
/// with everything that waits for it: a stopped process keeps its connections open.
const PING_INTERVAL: Duration = Duration::from_secs(3);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// One try of a call. Longer than an election and a slow disk take.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);

/// A call with all its tries; below what kube-apiserver gives a request.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Between tries, doubled up to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What may be under way on one connection and on one stream: a list must not wait for round
/// trips.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// Files for TLS, PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Whom to trust (`--etcd-cafile`).
    pub authority: Vec<u8>,
    /// The client certificate (`--etcd-certfile`) and its key (`--etcd-keyfile`).
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tls").field("has_identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// The members of a cluster, one of which is in use.
#[derive(Debug)]
pub(crate) struct Members {
    members: Vec<Member>,
    /// Counts up; the member in use is this modulo their number.
    current: AtomicUsize,
    clock: Clock,
}

#[derive(Debug)]
struct Member {
    name: String,
    channel: Channel,
}

/// The member that a call or a watch uses.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) channel: Channel,
    pub(crate) name: String,
    turn: usize,
}

/// Whether a call may be made again when it is unknown whether it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Always,
    /// Only when it certainly did not happen.
    IfUnsent,
}

impl Members {
    /// # Errors
    /// An endpoint or the TLS material cannot be used.
    pub(crate) fn new(endpoints: &[String], tls: Option<&Tls>, clock: Clock) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::Invalid("no etcd endpoint is given".into()));
        }
        let tls = tls.map(client_tls).transpose()?;
        let members = endpoints.iter().map(|endpoint| Member::new(endpoint, tls.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { members, current: AtomicUsize::new(0), clock })
    }

    /// The member in use.
    pub(crate) fn choose(&self) -> Chosen {
        let turn = self.current.load(Ordering::Relaxed);
        let member = &self.members[turn % self.members.len()];
        Chosen { channel: member.channel.clone(), name: member.name.clone(), turn }
    }

    /// Goes on to the next member, unless another call has done so.
    pub(crate) fn give_up(&self, chosen: &Chosen) {
        let next = chosen.turn.wrapping_add(1);
        let _ = self.current.compare_exchange(chosen.turn, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Makes a call, on other members if the one in use fails, within [`CALL_TIMEOUT`].
    pub(crate) async fn call<T, F>(&self, again: Again, make: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begin = self.clock.instant();
        let mut backoff = Backoff::default();
        loop {
            let chosen = self.choose();
            let result = match tokio::time::timeout(TRY_TIMEOUT, make(chosen.channel.clone())).await {
                Ok(result) => result,
                Err(_) => Err(Status::deadline_exceeded(format!("{} did not answer in time", chosen.name))),
            };
            let status = match result {
                Ok(value) => return Ok(value),
                Err(status) if !is_members_fault(&status) => return Err(status),
                Err(status) => status,
            };
            self.give_up(&chosen);
            let may_repeat = again == Again::Always || certainly_unsent(&status);
            if !may_repeat || begin.elapsed() + backoff.next > CALL_TIMEOUT {
                return Err(status);
            }
            tracing::debug!(member = chosen.name, %status, "etcd call failed, trying again");
            self.clock.sleep(backoff.take()).await;
        }
    }

    /// Whether the member tells on demand how far a watch has come, and never too far:
    /// kube-apiserver trusts etcd with that from 3.4.31 and 3.5.13 on.
    pub(crate) async fn tells_progress(&self, chosen: &Chosen) -> bool {
        let mut client = MaintenanceClient::new(chosen.channel.clone());
        let status = tokio::time::timeout(TRY_TIMEOUT, client.status(StatusRequest {})).await;
        matches!(status, Ok(Ok(status)) if progress_is_sound(&status.get_ref().version))
    }
}

/// Waiting longer after each failure.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: BACKOFF_MIN }
    }
}

impl Backoff {
    pub(crate) fn take(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(BACKOFF_MAX);
        wait
    }
}

fn progress_is_sound(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = core.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(3), Some(4), Some(patch)) => patch >= 31,
        (Some(3), Some(5), Some(patch)) => patch >= 13,
        (Some(3), Some(minor), Some(_)) => minor > 5,
        (Some(major), ..) => major > 3,
        _ => false,
    }
}

/// Whether another member may do better.
fn is_members_fault(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled)
        || (status.code() == Code::ResourceExhausted && status.message().ends_with("too many requests"))
        || (status.code() == Code::FailedPrecondition && status.message().ends_with("not leader"))
        || status.message().ends_with("rpc not supported for learner")
        // A connection that broke in the middle of an answer.
        || (status.code() == Code::Internal && std::error::Error::source(status).is_some())
}

/// Whether the member was not reached, or refused before it did anything.
fn certainly_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    status.code() == Code::ResourceExhausted || status.message().ends_with("rpc not supported for learner")
}

impl Member {
    fn new(endpoint: &str, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<Self, Error> {
        let invalid = |why: String| Error::Invalid(format!("etcd endpoint {endpoint}: {why}"));
        let (target, authority) = Target::parse(endpoint, tls).map_err(invalid)?;
        let channel = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| invalid(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .connect_with_connector_lazy(Connector(Arc::new(target)));
        Ok(Self { name: endpoint.to_owned(), channel })
    }
}

enum Target {
    Unix(PathBuf),
    Tcp(String),
    Tls(String, ServerName<'static>, Arc<rustls::ClientConfig>),
}

impl Target {
    /// The target and the authority that requests name.
    fn parse(endpoint: &str, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<(Self, String), String> {
        if let Some(path) = endpoint.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok((Self::Unix(path.into()), "localhost".to_owned()));
        }
        let uri: Uri = endpoint.parse().map_err(|error| format!("{error}"))?;
        let host = uri.host().ok_or("it names no host")?.to_owned();
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(2379));
        match (uri.scheme_str(), tls) {
            (Some("https"), Some(tls)) => {
                let name = host.trim_matches(['[', ']']).to_owned();
                let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
                Ok((Self::Tls(authority.clone(), name, Arc::clone(tls)), authority))
            }
            (Some("https"), None) => Err("https needs a certificate authority (etcd-cafile)".to_owned()),
            (Some("http") | None, _) => Ok((Self::Tcp(authority.clone()), authority)),
            (Some(other), _) => Err(format!("the scheme {other} is not http, https or unix")),
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => Box::new(tcp(address).await?),
            Self::Tls(address, name, config) => {
                let stream = tcp(address).await?;
                Box::new(TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await?)
            }
        })
    }
}

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What every kind of connection can do.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection of whatever kind.
pub(crate) struct Connection(Box<dyn Duplex>);

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[derive(Clone)]
struct Connector(Arc<Target>);

impl tonic::codegen::Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let target = Arc::clone(&self.0);
        Box::pin(async move { target.connect().await.map(Connection).map(TokioIo::new) })
    }
}

fn client_tls(tls: &Tls) -> Result<Arc<rustls::ClientConfig>, Error> {
    let invalid = |what: &str, error: &dyn std::fmt::Display| Error::Invalid(format!("etcd {what}: {error}"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tls.authority) {
        let certificate = certificate.map_err(|error| invalid("cafile", &error))?;
        roots.add(certificate).map_err(|error| invalid("cafile", &error))?;
    }
    if roots.is_empty() {
        return Err(invalid("cafile", &"it holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("TLS", &error))?
        .with_root_certificates(roots);
    let mut config = match &tls.identity {
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|error| invalid("certfile", &error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| invalid("keyfile", &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| invalid("certfile", &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_trusted_from_the_versions_that_upstream_trusts() {
        let sound = ["3.4.31", "3.5.13", "3.6.0", "3.6.0+skiff", "3.7.0-rc.1", "4.0.0"];
        let unsound = ["3.4.23", "3.4.30", "3.5.1", "3.5.12", "3.3.99", "", "3", "x.y.z"];
        assert!(sound.iter().all(|version| progress_is_sound(version)));
        assert!(!unsound.iter().any(|version| progress_is_sound(version)));
    }

    #[test]
    fn endpoints_are_addresses_or_sockets() {
        let check = |endpoint: &str| Target::parse(endpoint, None).map(|(_, authority)| authority);
        assert_eq!(check("http://127.0.0.1:2379").as_deref(), Ok("127.0.0.1:2379"));
        assert_eq!(check("etcd-0:2379").as_deref(), Ok("etcd-0:2379"));
        assert_eq!(check("unix:///run/etcd.sock").as_deref(), Ok("localhost"));
        assert!(check("https://etcd").is_err() && check("ftp://etcd").is_err() && check("").is_err());
    }
}
