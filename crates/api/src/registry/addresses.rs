//! Cluster addresses and node ports: each one that is taken is a record of its own in the store,
//! made only if it is absent. So two servers can never give out the same one.
//!
//! Addresses are recorded as `IPAddress` objects, as upstream does since 1.33; ports have no kind
//! and are recorded beside the API.

use std::collections::HashSet;
use std::net::IpAddr;

use bytes::Bytes;
use skiff_object::{Tree, json};
use skiff_store::{Error, Expect, Revision};

use super::{Undo, repair};
use crate::bootstrap::address_in;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;
use crate::storage::storage_key;
use crate::write::encode_stored;

/// Random picks before everything is looked through in order.
const PICKS: usize = 16;
/// Addresses at the bottom of a network that are left for clients that choose (KEP-3070).
const STATIC_ADDRESSES_MIN: u128 = 16;
const STATIC_ADDRESSES_MAX: u128 = 256;
/// Node ports at the bottom that are left for clients that choose (KEP-3668).
const STATIC_PORTS_MIN: u16 = 16;
const STATIC_PORTS_MAX: u16 = 128;
/// Addresses of one network that are looked through in order: a cluster has no more Services.
const SEARCHED_MAX: u128 = 1 << 20;

/// Who an address or a port is for.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    /// The namespace of the Service.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Takes one address that is asked for by name; says whether it was free.
///
/// # Errors
/// When the store fails.
pub async fn take_address(server: &ApiServer, address: IpAddr, owner: Owner<'_>, undo: &mut Undo) -> ApiResult<bool> {
    let registry = server.registry();
    let kind = registry
        .resource("networking.k8s.io", "v1", "ipaddresses")
        .ok_or_else(|| ApiError::internal("IP addresses are not served"))?;
    let mut object = Tree::map();
    object.set(&["kind"], "IPAddress");
    object.set(&["apiVersion"], "networking.k8s.io/v1");
    object.set(&["metadata", "name"], address.to_string());
    object.set(&["metadata", "uid"], server.random().uuid());
    object.set(&["metadata", "creationTimestamp"], meta::time(server.clock().now()));
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    object.set(&["metadata", "labels", "ipaddress.kubernetes.io/ip-family"], family);
    object.set(&["metadata", "labels", "ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    for (field, value) in
        [("group", ""), ("resource", "services"), ("namespace", owner.namespace), ("name", owner.name)]
    {
        object.set(&["spec", "parentRef", field], value);
    }
    let value = encode_stored(kind.as_ref(), &object)?;
    if put(server, address_key(server, address), value.clone(), undo).await? {
        return Ok(true);
    }
    inherit(server, address_key(server, address), value, owner, |record| {
        json::decode_untyped(record).ok().as_ref().and_then(repair::parent)
    })
    .await
}

pub(super) fn address_key(server: &ApiServer, address: IpAddr) -> Bytes {
    storage_key(&server.config.cluster, "networking.k8s.io", "ipaddresses", "", &address.to_string())
}

pub(super) fn port_key(server: &ApiServer, port: u16) -> Bytes {
    storage_key(&server.config.cluster, "skiff.internal", "nodeports", "", &port.to_string())
}

async fn put(server: &ApiServer, key: Bytes, value: Bytes, undo: &mut Undo) -> ApiResult<bool> {
    match server.config.store.put(key.clone(), value, Expect::Absent, None).await {
        Ok(put) => {
            undo.add(key, put.entry.mod_revision);
            Ok(true)
        }
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(ApiError::unavailable(error.to_string())),
    }
}

/// Takes over a record that is there already and names this very Service, when it is older than
/// this server: one that died between the record and the Service left it behind. Nothing takes it
/// back: if another server is still about to make the same Service, one of the two needs it. And
/// if the Service is there and has it, nothing is lost: the write that follows fails.
async fn inherit(
    server: &ApiServer,
    key: Bytes,
    value: Bytes,
    owner: Owner<'_>,
    owner_of: impl Fn(&[u8]) -> Option<(String, String)>,
) -> ApiResult<bool> {
    let unavailable = |error: Error| ApiError::unavailable(error.to_string());
    let found = server.config.store.get(&key, None).await.map_err(unavailable)?;
    let Some(record) = found.entry.filter(|record| record.mod_revision <= server.began_at()) else { return Ok(false) };
    let named = owner_of(&record.value);
    if named.is_none_or(|(namespace, name)| namespace != owner.namespace || name != owner.name) {
        return Ok(false);
    }
    match server.config.store.put(key, value, Expect::Revision(record.mod_revision), None).await {
        Ok(_) => Ok(true),
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(unavailable(error)),
    }
}

/// How many addresses a network has for Services: all but its own and, in IPv4, the broadcast one.
pub fn usable((network, prefix): (IpAddr, u8)) -> u128 {
    let bits = if network.is_ipv4() { 32 } else { 128 };
    let size = 1_u128.checked_shl(u32::from(bits - prefix.min(bits))).unwrap_or(u128::MAX);
    size.saturating_sub(if network.is_ipv4() { 2 } else { 1 })
}

/// Whether an address lies in the network of Services.
pub fn in_range(network: (IpAddr, u8), address: IpAddr) -> bool {
    network.0.is_ipv4() == address.is_ipv4() && {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let shift = u32::from(bits - network.1.min(bits));
        let first = number(address_in(network, 0));
        number(address).checked_shr(shift).unwrap_or(0) == first.checked_shr(shift).unwrap_or(0)
            && (1..=usable(network)).contains(&(number(address) - first))
    }
}

/// The networks that Services get addresses from now: those of the ServiceCIDRs that are ready. The
/// one of the configuration counts as long as there is no ServiceCIDR at all.
///
/// # Errors
/// When the store fails.
pub async fn networks(server: &ApiServer) -> ApiResult<Vec<(IpAddr, u8)>> {
    let own = server.config.service_cidr;
    let items = server.collection("networking.k8s.io", "servicecidrs").list("").await?;
    if items.is_empty() {
        return Ok(vec![own]);
    }
    let mut networks = Vec::new();
    for item in items {
        let object = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        let ready = object.list_at(&["status", "conditions"]).iter().find(|one| one.str_at(&["type"]) == "Ready");
        // Without the condition it counts as ready: who sets it may not run.
        if meta::is_deleting(&object) || ready.is_some_and(|one| one.str_at(&["status"]) != "True") {
            continue;
        }
        let blocks = object.list_at(&["spec", "cidrs"]).iter().filter_map(Tree::as_str);
        for network in blocks.filter_map(parse_network).filter(|network| network.0.is_ipv4() == own.0.is_ipv4()) {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
    }
    Ok(networks)
}

/// `10.96.0.0/16`
pub(super) fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse().ok().filter(|prefix| *prefix <= bits).map(|prefix| (address, prefix))
}

/// Takes any free address.
///
/// # Errors
/// When none is left.
pub async fn any_address(server: &ApiServer, owner: Owner<'_>, dry_run: bool, undo: &mut Undo) -> ApiResult<IpAddr> {
    let mut networks = networks(server).await?;
    // Each one's chance is as good: which one is asked first says nothing about how full it is.
    if !networks.is_empty() {
        let begin = server.random().below(networks.len() as u64) as usize;
        networks.rotate_left(begin);
    }
    for network in networks {
        if let Some(address) = any_of(server, network, owner, dry_run, undo).await? {
            return Ok(address);
        }
    }
    Err(ApiError::internal("failed to allocate a serviceIP: range is full"))
}

/// How many addresses at the bottom of a network of `size` are left for clients that choose.
fn reserved(size: u128) -> u128 {
    if size <= STATIC_ADDRESSES_MIN { 0 } else { (size / 16).clamp(STATIC_ADDRESSES_MIN, STATIC_ADDRESSES_MAX) }
}

async fn any_of(
    server: &ApiServer,
    network: (IpAddr, u8),
    owner: Owner<'_>,
    dry_run: bool,
    undo: &mut Undo,
) -> ApiResult<Option<IpAddr>> {
    let size = usable(network);
    let reserved = reserved(size.saturating_add(if network.0.is_ipv4() { 2 } else { 1 })).min(size);
    let upper = u64::try_from(size - reserved).unwrap_or(u64::MAX);
    for _ in 0..PICKS.min(usize::try_from(upper).unwrap_or(PICKS)) {
        let address = address_in(network, reserved + 1 + u128::from(server.random().below(upper)));
        if dry_run || take_address(server, address, owner, undo).await? {
            return Ok(Some(address));
        }
    }
    // Crowded: look what is taken, then go through the rest in order.
    let taken = server.collection("networking.k8s.io", "ipaddresses").list("").await?;
    let taken: HashSet<IpAddr> = taken.iter().filter_map(|item| item.place().1.parse().ok()).collect();
    let limit = size.min(SEARCHED_MAX);
    for offset in (reserved + 1..=limit).chain(1..=reserved.min(limit)) {
        let address = address_in(network, offset);
        if !taken.contains(&address) && take_address(server, address, owner, undo).await? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Takes one node port that is asked for by number; says whether it was free.
///
/// # Errors
/// When the store fails.
pub async fn take_port(server: &ApiServer, port: u16, owner: Owner<'_>, undo: &mut Undo) -> ApiResult<bool> {
    let value = Bytes::from(format!("{}/{}", owner.namespace, owner.name));
    if put(server, port_key(server, port), value.clone(), undo).await? {
        return Ok(true);
    }
    inherit(server, port_key(server, port), value, owner, repair::port_owner).await
}

/// Takes any free node port.
///
/// # Errors
/// When none is left.
pub async fn any_port(server: &ApiServer, owner: Owner<'_>, dry_run: bool, undo: &mut Undo) -> ApiResult<u16> {
    let (first, last) = server.config.node_ports;
    let count = last.saturating_sub(first).saturating_add(1);
    let reserved = reserved_ports(count);
    for _ in 0..PICKS {
        let port = first + reserved + server.random().below(u64::from(count - reserved)) as u16;
        if dry_run || take_port(server, port, owner, undo).await? {
            return Ok(port);
        }
    }
    for port in (first + reserved..=last).chain(first..first + reserved) {
        if take_port(server, port, owner, undo).await? {
            return Ok(port);
        }
    }
    Err(ApiError::internal("failed to allocate a nodePort: range is full"))
}

/// How many ports at the bottom of a range are left for clients that choose.
fn reserved_ports(count: u16) -> u16 {
    if count <= STATIC_PORTS_MIN { 0 } else { (count / 32).clamp(STATIC_PORTS_MIN, STATIC_PORTS_MAX) }
}

/// Gives an address back, unless it was taken again after revision `until`.
pub async fn release_address(server: &ApiServer, address: IpAddr, until: Revision) {
    release(server, address_key(server, address), until).await;
}

/// Gives a node port back, unless it was taken again after revision `until`.
pub async fn release_port(server: &ApiServer, port: u16, until: Revision) {
    release(server, port_key(server, port), until).await;
}

async fn release(server: &ApiServer, key: Bytes, until: Revision) {
    let store = &server.config.store;
    let outcome = match store.get(&key, None).await {
        Ok(found) => match found.entry.filter(|record| record.mod_revision <= until) {
            Some(record) => store.delete(key, Expect::Revision(record.mod_revision)).await.map(drop),
            None => Ok(()),
        },
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) | Err(Error::Conflict { .. }) => {}
        // The repair finds it unused.
        Err(error) => tracing::warn!(%error, "could not give an allocation back"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_at_the_bottom_is_left_for_clients_that_choose() {
        // The examples of KEP-3070 and KEP-3668.
        for (size, expected) in [(16, 0), (32, 16), (256, 16), (4_096, 256), (65_536, 256)] {
            assert_eq!(reserved(size), expected, "{size}");
        }
        for (count, expected) in [(16, 0), (17, 16), (200, 16), (2_768, 86), (10_000, 128)] {
            assert_eq!(reserved_ports(count), expected, "{count}");
        }
    }

    #[test]
    fn the_network_and_its_broadcast_are_never_given_out() {
        let network: (IpAddr, u8) = ("10.96.0.0".parse().unwrap(), 24);
        let check = |address: &str| in_range(network, address.parse().unwrap());
        assert!(check("10.96.0.1") && check("10.96.0.254"));
        assert!(!check("10.96.0.0") && !check("10.96.0.255") && !check("10.96.1.1") && !check("fd00::1"));
    }
}
