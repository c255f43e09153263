//! The endpoints of the `kubernetes` Service: the servers that live.
//!
//! As kube-apiserver's reconciler of type `lease`: each server keeps a key under `masterleases`
//! alive, named by its address, and writes the addresses of all such keys into the Endpoints and
//! the EndpointSlices. The key of a server that dies ends with its lease, and the others take its
//! address out. Who shares its store with nobody writes its own address and keeps no key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use skiff_object::{Map, Tree, json};
use skiff_store::{Entry, Error, Expect, Range};

use crate::authn::{MASTERS, UserInfo};
use crate::bootstrap::{self, BootstrapError, labels, object, port};
use crate::errors::ApiError;
use crate::meta;
use crate::server::{ApiServer, Local};
use crate::storage::storage_key;

/// Upstream's values: a key lives 15 s, and everybody looks every 10 s.
const TTL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(10);

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Whether other servers share the store.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Keep the endpoints of the `kubernetes` Service together with others.
    pub is_shared: bool,
}

/// Writes the endpoints, and puts them right every [`INTERVAL`] as long as the server lives.
///
/// # Errors
/// When the store or the server refuses.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), BootstrapError> {
    reconcile(server).await?;
    let server = Arc::clone(server);
    let tasks = server.config.tasks.clone();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn_draining("kubernetes endpoints", async move {
        while shutdown.until(server.config.clock.sleep(INTERVAL)).await.is_some() {
            // A store that hangs must not keep the server from ending.
            if let Some(Err(error)) = shutdown.until(reconcile(&server)).await {
                tracing::warn!(%error, "cannot reconcile the endpoints of the kubernetes Service, will try again");
            }
        }
        // A server that ends in order does not wait for its lease.
        if server.config.endpoint_lease.is_shared {
            let delete = server.config.store.delete(own_key(&server), Expect::Any);
            if !matches!(tokio::time::timeout(GOODBYE_TIMEOUT, delete).await, Ok(Ok(_))) {
                tracing::debug!("the server's lease is left to end by itself");
            }
        }
    });
    Ok(())
}

/// How long a server that ends waits for the store.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

async fn reconcile(server: &Arc<ApiServer>) -> Result<(), BootstrapError> {
    let mut alive = BTreeSet::from([server.config.advertise]);
    if server.config.endpoint_lease.is_shared {
        alive.extend(renew(server).await.map_err(|error| BootstrapError {
            path: "masterleases".into(),
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: error.to_string(),
        })?);
    }
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for address in &alive {
        by_port.entry(address.port()).or_default().push(address.ip());
    }
    let local = server.local(UserInfo::new("system:apiserver", &[MASTERS]));
    bootstrap::replace(&local, "/api/v1/namespaces/default/endpoints", &endpoints(&by_port)).await?;
    for (index, (port, addresses)) in by_port.iter().enumerate() {
        // Where all have one port, as upstream wants it, there is one slice under upstream's name.
        let name = if index == 0 { "kubernetes".to_owned() } else { format!("kubernetes-{port}") };
        bootstrap::replace(&local, SLICES, &endpoint_slice(&name, *port, addresses)).await?;
    }
    remove_others(server, &local, &by_port).await
}

/// Removes the slices of ports that no server has any more.
async fn remove_others(
    server: &ApiServer,
    local: &Local,
    by_port: &BTreeMap<u16, Vec<IpAddr>>,
) -> Result<(), BootstrapError> {
    let unreadable =
        |error: ApiError| BootstrapError { path: SLICES.into(), status: error.code, message: error.message };
    let slices = server.collection("discovery.k8s.io", "endpointslices");
    for item in slices.list("default").await.map_err(unreadable)? {
        let Ok(slice) = json::decode_untyped(&item.stored.value) else { continue };
        let name = meta::name(&slice);
        let of_port = name.strip_prefix("kubernetes-").and_then(|port| port.parse::<u16>().ok());
        let is_first = of_port.is_some() && of_port == by_port.keys().next().copied();
        if of_port.is_some_and(|port| is_first || !by_port.contains_key(&port))
            && slice.str_at(&["metadata", "labels", SERVICE_NAME]) == "kubernetes"
        {
            bootstrap::delete(local, &format!("{SLICES}/{name}")).await?;
        }
    }
    Ok(())
}

const SERVICE_NAME: &str = "kubernetes.io/service-name";

fn endpoints(by_port: &BTreeMap<u16, Vec<IpAddr>>) -> Tree {
    let mut endpoints = object("v1", "Endpoints", "default", "kubernetes");
    labels(&mut endpoints, &[("endpointslice.kubernetes.io/skip-mirror", "true")]);
    let address = |ip: &IpAddr| {
        let mut address = Map::new();
        address.insert("ip", ip.to_string());
        Tree::Map(address)
    };
    let subset = |(number, addresses): (&u16, &Vec<IpAddr>)| {
        let mut subset = Map::new();
        subset.insert("addresses", addresses.iter().map(address).collect::<Vec<_>>());
        subset.insert("ports", vec![Tree::Map(port(*number))]);
        Tree::Map(subset)
    };
    endpoints.set(&["subsets"], by_port.iter().map(subset).collect::<Vec<_>>());
    endpoints
}

fn endpoint_slice(name: &str, number: u16, addresses: &[IpAddr]) -> Tree {
    let mut slice = object("discovery.k8s.io/v1", "EndpointSlice", "default", name);
    labels(&mut slice, &[(SERVICE_NAME, "kubernetes")]);
    slice.set(&["addressType"], if addresses.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" });
    let endpoint = |ip: &IpAddr| {
        let mut endpoint = Tree::map();
        endpoint.set(&["addresses"], vec![Tree::from(ip.to_string())]);
        endpoint.set(&["conditions", "ready"], true);
        endpoint
    };
    slice.set(&["endpoints"], addresses.iter().map(endpoint).collect::<Vec<_>>());
    slice.set(&["ports"], vec![Tree::Map(port(number))]);
    slice
}

/// Keeps this server's key alive; the addresses of all servers.
async fn renew(server: &ApiServer) -> Result<Vec<SocketAddr>, Error> {
    let store = &server.config.store;
    let lease = store.grant(TTL).await?;
    store.put(own_key(server), own_value(server), Expect::Any, Some(lease.id)).await?;
    let prefix = prefix(server);
    let found = store.range(Range::prefix(&prefix)).await?;
    let own = server.config.advertise;
    let alive = found.entries.iter().filter_map(|entry| address(&prefix, entry, own.port()));
    Ok(alive.filter(|address| address.is_ipv4() == own.is_ipv4()).collect())
}

/// The address of the server that keeps this key: its name and the port in its value, for which
/// kube-apiserver has none.
fn address(prefix: &Bytes, entry: &Entry, port: u16) -> Option<SocketAddr> {
    let name = std::str::from_utf8(entry.key.strip_prefix(&prefix[..])?).ok()?;
    let ip: IpAddr = name.trim_start_matches('/').parse().ok()?;
    let value = json::decode_untyped(&entry.value).ok();
    let ports =
        value.as_ref().and_then(|value| value.list_at(&["subsets"]).first()).map(|subset| subset.list_at(&["ports"]));
    let named = ports.and_then(|ports| u16::try_from(ports.first()?.int_at(&["port"])?).ok());
    Some((ip, named.unwrap_or(port)).into())
}

fn prefix(server: &ApiServer) -> Bytes {
    let mut prefix = storage_key(&server.config.cluster, "", "masterleases", "", "").to_vec();
    prefix.pop();
    prefix.into()
}

fn own_key(server: &ApiServer) -> Bytes {
    let address = server.config.advertise.ip().to_string();
    storage_key(&server.config.cluster, "", "masterleases", "", &address)
}

/// Upstream keeps Endpoints there, which nobody reads but the address in them.
fn own_value(server: &ApiServer) -> Bytes {
    let mut address = Tree::map();
    address.set(&["ip"], server.config.advertise.ip().to_string());
    let mut subset = Tree::map();
    subset.set(&["addresses"], vec![address]);
    subset.set(&["ports"], vec![Tree::Map(port(server.config.advertise.port()))]);
    let mut endpoints = Tree::map();
    endpoints.set(&["kind"], "Endpoints");
    endpoints.set(&["apiVersion"], "v1");
    endpoints.set(&["metadata"], Tree::map());
    endpoints.set(&["subsets"], vec![subset]);
    json::encode_untyped(&endpoints).into()
}
