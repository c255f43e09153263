//! Keeps the kernel's Services current from informers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use skiff_base::Tasks;
use skiff_client::{Informer, Informers};
use tokio::sync::{Notify, watch};

use super::health::HealthChecks;
use super::{Compiled, Node, ServiceKey, Table, compile};
use crate::error::{NetError, Result};
use crate::machine::Machine;

/// The index of EndpointSlices by `namespace/name` of their Service.
const INDEX_SERVICE: &str = "service";
const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the proxy needs to know about its node beside the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The Node object's name.
    pub node_name: String,
    /// Its `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// A running proxy. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    table: Arc<Mutex<Table>>,
    synced: watch::Receiver<u64>,
}

impl Handle {
    /// Waits until the kernel has had every Service known at the start.
    pub async fn synced(&self) {
        let _ = self.synced.clone().wait_for(|rounds| *rounds > 0).await;
    }

    /// A counter that moves after every change that reached the kernel.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.synced.clone()
    }

    /// What the kernel holds, for people.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn dump(&self) -> Result<String> {
        blocking(self.table.clone(), Table::dump).await
    }
}

/// Services that may have changed since they were last looked at.
#[derive(Default)]
struct Changed {
    services: Mutex<BTreeSet<ServiceKey>>,
    wake: Notify,
}

impl Changed {
    fn add(&self, key: Option<ServiceKey>) {
        if let Some(key) = key {
            self.services.lock().insert(key);
            self.wake.notify_one();
        }
    }

    async fn take(&self) -> BTreeSet<ServiceKey> {
        loop {
            let services = std::mem::take(&mut *self.services.lock());
            if !services.is_empty() {
                return services;
            }
            self.wake.notified().await;
        }
    }
}

/// Starts the proxy of `machine`. The kernel keeps its Services when the process ends.
///
/// # Errors
/// When the machine's namespace cannot be entered.
pub fn start(informers: &Informers, machine: &Arc<Machine>, config: Config, tasks: &Tasks) -> Result<Handle> {
    let place = machine.config();
    let node = Node {
        name: config.node_name,
        zone: config.zone,
        address: place.address(),
        pod_cidr: place.pod_cidr,
        cluster_cidr: place.cluster_cidr,
        service_cidr: place.service_cidr,
    };
    let table = Arc::new(Mutex::new(Table::open(machine.namespace(), node.clone())?));
    tracing::info!(node = node.name, services = %node.service_cidr, "programming Services into nftables");
    let services = informers.of::<Service>();
    let slices = informers.of::<EndpointSlice>().with_index(INDEX_SERVICE, |slice| {
        service_of(&slice.metadata).map(|key| key.to_string()).into_iter().collect()
    });
    let changed = Arc::new(Changed::default());
    let told = changed.clone();
    services.subscribe(move |change| told.add(change.object().and_then(|it| key_of(&it.metadata))));
    let told = changed.clone();
    slices.subscribe(move |change| {
        for slice in change.old.iter().chain(&change.new) {
            told.add(service_of(&slice.metadata));
        }
    });
    let (rounds, synced) = watch::channel(0);
    let handle = Handle { table: table.clone(), synced };
    let health = HealthChecks::new(machine.clone(), tasks.group("service-health"));
    tasks.spawn("proxy", run(Proxy { table, services, slices, node, changed, health, rounds }));
    Ok(handle)
}

struct Proxy {
    table: Arc<Mutex<Table>>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    node: Node,
    changed: Arc<Changed>,
    health: HealthChecks,
    rounds: watch::Sender<u64>,
}

async fn run(mut proxy: Proxy) {
    proxy.services.synced().await;
    proxy.slices.synced().await;
    let mut retry = RETRY_MIN;
    let mut first = true;
    loop {
        // The first round runs also without any Service: it replaces what an earlier process left.
        let keys = if first { std::mem::take(&mut *proxy.changed.services.lock()) } else { proxy.changed.take().await };
        first = false;
        let changes = proxy.compile(keys);
        proxy.health.set(&changes);
        let mut outcome = blocking(proxy.table.clone(), move |table| table.apply(changes)).await;
        while let Err(error) = outcome {
            tracing::error!(%error, "Services did not reach the kernel; writing all of them again");
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
            outcome = blocking(proxy.table.clone(), |table| table.apply([])).await;
        }
        retry = RETRY_MIN;
        proxy.rounds.send_modify(|rounds| *rounds += 1);
    }
}

impl Proxy {
    fn compile(&self, keys: BTreeSet<ServiceKey>) -> Vec<(ServiceKey, Compiled)> {
        let (services, slices) = (self.services.store(), self.slices.store());
        let one = |key: ServiceKey| {
            let Some(service) = services.get(&key.namespace, &key.name) else { return (key, Compiled::default()) };
            let slices: Vec<Arc<EndpointSlice>> = slices.indexed(INDEX_SERVICE, &key.to_string()).collect();
            let compiled = compile(&service, &slices, &self.node);
            (key, compiled)
        };
        keys.into_iter().map(one).collect()
    }
}

async fn blocking<T: Send + 'static>(
    table: Arc<Mutex<Table>>,
    work: impl FnOnce(&mut Table) -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(move || work(&mut table.lock()))
        .await
        .unwrap_or_else(|error| Err(NetError::invalid("run", "proxy task", error.to_string())))
}

fn key_of(meta: &ObjectMeta) -> Option<ServiceKey> {
    Some(ServiceKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?))
}

/// The Service a slice belongs to.
pub(crate) fn service_of(meta: &ObjectMeta) -> Option<ServiceKey> {
    let name = meta.labels.as_ref()?.get(LABEL_SERVICE_NAME)?;
    Some(ServiceKey::new(meta.namespace.as_deref()?, name))
}
