//! The endpoints of the `kubernetes` Service when several servers share a store.
//!
//! As kube-apiserver's reconciler of type `lease`: each server keeps a key under `masterleases`
//! alive, named by its address, and writes the addresses of all such keys into the Endpoints and
//! the EndpointSlice. The key of a server that dies ends with its lease, and the others take its
//! address out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skiff_object::{Tree, json};
use skiff_store::{Error, Expect, Range};

use crate::bootstrap;
use crate::server::ApiServer;
use crate::storage::storage_key;

/// Upstream's values: a key lives 15 s, and everybody looks every 10 s.
const TTL: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(10);

/// Whether other servers share the store.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Keep the endpoints of the `kubernetes` Service together with others. Else this server's
    /// address alone is written when it starts.
    pub is_shared: bool,
}

/// Writes the endpoints, and follows them as long as the server lives if the store is shared.
///
/// # Errors
/// When the store or the server refuses.
pub(crate) async fn start(server: &Arc<ApiServer>) -> Result<(), bootstrap::BootstrapError> {
    if !server.config.endpoint_lease.is_shared {
        return bootstrap::write_endpoints(server, &[server.config.advertise.ip()]).await;
    }
    let mut known = Vec::new();
    reconcile(server, &mut known).await?;
    let server = Arc::clone(server);
    let tasks = server.config.tasks.clone();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn_draining("kubernetes endpoints", async move {
        while shutdown.until(server.config.clock.sleep(INTERVAL)).await.is_some() {
            if let Err(error) = reconcile(&server, &mut known).await {
                tracing::warn!(%error, "cannot reconcile the endpoints of the kubernetes Service, will try again");
            }
        }
        // A server that ends in order does not wait for its lease.
        if let Err(error) = server.config.store.delete(own_key(&server), Expect::Any).await {
            tracing::debug!(%error, "the server's lease is left to end by itself");
        }
    });
    Ok(())
}

async fn reconcile(server: &Arc<ApiServer>, known: &mut Vec<IpAddr>) -> Result<(), bootstrap::BootstrapError> {
    let alive = renew(server).await.map_err(|error| bootstrap::BootstrapError {
        path: "masterleases".into(),
        status: http::StatusCode::SERVICE_UNAVAILABLE,
        message: error.to_string(),
    })?;
    if alive != *known {
        bootstrap::write_endpoints(server, &alive).await?;
        *known = alive;
    }
    Ok(())
}

/// Keeps this server's key alive; the addresses of all servers.
async fn renew(server: &ApiServer) -> Result<Vec<IpAddr>, Error> {
    let store = &server.config.store;
    let lease = store.grant(TTL).await?;
    store.put(own_key(server), own_value(server), Expect::Any, Some(lease.id)).await?;
    let prefix = prefix(server);
    let found = store.range(Range::prefix(&prefix)).await?;
    let name = |key: &Bytes| std::str::from_utf8(&key[prefix.len()..]).ok()?.trim_start_matches('/').parse().ok();
    let mut alive: Vec<IpAddr> = found.entries.iter().filter_map(|entry| name(&entry.key)).collect();
    alive.sort_unstable();
    Ok(alive)
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
    let mut endpoints = Tree::map();
    endpoints.set(&["kind"], "Endpoints");
    endpoints.set(&["apiVersion"], "v1");
    endpoints.set(&["metadata"], Tree::map());
    endpoints.set(&["subsets"], vec![subset]);
    json::encode_untyped(&endpoints).into()
}
