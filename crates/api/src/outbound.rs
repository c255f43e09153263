//! The one way out: HTTPS calls of the API server to webhooks, aggregated servers, issuers.
//!
//! A [`Target`] says where and how it is trusted: a URL, or a Service of the cluster, which is
//! resolved to a ready endpoint and dialed through the cluster's network. Connections are kept for
//! each target and speak HTTP/2 or HTTP/1.1 by ALPN. [`Outbound::send`] is for whole answers,
//! bounded in time and size; [`Outbound::stream`], [`Outbound::upgrade`] and [`Outbound::connect`]
//! are for passing on. Errors read as Go's HTTP client words them, because clients assert them.
//!
//! It knows nothing of what is asked.

mod connect;
mod error;
mod refusal;
mod resolve;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::RootCertStore;
use skiff_base::{Clock, Random, Tasks};

use self::connect::{Connector, OnTasks};
pub use self::error::Error;
pub(crate) use self::refusal::refusal;
use crate::proxy::{Connection, NodeDialer};
use crate::storage::Collections;

/// Targets whose connections are kept; the one that was used longest ago is forgotten first.
const TARGETS_MAX: usize = 512;
/// An idle connection is closed after this, as Go's transport does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Idle HTTP/1.1 connections to one target; Go's REST clients keep as many.
const IDLE_PER_TARGET_MAX: usize = 25;
/// An HTTP/2 connection that answers no ping is given up.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// What is read of an answer that is not a success, for its message; Go's clients say no more.
const EXCERPT_BYTES_MAX: usize = 4 * 1024;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `https://host:port/path` (or `http://`), reached directly.
    Url(String),
    /// A Service of the cluster, over TLS.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The port of the Service.
        port: u16,
        /// The path, with or without its slash.
        path: String,
    },
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// What this machine trusts.
    #[default]
    System,
    /// These authorities, PEM.
    Authorities(Vec<u8>),
    /// Anybody (`insecureSkipTLSVerify`).
    Anybody,
}

/// What proves who we are. Of the fields that are given, all are shown.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// A client certificate chain and its key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// A bearer token.
    pub token: Option<String>,
    /// A user name and a password.
    pub basic: Option<(String, String)>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credentials(…)")
    }
}

/// Where a server is, how it is trusted and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where.
    pub address: Address,
    /// Whom to believe.
    pub trust: Trust,
    /// The name to expect in the certificate, when it is neither the host nor `<name>.<namespace>.svc`.
    pub server_name: Option<String>,
    /// Who we are.
    pub credentials: Credentials,
}

impl Target {
    /// A target without credentials that the machine trusts.
    pub fn new(address: Address) -> Self {
        Self { address, trust: Trust::System, server_name: None, credentials: Credentials::default() }
    }

    /// The URL below which requests go, as it stands in messages.
    pub fn url(&self) -> String {
        match &self.address {
            Address::Url(url) => url.clone(),
            Address::Service { namespace, name, port, path } => {
                let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
                format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
            }
        }
    }

    /// The address of a request whose own path and query is `rest`; `/` asks for the target itself.
    fn uri(&self, rest: &str) -> Result<Uri, Error> {
        let base = self.url();
        let text = match rest {
            "" | "/" => base,
            query if query.starts_with("/?") || query.starts_with('?') => {
                format!("{base}{}", query.trim_start_matches('/'))
            }
            path => format!("{}{path}", base.trim_end_matches('/')),
        };
        let uri: Uri = text.parse().map_err(|error| Error::Target(format!("{text:?}: {error}")))?;
        match uri.scheme_str() {
            Some("https" | "http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
            _ => Err(Error::Target(format!("{text:?} is not an http or https URL"))),
        }
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let text = match (&self.credentials.token, &self.credentials.basic) {
            (Some(token), _) => format!("Bearer {token}"),
            (None, Some((name, password))) => {
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
            }
            (None, None) => return Ok(None),
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| Error::Target("the credentials hold characters a header may not".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// How much an answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the whole answer is there.
    pub timeout: Duration,
    /// The bytes of the answer's body.
    pub answer_bytes_max: usize,
}

/// The body of a request that is streamed.
pub type RequestStream = http_body_util::combinators::UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What the calls need of the cluster.
pub struct Way {
    /// The dialer into the cluster's network; without one, endpoints are dialed directly.
    pub dialer: Option<Arc<dyn NodeDialer>>,
    /// Where Services and their endpoints are; without, no Service is found.
    pub collections: Option<Arc<Collections>>,
    /// Picks among endpoints.
    pub random: Random,
    /// The clock of certificates.
    pub clock: Clock,
    /// Connections run here.
    pub tasks: Tasks,
}

/// The client. See the [module](self).
pub struct Outbound {
    way: Arc<Way>,
    known: Mutex<Known>,
    roots: OnceLock<Arc<RootCertStore>>,
    anybody: OnceLock<Arc<rustls::ClientConfig>>,
}

/// Connections by target, with the turn in which each was last used.
#[derive(Default)]
struct Known {
    turn: u64,
    targets: HashMap<Target, (u64, Arc<Route>)>,
}

/// A target that has been made sense of.
struct Route {
    client: Client<Connector, RequestStream>,
    connector: Connector,
    authorization: Option<HeaderValue>,
}

impl Outbound {
    /// A client that goes `way`.
    pub fn new(way: Way) -> Self {
        Self { way: Arc::new(way), known: Mutex::default(), roots: OnceLock::new(), anybody: OnceLock::new() }
    }

    /// Sends a request and reads the whole answer, whatever its status. The request's own path and
    /// query come after those of the target; `/` stands for the target itself.
    ///
    /// # Errors
    /// See [`Error`]; after a timeout or a dropped future the request is given up.
    pub async fn send(
        &self,
        target: &Target,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Error> {
        let whole = async {
            let request = request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync());
            let (head, body) = self.stream(target, request).await?.into_parts();
            Ok(Response::from_parts(head, read(body, limits.answer_bytes_max).await?))
        };
        tokio::time::timeout(limits.timeout, whole).await.map_err(|_| Error::Timeout)?
    }

    /// [`Outbound::send`], with every status that is no success an [`Error::Status`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn fetch(&self, target: &Target, request: Request<Bytes>, limits: Limits) -> Result<Bytes, Error> {
        let answer = self.send(target, request, limits).await?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let excerpt = answer.body().slice(..answer.body().len().min(EXCERPT_BYTES_MAX));
        Err(Error::Status { code: answer.status(), excerpt: String::from_utf8_lossy(&excerpt).into_owned() })
    }

    /// Sends a request on and gives the answer as it comes. Deadlines are the caller's.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stream(
        &self,
        target: &Target,
        mut request: Request<RequestStream>,
    ) -> Result<Response<Incoming>, Error> {
        let route = self.route(target)?;
        route.prepare(target, &mut request)?;
        route.client.request(request).await.map_err(Error::of_client)
    }

    /// Sends a request that wants to switch protocols, over a connection of its own (HTTP/1.1).
    /// When the answer is 101, `hyper::upgrade::on` gives the connection.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn upgrade(
        &self,
        target: &Target,
        mut request: Request<RequestStream>,
    ) -> Result<Response<Incoming>, Error> {
        let route = self.route(target)?;
        route.prepare(target, &mut request)?;
        let uri = request.uri().clone();
        let stream = route.connector.connect(&uri, connect::Alpn::Http1).await?;
        let origin = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = origin.parse().map_err(|_| Error::Target(uri.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream.into_connection()));
        let (mut sender, driver) = handshake.await.map_err(Error::of_hyper)?;
        self.way.tasks.spawn("upgrade", async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "upgraded connection broke");
            }
        });
        sender.send_request(request).await.map_err(Error::of_hyper)
    }

    /// A bare connection to a target, its TLS done, on which HTTP/1.1 is to be spoken.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>, Error> {
        let route = self.route(target)?;
        Ok(route.connector.connect(&target.uri("")?, connect::Alpn::Http1).await?.into_connection())
    }

    /// TLS towards whoever answers: the way of the proxy subresources.
    ///
    /// # Errors
    /// When there is no TLS to be had.
    pub(crate) fn tls_to_anybody(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        if let Some(config) = self.anybody.get() {
            return Ok(Arc::clone(config));
        }
        let target = Target { trust: Trust::Anybody, ..Target::new(Address::Url(String::new())) };
        let config = tls::config(&target, || self.system_roots(), &self.way.clock)?;
        Ok(Arc::clone(self.anybody.get_or_init(|| Arc::new(config))))
    }

    fn route(&self, target: &Target) -> Result<Arc<Route>, Error> {
        {
            let mut known = self.known.lock();
            known.turn += 1;
            let turn = known.turn;
            if let Some((used, route)) = known.targets.get_mut(target) {
                *used = turn;
                return Ok(Arc::clone(route));
            }
        }
        // Reading certificates takes a while: not under the lock.
        let made = Arc::new(self.make(target)?);
        let mut known = self.known.lock();
        if known.targets.len() >= TARGETS_MAX
            && let Some(oldest) = known.targets.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone())
        {
            known.targets.remove(&oldest);
        }
        let turn = known.turn;
        Ok(Arc::clone(&known.targets.entry(target.clone()).or_insert((turn, made)).1))
    }

    fn make(&self, target: &Target) -> Result<Route, Error> {
        let config = tls::config(target, || self.system_roots(), &self.way.clock)?;
        let connector = Connector::new(target, Arc::clone(&self.way), config)?;
        let client = Client::builder(OnTasks(self.way.tasks.clone()))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_TARGET_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector.clone());
        Ok(Route { client, connector, authorization: target.authorization()? })
    }

    /// Read once, when the first target needs them.
    fn system_roots(&self) -> Arc<RootCertStore> {
        Arc::clone(self.roots.get_or_init(|| Arc::new(tls::system_roots())))
    }
}

impl Route {
    fn prepare(&self, target: &Target, request: &mut Request<RequestStream>) -> Result<(), Error> {
        let rest = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = target.uri(rest)?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(authority) {
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = uri;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Ok(())
    }
}

async fn read(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Error> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(Error::of_hyper)?.into_data() {
            if all.len() + data.len() > bytes_max {
                return Err(Error::TooLarge { bytes_max });
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_below_their_target() {
        let service = |path: &str| {
            Target::new(Address::Service { namespace: "ns".into(), name: "web".into(), port: 443, path: path.into() })
        };
        let uri =
            |target: &Target, rest: &str| target.uri(rest).map(|uri| uri.to_string()).unwrap_or_else(|e| e.to_string());
        assert_eq!(uri(&service("/mutate"), "/?timeout=10s"), "https://web.ns.svc:443/mutate?timeout=10s");
        assert_eq!(uri(&service("mutate"), "/"), "https://web.ns.svc:443/mutate");
        assert_eq!(uri(&service(""), "/apis/x?a=b"), "https://web.ns.svc:443/apis/x?a=b");
        let url = Target::new(Address::Url("https://example.com/keys?x=y".into()));
        assert_eq!(uri(&url, "/"), "https://example.com/keys?x=y");
        assert!(uri(&Target::new(Address::Url("ftp://a".into())), "/").contains("is not an http or https URL"));
    }
}
