//! Addresses and node ports that do not fit their Services: found, put right where that can be
//! done, told as events where somebody has to choose.
//!
//! A crash between a record and its Service leaves a record that nobody needs; a restored backup
//! may leave Services without records, or two with one address. Runs at the start, every few
//! minutes, and at once when an IPAddress is deleted. Reasons and words are those of upstream's
//! `ipallocator-repair-controller` and `portallocator-repair-controller`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use skiff_base::Timestamp;
use skiff_object::{Tree, json};
use skiff_store::cache::Scope;
use skiff_store::{EventKind, Revision};

use super::addresses::{self, Owner};
use super::{Undo, services};
use crate::authn::{MASTERS, UserInfo};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// Upstream's interval.
const EVERY: Duration = Duration::from_secs(180);
/// A record whose Service is not there may belong to one that is being created: so long a request
/// may take.
const GRACE: Duration = Duration::from_secs(60);
/// Between two attempts after the store failed.
const RETRY: Duration = Duration::from_millis(500);
/// The label of addresses that this server gave out.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// Repairs once, and keeps looking until the server stops.
///
/// # Errors
/// When the store fails.
pub async fn start(server: &Arc<ApiServer>) -> ApiResult<()> {
    let mut repair = Repair {
        server: Arc::clone(server),
        leaked: HashMap::new(),
        waiting: false,
        until: Revision::default(),
        told: BTreeSet::new(),
    };
    server.begin_at(repair.revision().await?);
    server.config.tasks.spawn("allocation-repair", async move {
        loop {
            if let Err(error) = repair.follow().await {
                tracing::debug!(%error, "comparing Services with their addresses and ports anew");
            }
            repair.server.clock().sleep(RETRY).await;
        }
    });
    Ok(())
}

/// What a Service holds.
struct Held {
    object: Tree,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Held {
    fn of(object: Tree) -> Self {
        let (addresses, ports) = (services::addresses_of(&object), services::ports_of(&object));
        Self { object, addresses, ports }
    }
}

/// One finding, for an event.
struct Finding {
    controller: &'static str,
    reason: &'static str,
    action: &'static str,
    note: String,
}

struct Repair {
    server: Arc<ApiServer>,
    /// Ports without a Service, and since when: their records carry no time.
    leaked: HashMap<Bytes, (Revision, Timestamp)>,
    /// Something has to be looked at again when its grace is over.
    waiting: bool,
    /// What is written after this revision is not looked at yet.
    until: Revision,
    /// What has been told already: the uid of what it is about, and the note.
    told: BTreeSet<(String, String)>,
}

impl Repair {
    async fn revision(&self) -> ApiResult<Revision> {
        let collection = self.server.collection("networking.k8s.io", "ipaddresses");
        let snapshot = collection.cache().current().await.map_err(|error| collection.failure(error))?;
        Ok(snapshot.revision())
    }

    /// Looks at everything every few minutes, and at one Service when its IPAddress is deleted.
    async fn follow(&mut self) -> ApiResult<()> {
        let collection = self.server.collection("networking.k8s.io", "ipaddresses");
        let failure = |error| collection.failure(error);
        let snapshot = collection.cache().current().await.map_err(failure)?;
        let scope = Scope::prefix(&collection.prefix());
        let mut changes = collection.cache().watch(scope, snapshot.revision()).await.map_err(failure)?;
        let clock = self.server.clock().clone();
        loop {
            self.run().await?;
            let until = clock.instant() + if self.waiting { GRACE } else { EVERY };
            loop {
                let pause = until.saturating_duration_since(clock.instant());
                tokio::select! {
                    biased;
                    change = changes.next() => {
                        let change = change.map_err(failure)?;
                        if change.kind == EventKind::Delete {
                            self.restore(&change.current.stored.value).await?;
                        }
                    }
                    () = clock.sleep(pause) => break,
                }
            }
        }
    }

    /// An IPAddress was deleted: a Service that has the address gets it back.
    async fn restore(&mut self, record: &[u8]) -> ApiResult<()> {
        let record = json::decode_untyped(record).map_err(ApiError::internal)?;
        let Some((key, address)) = parent(&record).zip(meta::name(&record).parse::<IpAddr>().ok()) else {
            return Ok(());
        };
        let Some(service) = self.server.collection("", "services").get(&key.0, &key.1).await? else { return Ok(()) };
        let service = Held::of(json::decode_untyped(&service.value).map_err(ApiError::internal)?);
        let records = self.server.collection("networking.k8s.io", "ipaddresses");
        if !service.addresses.contains(&address) || records.get("", &address.to_string()).await?.is_some() {
            return Ok(());
        }
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        self.address_of(&key, &service, address, family, None, &BTreeMap::new()).await
    }

    async fn run(&mut self) -> ApiResult<()> {
        self.waiting = false;
        self.until = self.revision().await?;
        let mut held = BTreeMap::new();
        for item in self.server.collection("", "services").list("").await? {
            let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            let key = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
            held.insert(key, Held::of(object));
        }
        self.addresses(&held).await?;
        self.ports(&held).await
    }

    /// Whether a Service is still as it was listed: it may be on its way out.
    async fn still_holds(&self, key: &(String, String), holds: impl Fn(&Tree) -> bool) -> ApiResult<bool> {
        let Some(now) = self.server.collection("", "services").get(&key.0, &key.1).await? else { return Ok(false) };
        let now = json::decode_untyped(&now.value).map_err(ApiError::internal)?;
        Ok(holds(&now))
    }

    async fn addresses(&mut self, held: &BTreeMap<(String, String), Held>) -> ApiResult<()> {
        let networks = addresses::networks(&self.server).await?;
        // Read after the Services: an address is recorded before its Service is made.
        let mut records: BTreeMap<IpAddr, Tree> = BTreeMap::new();
        for item in self.server.collection("networking.k8s.io", "ipaddresses").list("").await? {
            let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            if let Ok(address) = meta::name(&object).parse() {
                records.insert(address, object);
            }
        }
        for (key, service) in held {
            for address in &service.addresses {
                let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                if !networks.iter().any(|network| addresses::in_range(*network, *address)) {
                    let note = format!(
                        "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
                    );
                    self.tell(&service.object, ip_finding("ClusterIPOutOfRange", note)).await;
                    continue;
                }
                self.address_of(key, service, *address, family, records.get(address), held).await?;
            }
        }
        for (address, record) in records {
            if meta::label(&record, MANAGED_BY) == Some(ALLOCATOR) {
                self.record_of_address(address, &record, held).await?;
            }
        }
        Ok(())
    }

    /// A Service's address has a record that names it.
    async fn address_of(
        &mut self,
        key: &(String, String),
        service: &Held,
        address: IpAddr,
        family: &str,
        record: Option<&Tree>,
        held: &BTreeMap<(String, String), Held>,
    ) -> ApiResult<()> {
        let (note, replace) = match record {
            None => (format!("Cluster IP [{family}]: {address} is not allocated; repairing"), false),
            Some(record) => match parent(record) {
                Some(parent) if parent == *key && has_labels(record, address) => return Ok(()),
                Some(parent)
                    if parent != *key && held.get(&parent).is_some_and(|one| one.addresses.contains(&address)) =>
                {
                    let note = format!(
                        "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
                    );
                    self.tell(&service.object, ip_finding("ClusterIPAlreadyAllocated", note)).await;
                    return Ok(());
                }
                _ => {
                    let (namespace, name) = key;
                    let note = format!(
                        "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
                    );
                    (note, true)
                }
            },
        };
        if !self.still_holds(key, |now| services::addresses_of(now).contains(&address)).await? {
            return Ok(());
        }
        self.tell(&service.object, ip_finding("ClusterIPNotAllocated", note)).await;
        if replace {
            addresses::release_address(&self.server, address, self.until).await;
        }
        // What is taken is to stay: nothing is undone.
        let mut kept = Undo::default();
        let owner = Owner { namespace: &key.0, name: &key.1 };
        addresses::take_address(&self.server, address, owner, &mut kept).await?;
        kept.keep();
        Ok(())
    }

    /// A record names a Service that has the address.
    async fn record_of_address(
        &mut self,
        address: IpAddr,
        record: &Tree,
        held: &BTreeMap<(String, String), Held>,
    ) -> ApiResult<()> {
        let Some(key) = parent(record) else {
            let note =
                format!("IPAddress: {address} appears to have been modified, not referencing a Service; cleaning up");
            self.tell(record, ip_address_finding("IPAddressNotAllocated", note)).await;
            addresses::release_address(&self.server, address, self.until).await;
            return Ok(());
        };
        let holds = |now: &Tree| services::addresses_of(now).contains(&address);
        if held.get(&key).is_some_and(|service| service.addresses.contains(&address)) {
            return Ok(());
        }
        if self.still_holds(&key, holds).await? {
            return Ok(());
        }
        let made =
            meta::parse_time(record.str_at(&["metadata", "creationTimestamp"])).unwrap_or(Timestamp::from_secs(0));
        if self.server.clock().now().since(made) < GRACE {
            self.waiting = true;
            return Ok(());
        }
        let (namespace, name) = &key;
        let (reason, note) = if held.contains_key(&key) {
            let note =
                format!("IPAddress: {address} for Service {namespace}/{name} has a wrong reference; cleaning up");
            ("IPAddressWrongReference", note)
        } else {
            let note =
                format!("IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up");
            ("IPAddressNotAllocated", note)
        };
        self.tell(record, ip_address_finding(reason, note)).await;
        addresses::release_address(&self.server, address, self.until).await;
        Ok(())
    }

    async fn ports(&mut self, held: &BTreeMap<(String, String), Held>) -> ApiResult<()> {
        let (first, last) = self.server.config.node_ports;
        let mut records: BTreeMap<u16, (String, Bytes, Revision)> = BTreeMap::new();
        for item in self.server.collection("skiff.internal", "nodeports").list("").await? {
            if let Ok(port) = item.place().1.parse() {
                let owner = String::from_utf8_lossy(&item.stored.value).into_owned();
                records.insert(port, (owner, addresses::port_key(&self.server, port), item.stored.revision));
            }
        }
        for (key, service) in held {
            for port in &service.ports {
                if !(first..=last).contains(port) {
                    let note =
                        format!("Port {port} is not within the port range {first}-{last}; please recreate service");
                    self.tell(&service.object, port_finding("PortOutOfRange", note)).await;
                    continue;
                }
                let owner = records.get(port).map(|(owner, ..)| owner.as_str());
                self.port_of(key, service, *port, owner, held).await?;
            }
        }
        let used: BTreeSet<u16> = held.values().flat_map(|service| service.ports.iter().copied()).collect();
        for (port, (_, key, revision)) in records {
            if used.contains(&port) {
                self.leaked.remove(&key);
                continue;
            }
            let now = self.server.clock().now();
            let since = self.leaked.entry(key.clone()).or_insert((revision, now));
            if since.0 != revision {
                *since = (revision, now);
            }
            if now.since(since.1) < GRACE {
                self.waiting = true;
                continue;
            }
            self.leaked.remove(&key);
            tracing::warn!(port, "a node port that no Service has was given back");
            addresses::release_port(&self.server, port, self.until).await;
        }
        Ok(())
    }

    /// A Service's port has a record that names it.
    async fn port_of(
        &mut self,
        key: &(String, String),
        service: &Held,
        port: u16,
        owner: Option<&str>,
        held: &BTreeMap<(String, String), Held>,
    ) -> ApiResult<()> {
        match owner.and_then(|text| port_owner(text.as_bytes())) {
            Some(owner) if owner == *key => return Ok(()),
            Some(owner) if held.get(&owner).is_some_and(|one| one.ports.contains(&port)) => {
                let note = format!("Port {port} was assigned to multiple services; please recreate service");
                self.tell(&service.object, port_finding("PortAlreadyAllocated", note)).await;
                return Ok(());
            }
            Some(_) => addresses::release_port(&self.server, port, self.until).await,
            None => {}
        }
        if !self.still_holds(key, |now| services::ports_of(now).contains(&port)).await? {
            return Ok(());
        }
        let note = format!("Port {port} is not allocated; repairing");
        self.tell(&service.object, port_finding("PortNotAllocated", note)).await;
        let mut kept = Undo::default();
        let owner = Owner { namespace: &key.0, name: &key.1 };
        addresses::take_port(&self.server, port, owner, &mut kept).await?;
        kept.keep();
        Ok(())
    }

    /// Records an event, once as long as this server runs.
    async fn tell(&mut self, about: &Tree, finding: Finding) {
        tracing::warn!(namespace = meta::namespace(about), name = meta::name(about), "{}", finding.note);
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        if !self.told.insert((meta::uid(about).to_owned(), finding.note.clone())) {
            return;
        }
        let namespace = match meta::namespace(about) {
            "" => "default",
            namespace => namespace,
        };
        let event = event(&self.server, about, namespace, &finding);
        let local = self.server.local(UserInfo::new("system:apiserver", &[MASTERS]));
        let request = Request::post(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(json::encode_untyped(&event)));
        if let Ok(request) = request {
            let status = local.call(request).await.status();
            if !status.is_success() {
                tracing::debug!(%status, "an event was not written");
            }
        }
    }
}

/// Findings remembered as told; beyond, some are told twice.
const TOLD_MAX: usize = 4_096;

fn ip_finding(reason: &'static str, note: String) -> Finding {
    Finding { controller: "ipallocator-repair-controller", reason, action: "ClusterIPAllocation", note }
}

fn ip_address_finding(reason: &'static str, note: String) -> Finding {
    Finding { controller: "ipallocator-repair-controller", reason, action: "IPAddressAllocation", note }
}

fn port_finding(reason: &'static str, note: String) -> Finding {
    Finding { controller: "portallocator-repair-controller", reason, action: "PortAllocation", note }
}

/// The Service that the record of a port names.
pub(super) fn port_owner(record: &[u8]) -> Option<(String, String)> {
    let (namespace, name) = std::str::from_utf8(record).ok()?.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// The Service that the record of an address names.
pub(super) fn parent(record: &Tree) -> Option<(String, String)> {
    let field = |name: &str| record.str_at(&["spec", "parentRef", name]);
    let is_service = field("group").is_empty() && field("resource") == "services";
    is_service.then(|| (field("namespace").to_owned(), field("name").to_owned()))
}

fn has_labels(record: &Tree, address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    meta::label(record, MANAGED_BY) == Some(ALLOCATOR)
        && meta::label(record, "ipaddress.kubernetes.io/ip-family") == Some(family)
}

fn event(server: &ApiServer, about: &Tree, namespace: &str, finding: &Finding) -> Tree {
    let now = skiff_object::time::Time::from_nanos(server.clock().now().as_nanos());
    let mut event = Tree::map();
    event.set(&["apiVersion"], "events.k8s.io/v1");
    event.set(&["kind"], "Event");
    event.set(&["metadata", "name"], format!("{}.{}", meta::name(about), server.random().suffix(16)));
    event.set(&["metadata", "namespace"], namespace);
    event.set(&["eventTime"], now.rfc3339_micro());
    event.set(&["reportingController"], finding.controller);
    event.set(&["reportingInstance"], finding.controller);
    event.set(&["action"], finding.action);
    event.set(&["reason"], finding.reason);
    event.set(&["type"], "Warning");
    event.set(&["note"], finding.note.as_str());
    for (field, value) in [
        ("apiVersion", about.str_at(&["apiVersion"])),
        ("kind", about.str_at(&["kind"])),
        ("namespace", meta::namespace(about)),
        ("name", meta::name(about)),
        ("uid", meta::uid(about)),
    ] {
        event.set(&["regarding", field], value);
    }
    event
}
