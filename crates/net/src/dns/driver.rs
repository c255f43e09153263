//! Keeps the zone current from informers and starts the server.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use parking_lot::Mutex;
use skiff_base::{Clock, Random, Tasks};
use skiff_client::{Informer, Informers};
use tokio::sync::{Notify, watch};

use super::forward::Forwarder;
use super::server::Server;
use super::zone::{Headless, Port, Service, Zone};
use super::{Config, Counters};
use crate::error::{NetError, Result};
use crate::machine::Machine;
use crate::proxy::{Protocol, ServiceKey, service_of};

/// The same index as the proxy's: the informer is shared.
const INDEX_SERVICE: &str = "service";

/// A running DNS server. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    address: SocketAddrV4,
    zone: Arc<ArcSwap<Zone>>,
    counters: Arc<Counters>,
    synced: watch::Receiver<bool>,
}

impl Handle {
    /// Where it listens, UDP and TCP: the endpoint of the `kube-dns` Service.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Waits until every name known at the start is served.
    pub async fn synced(&self) {
        let _ = self.synced.clone().wait_for(|synced| *synced).await;
    }

    /// Whether every name known at the start is served.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The names served now.
    pub fn zone(&self) -> Arc<Zone> {
        self.zone.load_full()
    }

    /// What it has done.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

/// What may have changed since it was last looked at.
#[derive(Default)]
struct Changed {
    keys: Mutex<Keys>,
    wake: Notify,
}

#[derive(Default)]
struct Keys {
    services: BTreeSet<ServiceKey>,
    namespaces: BTreeSet<String>,
}

impl Changed {
    fn add(&self, add: impl FnOnce(&mut Keys)) {
        add(&mut self.keys.lock());
        self.wake.notify_one();
    }
}

/// Starts the cluster's DNS on the address of `machine`. Before the informers have synced,
/// cluster names do not exist; wait for [`Handle::synced`] to call the node ready.
///
/// # Errors
/// When the domain is no name or the address is taken.
pub fn start(
    informers: &Informers,
    machine: &Machine,
    config: Config,
    clock: &Clock,
    random: &Random,
    tasks: &Tasks,
) -> Result<Handle> {
    let zone = Zone::new(&config.domain, &config.reverse, config.service_address)
        .ok_or_else(|| NetError::invalid("serve DNS for", config.domain.as_str(), "not a domain name"))?;
    let address = SocketAddrV4::new(machine.config().address(), config.port);
    let datagrams = machine.udp_bind(address)?;
    let streams = machine.tcp_listen(SocketAddr::V4(address))?;
    let zone = Arc::new(ArcSwap::from_pointee(zone));
    let counters = Arc::new(Counters::default());
    let ours = vec![IpAddr::V4(config.service_address), IpAddr::V4(*address.ip())];
    let forwarder = Forwarder::new(config.resolv_conf, ours, clock.clone(), random.clone(), counters.clone());
    let tasks = tasks.group("dns");
    tracing::info!(%address, domain = config.domain, "answering");
    Arc::new(Server::new(zone.clone(), forwarder, counters.clone())).serve(datagrams, streams, &tasks);

    let changed = Arc::new(Changed::default());
    let names = Names {
        services: informers.of::<core::Service>(),
        slices: informers.of::<EndpointSlice>().with_index(INDEX_SERVICE, |slice| {
            service_of(&slice.metadata).map(|key| key.to_string()).into_iter().collect()
        }),
        namespaces: informers.of::<core::Namespace>(),
        zone: zone.clone(),
    };
    names.subscribe(&changed);
    let (sender, synced) = watch::channel(false);
    tasks.spawn("names", names.run(changed, sender));
    Ok(Handle { address, zone, counters, synced })
}

struct Names {
    services: Informer<core::Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<core::Namespace>,
    zone: Arc<ArcSwap<Zone>>,
}

impl Names {
    fn subscribe(&self, changed: &Arc<Changed>) {
        let told = changed.clone();
        self.services.subscribe(move |change| {
            let key = change.key();
            told.add(|keys| keys.services.extend([ServiceKey::new(&key.namespace, &key.name)]));
        });
        let told = changed.clone();
        self.slices.subscribe(move |change| {
            let both = change.old.iter().chain(&change.new);
            let services: Vec<ServiceKey> = both.filter_map(|slice| service_of(&slice.metadata)).collect();
            told.add(|keys| keys.services.extend(services));
        });
        let told = changed.clone();
        self.namespaces.subscribe(move |change| {
            let key = change.key();
            told.add(|keys| keys.namespaces.extend([key.name]));
        });
    }

    async fn run(self, changed: Arc<Changed>, synced: watch::Sender<bool>) {
        self.services.synced().await;
        self.slices.synced().await;
        self.namespaces.synced().await;
        loop {
            let keys = std::mem::take(&mut *changed.keys.lock());
            if !keys.services.is_empty() || !keys.namespaces.is_empty() {
                self.update(keys);
            }
            synced.send_replace(true);
            changed.wake.notified().await;
        }
    }

    fn update(&self, keys: Keys) {
        let (services, slices, namespaces) = (self.services.store(), self.slices.store(), self.namespaces.store());
        let mut zone = Zone::clone(&self.zone.load());
        for namespace in keys.namespaces {
            let present = namespaces.get("", &namespace).is_some();
            zone.set_namespace(&namespace, present);
        }
        for key in keys.services {
            let service = services.get(&key.namespace, &key.name).and_then(|service| {
                let slices: Vec<Arc<EndpointSlice>> = slices.indexed(INDEX_SERVICE, &key.to_string()).collect();
                names_of(&service, &slices)
            });
            zone.set_service(&key, service);
        }
        self.zone.store(Arc::new(zone));
    }
}

/// What a Service's names say.
fn names_of(service: &core::Service, slices: &[Arc<EndpointSlice>]) -> Option<Service> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        let mut target = Name::from_ascii(spec.external_name.as_deref()?).ok()?;
        target.set_fqdn(true);
        return Some(Service::External(target));
    }
    // Not ready pods have names only if the Service publishes them.
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let endpoints = || slices.iter().flat_map(|slice| endpoints_of(slice, publish_all)).collect::<Vec<_>>();
    if spec.cluster_ip.as_deref() == Some("None") {
        return Some(Service::Headless(distinct(endpoints())));
    }
    let addresses: BTreeSet<IpAddr> =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|it| it.parse().ok()).collect();
    if addresses.is_empty() {
        return None;
    }
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
            number: u16::try_from(port.port).ok()?,
        })
    });
    let named = distinct(endpoints()).into_iter().filter(|it| it.hostname.is_some()).collect();
    Some(Service::Cluster { addresses: addresses.into_iter().collect(), ports: ports.collect(), named })
}

fn endpoints_of(slice: &EndpointSlice, publish_all: bool) -> Vec<Headless> {
    let ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
                number: u16::try_from(port.port?).ok()?,
            })
        })
        .collect();
    let is_ready = |it: &&Endpoint| publish_all || it.conditions.as_ref().and_then(|it| it.ready) != Some(false);
    let endpoints = slice.endpoints.iter().flatten().filter(is_ready);
    let all = endpoints.flat_map(|endpoint| {
        let hostname = endpoint.hostname.clone().filter(|it| !it.is_empty());
        let ports = ports.clone();
        endpoint.addresses.iter().filter_map(|address| address.parse().ok()).map(move |address| Headless {
            address,
            hostname: hostname.clone(),
            ports: ports.clone(),
        })
    });
    all.collect()
}

/// One entry per address: a pod may be in several slices, with other ports.
fn distinct(mut endpoints: Vec<Headless>) -> Vec<Headless> {
    endpoints.sort_by(|a, b| (a.address, &a.hostname).cmp(&(b.address, &b.hostname)));
    endpoints.dedup_by(|next, kept| {
        let same = next.address == kept.address;
        if same {
            let new = std::mem::take(&mut next.ports).into_iter().filter(|port| !kept.ports.contains(port));
            let new: Vec<Port> = new.collect();
            kept.ports.extend(new);
            if kept.hostname.is_none() {
                kept.hostname = next.hostname.take();
            }
        }
        same
    });
    endpoints
}
