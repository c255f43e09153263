//! The controllers: each brings one kind of object to its wanted state.
//!
//! Every file is one controller: a pure `plan` (observed objects in, steps out) and a thin driver
//! that performs the steps. They see the cluster only through informers and speak to the server
//! only through a client with their own identity, so one of them can be run anywhere.
//!
//! Map, in reading order: [`start`] and [`Context`] here, `shared` (ownership, expectations, pods,
//! templates), then any controller.

mod shared;

use std::sync::Arc;

use skiff_base::{Clock, Random, Tasks};
use skiff_client::{Client, Endpoint, Events, Informers};

/// What one controller works with.
#[derive(Clone)]
pub struct Context {
    /// Writes with the controller's own identity.
    pub client: Client,
    /// The shared caches.
    pub informers: Informers,
    /// Time.
    pub clock: Clock,
    /// Randomness, for names.
    pub random: Random,
    /// Where its workers run.
    pub tasks: Tasks,
    /// Records events under the controller's name.
    pub events: Events,
    /// What all controllers are told.
    pub config: Arc<Config>,
}

/// What all controllers are told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The certificate authority of the API server, PEM, published to every namespace.
    pub root_ca_pem: String,
    /// How long a node may be silent before it counts as unreachable, in seconds.
    pub node_grace_secs: u32,
    /// Ended pods kept in the cluster before the oldest are removed.
    pub terminated_pods_max: usize,
    /// Workers per controller.
    pub workers: usize,
    /// Signs certificates; without one, approved requests wait.
    pub certificate_signer: Option<Arc<dyn CertificateSigner>>,
}

/// Signs certificates with the cluster's authority, whose key is not here.
pub trait CertificateSigner: std::fmt::Debug + Send + Sync {
    /// The certificate, PEM, for a PEM request, for `usages` as the API names them, that lives for
    /// `seconds` or as long as the authority likes.
    ///
    /// # Errors
    /// Why there is none, for whoever asked.
    fn sign(&self, request: &[u8], usages: &[String], seconds: Option<i32>) -> Result<String, String>;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root_ca_pem: String::new(),
            node_grace_secs: 50,
            terminated_pods_max: 12_500,
            workers: 4,
            certificate_signer: None,
        }
    }
}

/// One line registers a controller: its module, which has `NAME` and `start`.
macro_rules! controllers {
    ($($module:ident)*) => {
        $(mod $module;)*

        /// Every controller: the name of its service account and how it starts.
        const CONTROLLERS: &[(&str, fn(Context))] = &[$(($module::NAME, $module::start)),*];
    };
}

controllers! {
    bootstrap_signer
    certificates
    cluster_role_aggregation
    cron_job
    daemon_set
    deployment
    endpoint_slice
    endpoints
    garbage_collector
    job
    namespace
    node_lifecycle
    pod_disruption
    pod_gc
    pv_protection
    pvc_protection
    replica_set
    replication_controller
    resource_quota
    root_ca
    service_account
    service_cidr
    stateful_set
    taint_eviction
    token_cleaner
    tokens
    ttl_after_finished
    volume_attributes_class_protection
}

/// The service accounts of all controllers, for the bootstrap roles.
pub fn names() -> impl Iterator<Item = &'static str> {
    // One account may serve two controllers.
    let first = |(at, name): &(usize, &str)| CONTROLLERS[..*at].iter().all(|(before, _)| before != name);
    CONTROLLERS.iter().map(|(name, _)| *name).enumerate().filter(first).map(|(_, name)| name)
}

/// The user that reads for the shared caches, and for which the tokens controller acts (as
/// upstream): it is bound to the role `system:kube-controller-manager`.
pub const MANAGER: &str = "system:kube-controller-manager";

/// The user that the controller `name` acts as.
pub fn user(name: &str) -> String {
    if name == tokens::NAME { MANAGER.to_owned() } else { format!("system:serviceaccount:kube-system:{name}") }
}

/// Starts every controller under `tasks`. `endpoints` makes an endpoint for the controller of a
/// name with the identity of its [`user`].
pub fn start(
    endpoints: &(dyn Fn(&str) -> Arc<dyn Endpoint> + Send + Sync),
    informers: &Informers,
    clock: &Clock,
    random: &Random,
    tasks: &Tasks,
    config: Config,
) {
    let config = Arc::new(config);
    for (name, start) in CONTROLLERS {
        tracing::info!(controller = name, "starting");
        let client = Client::new(endpoints(name), &format!("skiff/{} {name}", env!("CARGO_PKG_VERSION")));
        let tasks = tasks.group(name);
        start(Context {
            events: Events::new(client.clone(), clock.clone(), &tasks, name, ""),
            client,
            informers: informers.clone(),
            clock: clock.clone(),
            random: random.clone(),
            tasks,
            config: config.clone(),
        });
    }
}
