//! A Service as the addresses behind it, read from the server's own caches.

use std::net::SocketAddr;

use skiff_object::{Tree, json};

use super::{Error, Way};
use crate::errors::ApiError;
use crate::meta;
use crate::storage::Collections;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// So many endpoints are tried for one connection: one may have died a moment ago, and a Service
/// with thousands shall not hold a call for longer than its deadline.
const ENDPOINTS_TRIED_MAX: usize = 3;

/// Where a Service leads.
pub(super) enum Place {
    /// Endpoints inside the cluster, in the order in which they are to be tried.
    Endpoints(Vec<SocketAddr>),
    /// `externalName`.
    External {
        /// The name.
        host: String,
        /// The port of the Service.
        port: u16,
    },
}

fn failed(error: ApiError) -> Error {
    Error::Service(error.to_string())
}

/// Where `namespace/name` leads on `port`.
pub(super) async fn service(way: &Way, namespace: &str, name: &str, port: u16) -> Result<Place, Error> {
    let not_found = || Error::Service(format!("service {name:?} not found"));
    let collections = way.collections.as_ref().ok_or_else(not_found)?;
    let services = collections.named("", "services");
    let snapshot = services.cache().current().await.map_err(|error| failed(services.failure(error)))?;
    let item = snapshot.get(&services.key(namespace, name)).ok_or_else(not_found)?;
    let service = json::decode_untyped(&item.stored.value).map_err(|error| Error::Service(error.to_string()))?;
    if service.str_at(&["spec", "type"]) == "ExternalName" {
        return Ok(Place::External { host: service.str_at(&["spec", "externalName"]).to_owned(), port });
    }
    let ports = service.list_at(&["spec", "ports"]);
    let wanted = ports.iter().find(|one| one.int_at(&["port"]) == Some(i64::from(port)));
    let wanted = wanted.ok_or_else(|| Error::Service(format!("no service port {port} found for service {name:?}")))?;
    let mut found = endpoints(collections, namespace, name, wanted.str_at(&["name"])).await?;
    if found.is_empty() {
        return Err(Error::NoEndpoints(name.to_owned()));
    }
    let begin = way.random.below(found.len() as u64) as usize;
    found.rotate_left(begin);
    found.truncate(ENDPOINTS_TRIED_MAX);
    Ok(Place::Endpoints(found))
}

async fn endpoints(
    collections: &Collections,
    namespace: &str,
    name: &str,
    port_name: &str,
) -> Result<Vec<SocketAddr>, Error> {
    let mut found = Vec::new();
    for item in collections.named("discovery.k8s.io", "endpointslices").list(namespace).await.map_err(failed)? {
        let slice = json::decode_untyped(&item.stored.value).map_err(|error| Error::Service(error.to_string()))?;
        if meta::label(&slice, SERVICE_NAME) != Some(name) {
            continue;
        }
        let port = slice.list_at(&["ports"]).iter().find(|one| one.str_at(&["name"]) == port_name);
        let Some(port) = port.and_then(|one| one.int_at(&["port"])).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        for endpoint in slice.list_at(&["endpoints"]) {
            // Absent means unknown, which counts as ready.
            if endpoint.bool_at(&["conditions", "ready"]) == Some(false) {
                continue;
            }
            let ip = endpoint.list_at(&["addresses"]).first().and_then(Tree::as_str);
            if let Some(ip) = ip.and_then(|ip| ip.parse().ok()) {
                found.push(SocketAddr::new(ip, port));
            }
        }
    }
    Ok(found)
}
