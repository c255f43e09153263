//! The server as a value: what it is made of and how it is entered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use skiff_base::{Clock, Random, Tasks};
use skiff_kinds::{Kind, Registry};
use skiff_store::{Revision, Store};
use tokio::net::TcpListener;

use crate::admission::{self, Admission};
use crate::audit::{self, Audit};
use crate::authn::chain::{Authentication, SettingsError};
use crate::authn::jws::{JwsError, SigningKey};
use crate::authn::service_account::Tokens;
use crate::authn::{self, StaticToken, UserInfo};
use crate::authz::Authorizer;
use crate::body::{Body, RequestBody};
use crate::chain;
use crate::flow_control::{self, FlowControl};
use crate::health::Health;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::outbound::{Outbound, Way};
use crate::proxy::NodeDialer;
use crate::serve::{self, Peer};
use crate::shutdown::{self, Closing};
use crate::storage::{Collection, Collections};
use crate::traces::{self, Traces};

/// What a server is made of.
pub struct Config {
    /// The identity of the cluster; every storage key begins with it.
    pub cluster: String,
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// The kinds that are served.
    pub registry: Registry,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Background work and connections run here and end with it.
    pub tasks: Tasks,
    /// Who decides what is allowed.
    pub authorizer: Arc<dyn Authorizer>,
    /// Whether requests without credentials are `system:anonymous` instead of 401.
    pub anonymous: bool,
    /// Tokens known from the configuration.
    pub static_tokens: Vec<StaticToken>,
    /// Everything else about who may come in.
    pub authn: authn::Settings,
    /// The key that signs service account tokens: P-256 or RSA, DER in PKCS#8 or PKCS#1.
    pub service_account_key: Vec<u8>,
    /// The issuer and audience of service account tokens.
    pub issuer: String,
    /// Where pods and nodes reach this server: the endpoint of the `kubernetes` Service.
    pub advertise: SocketAddr,
    /// The first address of it is the `kubernetes` Service.
    pub service_cidr: (IpAddr, u8),
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// What `/version` says of this build.
    pub build: crate::discovery::Build,
    /// How kubelets and pods are reached; without one, `log`, `exec` and `proxy` answer 503.
    pub dialer: Option<Arc<dyn NodeDialer>>,
    /// Which admission plugins run, and how.
    pub admission: admission::Settings,
    /// How other servers are aggregated.
    pub aggregation: crate::aggregation::Settings,
    /// How long requests may take and how many may run.
    pub limits: Limits,
    /// How the server ends.
    pub shutdown: shutdown::Settings,
    /// Where traces of requests go; none are made without.
    pub tracing: Option<traces::Settings>,
    /// Which of them are written down.
    pub audit: audit::Settings,
    /// Which of them go first.
    pub flow_control: flow_control::Settings,
    /// Whether other servers share the store.
    pub endpoint_lease: crate::endpoint_lease::Settings,
}

/// The default issuer of service account tokens.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Config {
    /// What must be given; everything else is as a server has it that says nothing: every built-in
    /// kind, everyone may do everything, no anonymous requests, no way to kubelets.
    pub fn new(
        cluster: impl Into<String>,
        store: Arc<dyn Store>,
        clock: Clock,
        random: Random,
        tasks: Tasks,
        service_account_key: Vec<u8>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            store,
            registry: skiff_kinds::builtin().clone(),
            clock,
            random,
            tasks,
            authorizer: Arc::new(crate::authz::AllowAll),
            anonymous: false,
            static_tokens: Vec::new(),
            authn: authn::Settings::default(),
            service_account_key,
            issuer: DEFAULT_ISSUER.to_owned(),
            // Of the block for documentation: Endpoints hold no loopback address, and nobody has this one.
            advertise: SocketAddr::from(([192, 0, 2, 1], 6443)),
            service_cidr: (IpAddr::from([10, 96, 0, 0]), 16),
            node_ports: (30_000, 32_767),
            build: crate::discovery::Build::default(),
            dialer: None,
            admission: admission::Settings::default(),
            aggregation: crate::aggregation::Settings::default(),
            limits: Limits::default(),
            shutdown: shutdown::Settings::default(),
            tracing: None,
            audit: audit::Settings::default(),
            flow_control: flow_control::Settings::default(),
            endpoint_lease: crate::endpoint_lease::Settings::default(),
        }
    }
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The service account key is no good.
    #[error("service account key: {0}")]
    Key(#[from] JwsError),
    /// The audit log cannot be opened.
    #[error("open the audit log: {0}")]
    Audit(std::io::Error),
    /// The collector of traces cannot be named so.
    #[error("{0}")]
    Tracing(String),
    /// What it is told about who may come in is no good.
    #[error(transparent)]
    Authentication(#[from] SettingsError),
    /// The admission plugins are not as configured.
    #[error(transparent)]
    Admission(#[from] admission::SettingsError),
}

/// An API server.
pub struct ApiServer {
    pub(crate) config: Config,
    registry: ArcSwap<Registry>,
    pub(crate) collections: Arc<Collections>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) aggregator: crate::aggregation::Aggregator,
    pub(crate) resource_metrics: crate::resource_metrics::ResourceMetrics,
    pub(crate) tokens: Tokens,
    pub(crate) authn: Authentication,
    pub(crate) admission: Admission,
    pub(crate) health: Health,
    pub(crate) closing: Closing,
    /// Who every request is until it is known who sends it.
    pub(crate) nobody: Arc<UserInfo>,
    /// What every answer says of TLS.
    pub(crate) transport_security: Option<http::HeaderValue>,
    pub(crate) traces: Traces,
    pub(crate) audit: Audit,
    pub(crate) flow_control: FlowControl,
    pub(crate) metrics: Metrics,
    pub(crate) openapi: crate::openapi::Documents,
    /// Tells watches that the custom kinds are others now.
    kinds_changed: tokio::sync::watch::Sender<()>,
    /// See [`Self::began_at`].
    began_at: std::sync::OnceLock<Revision>,
    pub(crate) shared_lease: parking_lot::Mutex<Option<crate::event_lease::Shared>>,
}

impl ApiServer {
    /// Makes a server. It answers at once; [`crate::bootstrap::run`] puts in what every cluster
    /// begins with.
    ///
    /// # Errors
    /// When the service account key cannot be used.
    pub fn new(config: Config) -> Result<Arc<Self>, StartError> {
        let key = SigningKey::from_der(&config.service_account_key)?;
        let (clock, random) = (config.clock.clone(), config.random.clone());
        let collections = Arc::new(Collections::new(
            Arc::clone(&config.store),
            &config.cluster,
            config.clock.clone(),
            config.tasks.clone(),
        ));
        let outbound = Arc::new(Outbound::new(Way {
            dialer: config.dialer.clone(),
            collections: Some(Arc::clone(&collections)),
            random: config.random.clone(),
            clock: config.clock.clone(),
            tasks: config.tasks.group("outbound"),
        }));
        let audit = Audit::start(&config.audit, &outbound, &config.clock, config.tasks.group("audit"))
            .map_err(StartError::Audit)?;
        let authn = Authentication::new(&config, &outbound)?;
        let transport_security = Some(config.limits.strict_transport_security.as_str())
            .filter(|policy| !policy.is_empty())
            .and_then(|policy| http::HeaderValue::from_str(policy).ok());
        let traces = Traces::start(config.tracing.as_ref(), &clock, &random, &config.tasks.group("traces"))
            .map_err(StartError::Tracing)?;
        Ok(Arc::new(Self {
            registry: ArcSwap::from_pointee(config.registry.clone()),
            collections,
            outbound,
            tokens: Tokens::new(key, config.issuer.clone(), &config.authn, clock, random)?,
            authn,
            admission: Admission::new(&config.admission)?,
            aggregator: crate::aggregation::Aggregator::default(),
            resource_metrics: crate::resource_metrics::ResourceMetrics::default(),
            health: Health::default(),
            closing: Closing::default(),
            nobody: Arc::new(UserInfo::anonymous()),
            transport_security,
            traces,
            audit,
            flow_control: FlowControl::new(
                &config.flow_control,
                &config.limits,
                config.clock.clone(),
                config.tasks.group("flow-control"),
            ),
            metrics: Metrics::default(),
            openapi: crate::openapi::Documents::default(),
            kinds_changed: tokio::sync::watch::Sender::new(()),
            began_at: std::sync::OnceLock::new(),
            shared_lease: parking_lot::Mutex::default(),
            config,
        }))
    }

    /// Answers one request.
    pub async fn handle(self: &Arc<Self>, request: Request<RequestBody>, peer: Peer) -> Response<Body> {
        chain::handle(self, request, peer).await
    }

    /// A way in for a component of the same process, with an identity of its own and no HTTP.
    pub fn local(self: &Arc<Self>, user: UserInfo) -> Local {
        Local { server: Arc::clone(self), user: Arc::new(user) }
    }

    /// Serves a listener until the server's tasks are stopped.
    pub fn listen(self: &Arc<Self>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let (server, tasks) = (Arc::clone(self), self.config.tasks.clone());
        match listener.local_addr() {
            Ok(address) => tracing::info!(%address, "serving securely"),
            Err(error) => tracing::warn!(%error, "serving securely, on an address that cannot be told"),
        }
        self.config.tasks.spawn_draining("listener", async move {
            if let Err(error) = serve::serve(server, listener, tls, tasks).await {
                tracing::error!(%error, "listener failed");
            }
        });
    }

    /// The revision at which this server began: what is older and half done, another left behind.
    /// Before it is known, nothing is.
    pub(crate) fn began_at(&self) -> Revision {
        self.began_at.get().copied().unwrap_or(0)
    }

    /// Sets [`Self::began_at`], once.
    pub(crate) fn begin_at(&self, revision: Revision) {
        let _ = self.began_at.set(revision);
    }

    /// The kinds that are served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.load_full()
    }

    /// Serves these custom kinds besides the built-in ones, in place of any before.
    pub fn set_custom_kinds(&self, kinds: Vec<Arc<dyn Kind>>) {
        self.registry.store(Arc::new(self.config.registry.with_custom(kinds)));
        self.openapi.forget();
        self.kinds_changed.send_replace(());
    }

    /// Waits until a custom kind is no longer the one that is served; for built-in kinds that never happens.
    pub(crate) fn retired(self: &Arc<Self>, kind: &Arc<dyn Kind>) -> BoxFuture<'static, ()> {
        if kind.custom().is_none() {
            return Box::pin(std::future::pending());
        }
        let (server, kind, mut changed) = (Arc::clone(self), Arc::clone(kind), self.kinds_changed.subscribe());
        Box::pin(async move {
            let facts = kind.facts();
            let (group, version, plural) = (facts.group.as_str(), facts.version.as_str(), facts.plural.as_str());
            let is_served = |server: &Self| {
                server.registry().resource(group, version, plural).is_some_and(|served| Arc::ptr_eq(served, &kind))
            };
            while is_served(&server) && changed.changed().await.is_ok() {}
        })
    }

    /// The objects of a storage group and plural.
    pub fn collection(&self, group: &str, plural: &str) -> Arc<Collection> {
        self.collections.named(group, plural)
    }

    /// The way out to webhooks and other servers.
    pub fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// What a listener of this server presents and asks of its clients.
    ///
    /// # Errors
    /// When certificate or key cannot be used.
    pub fn tls(&self, certificate: &str, key: &str) -> Result<Arc<rustls::ServerConfig>, serve::TlsError> {
        serve::api_tls(certificate, key, self.authn.handshake())
    }

    /// What everything that runs under the server's tasks counts.
    pub fn metrics(&self) -> &skiff_base::metrics::Metrics {
        self.config.tasks.metrics()
    }

    /// The server's clock.
    pub fn clock(&self) -> &Clock {
        &self.config.clock
    }

    /// The server's randomness.
    pub fn random(&self) -> &Random {
        &self.config.random
    }

    /// What `/readyz` and its siblings ask.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

/// A way into the server for a component of the same process.
#[derive(Clone)]
pub struct Local {
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
}

impl Local {
    /// Sends one request; the answer's body streams for watches.
    pub async fn call(&self, request: Request<Bytes>) -> Response<Body> {
        self.server.handle(request.map(RequestBody::Whole), Peer::Local(Arc::clone(&self.user))).await
    }

    /// The server behind it.
    pub fn server(&self) -> &Arc<ApiServer> {
        &self.server
    }
}
