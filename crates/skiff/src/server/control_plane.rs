//! A control plane as a value: store, API server, controllers and scheduler of one cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use skiff_api::authz::{self, Authorizer};
use skiff_api::discovery::Build;
use skiff_api::encryption::{self, Encryption};
use skiff_api::outbound::{Outbound, Way};
use skiff_api::{ApiServer, Config, aggregation, authn, proxy::NodeDialer};
use skiff_base::{Clock, Random, Tasks};
use skiff_client::{Client, Informers};
use skiff_store::Store;
use skiff_store::embedded::{EmbeddedStore, Options};
use tokio::net::TcpListener;

use super::extra_config::ExtraConfig;
use super::leader;
use super::local::LocalEndpoint;
use crate::pki::Identity;
use crate::signer::ClusterSigner;

/// What a control plane is made of.
pub struct Parts {
    /// The cluster's identity in storage keys.
    pub cluster: String,
    /// The certificate authority, PEM.
    pub authority: String,
    /// The serving certificate.
    pub serving: Identity,
    /// By what aggregated servers know this one, and it knows proxies.
    pub front_proxy: FrontProxy,
    /// The key that signs service-account tokens, PEM.
    pub service_account_key: String,
    /// Where pods and nodes reach the server.
    pub advertise: SocketAddr,
    /// The network of Services.
    pub service_cidr: (std::net::IpAddr, u8),
    /// The way to kubelets.
    pub dialer: Arc<dyn NodeDialer>,
    /// What the user says of the API server besides.
    pub extra_config: ExtraConfig,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Everything runs under these.
    pub tasks: Tasks,
}

/// The name in the certificate of the one who may speak for others.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// The authority of front proxies and its one client: this server towards aggregated ones.
#[derive(Clone)]
pub struct FrontProxy {
    /// The authority, PEM.
    pub authority: String,
    /// What this server shows.
    pub client: Identity,
}

/// A running control plane.
pub struct ControlPlane {
    /// The server.
    pub api: Arc<ApiServer>,
    /// The caches that the components of this process share.
    pub informers: Informers,
    /// A client with every right.
    pub admin: Client,
    tls: Arc<rustls::ServerConfig>,
}

/// The groups of every service account in `kube-system`.
const SYSTEM_ACCOUNTS: [&str; 2] = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];

/// The Leases of the components of which one at a time works, named as upstream's.
const CONTROLLER_LEASE: &str = "kube-controller-manager";
const SCHEDULER_LEASE: &str = "kube-scheduler";

/// The scheduler's user.
const SCHEDULER: &str = "system:kube-scheduler";

/// How the parts of this process name themselves.
const USER_AGENT: &str = concat!("skiff/", env!("CARGO_PKG_VERSION"));

/// Opens the store in `folder`.
pub fn open_store(folder: &Path, options: Options) -> Result<Arc<EmbeddedStore>> {
    let store =
        EmbeddedStore::open(folder, options).with_context(|| format!("open the store in {}", folder.display()))?;
    Ok(Arc::new(store))
}

/// Who decides what is allowed, as the flags say.
async fn authorizer(parts: &Parts, store: &Arc<dyn Store>) -> Result<Arc<dyn Authorizer>> {
    let way = Way {
        dialer: None,
        collections: None,
        random: parts.random.clone(),
        clock: parts.clock.clone(),
        tasks: parts.tasks.group("authorization-webhooks"),
    };
    let with = authz::config::Building {
        store: Arc::clone(store),
        cluster: parts.cluster.clone(),
        outbound: Arc::new(Outbound::new(way)),
        clock: parts.clock.clone(),
        tasks: parts.tasks.group("authorizers"),
    };
    if let Some(path) = super::extra_config::authorization_file(&parts.extra_config)? {
        let changing = authz::changing::Changing::start(path.to_owned(), super::extra_config::kubeconfig_target, with);
        return Ok(changing.await.with_context(|| format!("authorization-config={}", path.display()))?);
    }
    let modes = super::extra_config::authorizers(&parts.extra_config)?;
    authz::config::build(modes, &with).await.context("read roles and what nodes may see")
}

/// The store with what stands before it when some resources are encrypted.
async fn encrypted(parts: &Parts, store: Arc<dyn Store>) -> Result<(Option<Arc<Encryption>>, Arc<dyn Store>)> {
    let Some(file) = parts.extra_config.value("encryption-provider-config") else { return Ok((None, store)) };
    let reload = match parts.extra_config.value("encryption-provider-config-automatic-reload") {
        Some(value) => super::extra_config::boolean(value)?,
        None => false,
    };
    let settings = encryption::Settings { file: file.into(), reload };
    let (clock, random) = (parts.clock.clone(), parts.random.clone());
    let started = Encryption::start(&settings, store, clock, random, parts.tasks.group("encryption")).await;
    let (encryption, store) = started.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((Some(encryption), store))
}

impl ControlPlane {
    /// Starts the server over `store`. It answers when this returns; listeners are added with
    /// [`ControlPlane::listen`].
    pub async fn start(parts: Parts, store: Arc<dyn Store>) -> Result<Self> {
        let (encryption, store) = encrypted(&parts, store).await?;
        let authorizer = authorizer(&parts, &store).await?;
        let key = rcgen::KeyPair::from_pem(&parts.service_account_key).context("read the service-account key")?;
        let mut config = Config {
            authorizer,
            anonymous: true,
            authn: authn::Settings {
                client_ca: parts.authority,
                bootstrap_tokens: true,
                request_header: Some(authn::request_header::RequestHeader {
                    client_ca: parts.front_proxy.authority,
                    allowed_names: vec![FRONT_PROXY_CLIENT.to_owned()],
                    ..authn::request_header::RequestHeader::default()
                }),
                ..authn::Settings::default()
            },
            aggregation: aggregation::Settings {
                client_certificate: Some((
                    parts.front_proxy.client.certificate.into_bytes(),
                    parts.front_proxy.client.key.into_bytes(),
                )),
                resource_metrics: true,
            },
            advertise: parts.advertise,
            service_cidr: parts.service_cidr,
            dialer: Some(parts.dialer),
            build: Build {
                git_commit: env!("SKIFF_GIT_COMMIT").into(),
                git_tree_state: env!("SKIFF_GIT_TREE_STATE").into(),
                build_date: env!("SKIFF_BUILD_DATE").into(),
            },
            ..Config::new(
                parts.cluster,
                store,
                parts.clock.clone(),
                parts.random.clone(),
                parts.tasks.group("api"),
                key.serialize_der(),
            )
        };
        parts.extra_config.apply(&mut config)?;
        let api = ApiServer::new(config).context("start the API server")?;
        if let Some(encryption) = encryption {
            api.health().add("kms-providers", Arc::new(move || encryption.check()));
        }
        let tls =
            api.tls(&parts.serving.certificate, &parts.serving.key).context("use the API server's certificate")?;
        skiff_api::bootstrap::run(&api).await.context("make what every cluster begins with")?;
        let manager = Client::new(LocalEndpoint::of(&api, skiff_controllers::MANAGER, &[]), USER_AGENT);
        let informers = Informers::new(manager, parts.tasks.group("informers"), parts.random.clone());
        let admin = Client::new(LocalEndpoint::of(&api, "system:apiserver", &["system:masters"]), USER_AGENT);
        Ok(Self { api, informers, admin, tls })
    }

    /// Serves HTTPS on `address`.
    pub async fn listen(&self, address: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address}; if the port is taken, create the cluster with another --api-port")
        })?;
        self.api.listen(listener, Arc::clone(&self.tls));
        Ok(())
    }

    /// Starts the controllers, which sign certificates with `authority`, and the scheduler.
    ///
    /// # Errors
    /// When the authority cannot sign.
    pub fn start_controllers(&self, authority: &Identity, clock: &Clock, random: &Random, tasks: &Tasks) -> Result<()> {
        let config = controller_config(authority, clock, random)?;
        controllers(&self.api, &self.informers, config, clock, random, tasks);
        scheduler(&self.api, &self.informers, clock, random, tasks);
        Ok(())
    }

    /// Runs the controllers and the scheduler whenever this server holds their Leases, under the
    /// name `identity`.
    ///
    /// # Errors
    /// When the authority cannot sign.
    pub fn compete(
        &self,
        authority: &Identity,
        clock: &Clock,
        random: &Random,
        tasks: &Tasks,
        identity: &str,
    ) -> Result<()> {
        let config = controller_config(authority, clock, random)?;
        let candidate = |user: &str| Client::new(LocalEndpoint::of(&self.api, user, &[]), USER_AGENT);
        let manager = candidate(skiff_controllers::MANAGER);
        let (api, own_clock, own_random) = (Arc::clone(&self.api), clock.clone(), random.clone());
        leader::run(manager, clock.clone(), tasks, CONTROLLER_LEASE, identity, move |term| {
            controllers(&api, &informers(&api, term, &own_random), config.clone(), &own_clock, &own_random, term);
        });
        let (api, own_clock, own_random) = (Arc::clone(&self.api), clock.clone(), random.clone());
        leader::run(candidate(SCHEDULER), clock.clone(), tasks, SCHEDULER_LEASE, identity, move |term| {
            scheduler(&api, &informers(&api, term, &own_random), &own_clock, &own_random, term);
        });
        Ok(())
    }

    /// A client with the identity of the node `name`.
    pub fn node_client(&self, name: &str) -> Client {
        Client::new(LocalEndpoint::of(&self.api, &format!("system:node:{name}"), &["system:nodes"]), USER_AGENT)
    }
}

/// The caches of one term of office: what it asked for ends with it.
fn informers(api: &Arc<ApiServer>, tasks: &Tasks, random: &Random) -> Informers {
    let client = Client::new(LocalEndpoint::of(api, skiff_controllers::MANAGER, &[]), USER_AGENT);
    Informers::new(client, tasks.group("informers"), random.clone())
}

fn controller_config(authority: &Identity, clock: &Clock, random: &Random) -> Result<skiff_controllers::Config> {
    let signer = ClusterSigner::new(authority, clock.clone(), random.clone())?;
    Ok(skiff_controllers::Config {
        root_ca_pem: authority.certificate.clone(),
        certificate_signer: Some(Arc::new(signer)),
        ..skiff_controllers::Config::default()
    })
}

fn controllers(
    api: &Arc<ApiServer>,
    informers: &Informers,
    config: skiff_controllers::Config,
    clock: &Clock,
    random: &Random,
    tasks: &Tasks,
) {
    let api = Arc::clone(api);
    skiff_controllers::start(
        &move |name: &str| LocalEndpoint::of(&api, &skiff_controllers::user(name), &SYSTEM_ACCOUNTS),
        informers,
        clock,
        random,
        tasks,
        config,
    );
}

fn scheduler(api: &Arc<ApiServer>, informers: &Informers, clock: &Clock, random: &Random, tasks: &Tasks) {
    let client = Client::new(LocalEndpoint::of(api, SCHEDULER, &[]), USER_AGENT);
    let config = skiff_scheduler::Config::default();
    skiff_scheduler::start(client, informers, config, clock.clone(), random.clone(), tasks);
}
