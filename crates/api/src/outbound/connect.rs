//! Connections: dialing, directly or into the cluster's network, and TLS on top.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection as Described};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use skiff_base::Tasks;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::resolve::{self, Place};
use super::{Address, Error, Target, Way};
use crate::proxy::{Connection, Destination};

/// How long one connection (TCP and TLS) may take, as Go's dialer has it; the deadline of a call
/// is shorter in most cases.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpn {
    /// HTTP/2, else HTTP/1.1.
    Any,
    /// HTTP/1.1.
    Http1,
}

/// Makes connections to one target.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    address: Address,
    server_name: Option<ServerName<'static>>,
    any: TlsConnector,
    http1: TlsConnector,
    way: Arc<Way>,
}

impl Connector {
    pub(super) fn new(target: &Target, way: Arc<Way>, config: ClientConfig) -> Result<Self, Error> {
        let name = match (&target.server_name, &target.address) {
            (Some(name), _) => Some(name.clone()),
            (None, Address::Service { namespace, name, .. }) => Some(format!("{name}.{namespace}.svc")),
            (None, Address::Url(_)) => None,
        };
        let server_name = name.map(server_name).transpose()?;
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut any = config;
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(Inner {
            address: target.address.clone(),
            server_name,
            any: TlsConnector::from(Arc::new(any)),
            http1: TlsConnector::from(Arc::new(http1)),
            way,
        })))
    }

    /// Connects to where `uri` leads.
    pub(super) async fn connect(&self, uri: &Uri, alpn: Alpn) -> Result<Stream, Error> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.0.connect(uri, alpn)).await {
            Ok(connected) => connected,
            Err(_) => Err(Error::Timeout),
        }
    }
}

impl Inner {
    async fn connect(&self, uri: &Uri, alpn: Alpn) -> Result<Stream, Error> {
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = match &self.address {
            Address::Service { namespace, name, port, .. } => self.dial_service(namespace, name, *port).await?,
            Address::Url(_) => direct(host, uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 })).await?,
        };
        if !is_tls {
            return Ok(Stream { connection: TokioIo::new(tcp), is_http2: false });
        }
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host.to_owned())?,
        };
        let connector = if alpn == Alpn::Any { &self.any } else { &self.http1 };
        let tls = connector.connect(name, tcp).await.map_err(|error| Error::handshake(&error))?;
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { connection: TokioIo::new(Box::new(tls)), is_http2 })
    }

    async fn dial_service(&self, namespace: &str, name: &str, port: u16) -> Result<Box<dyn Connection>, Error> {
        let endpoints = match resolve::service(&self.way, namespace, name, port).await? {
            Place::External { host, port } => return direct(&host, port).await,
            Place::Endpoints(endpoints) => endpoints,
        };
        let mut last = Error::NoEndpoints(name.to_owned());
        for endpoint in endpoints {
            let dialed = match &self.way.dialer {
                Some(dialer) => dialer.dial(&Destination::Address(endpoint)).await,
                None => tcp(endpoint).await,
            };
            match dialed {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Error::dialing(&endpoint, &error),
            }
        }
        Err(last)
    }
}

fn server_name(name: String) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.clone()).map_err(|error| Error::Target(format!("server name {name:?}: {error}")))
}

async fn tcp(address: impl tokio::net::ToSocketAddrs) -> std::io::Result<Box<dyn Connection>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

async fn direct(host: &str, port: u16) -> Result<Box<dyn Connection>, Error> {
    let failed = |error: &std::io::Error| Error::dialing(&format_args!("{host}:{port}"), error);
    // Names that are none are told apart from servers that are not there.
    let mut addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| Error::Dial { address: format!("lookup {host}"), cause: "no such host".into() })?
        .peekable();
    let shown = addresses.peek().copied();
    let addresses: Vec<_> = addresses.collect();
    tcp(addresses.as_slice()).await.map_err(|error| match shown {
        Some(address) => Error::dialing(&address, &error),
        None => failed(&error),
    })
}

/// A connection with what was agreed on it.
pub(super) struct Stream {
    connection: TokioIo<Box<dyn Connection>>,
    is_http2: bool,
}

impl Stream {
    pub(super) fn into_connection(self) -> Box<dyn Connection> {
        self.connection.into_inner()
    }
}

impl Described for Stream {
    fn connected(&self) -> Connected {
        if self.is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(&uri, Alpn::Any).await })
    }
}

/// Runs hyper's work under the server's tasks.
#[derive(Clone)]
pub(super) struct OnTasks(pub(super) Tasks);

impl<F> hyper::rt::Executor<F> for OnTasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn("outbound", async move {
            future.await;
        });
    }
}
