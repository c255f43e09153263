//! Whether an APIService can be reached: upstream's remote availability controller, one check.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use skiff_object::{Map, Tree, json};

use super::{Remote, Service, pass};
use crate::authn::{MASTERS, UserInfo};
use crate::errors::{ApiError, ApiResult};
use crate::outbound::Limits;
use crate::server::ApiServer;
use crate::{meta, respond};

/// Who asks for documents and whether a server is there.
pub(super) const AGGREGATOR: &str = "system:kube-aggregator";
/// A server that does not name its resources in this time is not available.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The answer of a check is only looked at for its status.
const CHECK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Endpoints that are asked once the first has failed: one that works is enough.
const ATTEMPTS_MORE: usize = 4;

/// What the condition `Available` is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) status: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Condition {
    /// What holds for everything this server serves itself.
    pub(crate) fn local() -> Self {
        Self { status: "True", reason: "Local", message: "Local APIServices are always available".into() }
    }

    fn failed(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    fn unknown(reason: &'static str, message: String) -> Self {
        Self { status: "Unknown", reason, message }
    }

    pub(crate) fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// Looks for the Service and its endpoints, then asks the server behind it.
pub(crate) async fn check(server: &ApiServer, service: &Service) -> Condition {
    let Some(remote) = &service.remote else { return Condition::local() };
    let place = format!("service/{} in {:?}", remote.name, remote.namespace);
    let backing = match server.collection("", "services").get(&remote.namespace, &remote.name).await {
        Ok(Some(backing)) => backing,
        Ok(None) => return Condition::failed("ServiceNotFound", format!("{place} is not present")),
        Err(error) => {
            return Condition::unknown("ServiceAccessError", format!("{place} cannot be checked due to: {error}"));
        }
    };
    let backing = json::decode_untyped(&backing.value).unwrap_or_default();
    if matches!(backing.str_at(&["spec", "type"]), "" | "ClusterIP")
        && let Some(missing) = endpoints(server, remote, &backing, &place).await
    {
        return missing;
    }
    match ask(server, service, remote, &backing).await {
        Ok(()) => Condition { status: "True", reason: "Passed", message: "all checks passed".into() },
        Err(message) => Condition::failed("FailedDiscoveryCheck", message),
    }
}

/// What the Service lacks to be asked.
async fn endpoints(server: &ApiServer, remote: &Remote, backing: &Tree, place: &str) -> Option<Condition> {
    let ports = backing.list_at(&["spec", "ports"]);
    let Some(port) = ports.iter().find(|port| port.int_at(&["port"]) == Some(i64::from(remote.port))) else {
        let message = format!("{place} is not listening on port {}", remote.port);
        return Some(Condition::failed("ServicePortError", message));
    };
    let name = port.str_at(&["name"]);
    let slices = match server.collection("discovery.k8s.io", "endpointslices").list(&remote.namespace).await {
        Ok(slices) => slices,
        Err(error) => {
            let message = format!("{place} cannot be checked due to: {error}");
            return Some(Condition::unknown("EndpointsAccessError", message));
        }
    };
    let slices: Vec<Tree> = slices
        .iter()
        .filter_map(|item| json::decode_untyped(&item.stored.value).ok())
        .filter(|slice| meta::label(slice, "kubernetes.io/service-name") == Some(&remote.name))
        .collect();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for {place}");
        return Some(Condition::failed("EndpointsNotFound", message));
    }
    let serves = |slice: &Tree| {
        let ready = |one: &Tree| one.bool_at(&["conditions", "ready"]) != Some(false);
        let named = |one: &Tree| one.str_at(&["name"]) == name && one.int_at(&["port"]).is_some();
        slice.list_at(&["endpoints"]).iter().any(ready) && slice.list_at(&["ports"]).iter().any(named)
    };
    if slices.iter().any(serves) {
        return None;
    }
    let message = format!("endpointslices for {place} have no addresses with port name {name:?}");
    Some(Condition::failed("MissingEndpoints", message))
}

/// Asks the server for what every one of its kind has to serve.
async fn ask(server: &ApiServer, service: &Service, remote: &Remote, backing: &Tree) -> Result<(), String> {
    let host = match backing.str_at(&["spec", "clusterIP"]) {
        "" | "None" => format!("{}.{}.svc", remote.name, remote.namespace),
        ip if ip.contains(':') => format!("[{ip}]"),
        ip => ip.to_owned(),
    };
    let url = format!("https://{host}:{}{}", remote.port, service.path());
    if attempt(server, service, remote, &url).await.is_ok() {
        return Ok(());
    }
    let attempts = (0..ATTEMPTS_MORE).map(|_| attempt(server, service, remote, &url));
    let mut last = Ok(());
    for outcome in join_all(attempts).await {
        match outcome {
            Ok(()) => return Ok(()),
            failed => last = failed,
        }
    }
    last
}

async fn attempt(server: &ApiServer, service: &Service, remote: &Remote, url: &str) -> Result<(), String> {
    let request = request(&service.path(), &[MASTERS]).map_err(|error| error.to_string())?;
    let limits = Limits { timeout: CHECK_TIMEOUT, answer_bytes_max: CHECK_BYTES_MAX };
    match server.outbound().send(&remote.target, request, limits).await {
        Ok(answer) if (200..300).contains(&answer.status().as_u16()) => Ok(()),
        Ok(answer) => {
            Err(format!("failing or missing response from {url}: bad status from {url}: {}", answer.status().as_u16()))
        }
        Err(error) => Err(format!("failing or missing response from {url}: Get {url:?}: {error}")),
    }
}

/// A request of the aggregator itself.
pub(super) fn request(path: &str, groups: &[&str]) -> Result<Request<Bytes>, http::Error> {
    let mut request = Request::get(path).body(Bytes::new())?;
    let user = UserInfo {
        name: AGGREGATOR.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..UserInfo::default()
    };
    pass::speak_for(request.headers_mut(), &user);
    Ok(request)
}

/// Writes the condition unless it is there already; says whether it had to be written.
///
/// # Errors
/// When the store fails. Being overtaken is none: the one who was faster wakes the worker.
pub(crate) async fn write(server: &ApiServer, name: &str, uid: &str, condition: &Condition) -> ApiResult<bool> {
    let registry = server.registry();
    let kind = registry
        .resource(super::GROUP, "v1", super::PLURAL)
        .ok_or_else(|| ApiError::internal("APIServices are not served"))?;
    let collection = server.collection(super::GROUP, super::PLURAL);
    let Some(current) = collection.get("", name).await? else { return Ok(false) };
    let mut object = respond::decode_stored(kind.as_ref(), &current.value)?;
    if meta::uid(&object) != uid || !set(&mut object, condition, &meta::time(server.clock().now())) {
        return Ok(false);
    }
    tracing::info!(
        name,
        status = condition.status,
        reason = condition.reason,
        message = condition.message,
        "availability of an APIService changed"
    );
    let value = crate::write::encode_stored(kind.as_ref(), &object)?;
    Ok(collection.replace("", name, value, current.revision, None).await?.is_some())
}

/// Puts the condition into the status; says whether anything changed.
fn set(object: &mut Tree, condition: &Condition, now: &str) -> bool {
    let status = object.ensure_map().entry_or("status", Tree::map).ensure_map();
    let conditions = status.entry_or("conditions", Tree::list);
    if !matches!(conditions, Tree::List(_)) {
        *conditions = Tree::list();
    }
    let Tree::List(conditions) = conditions else { return false };
    let found = conditions.iter_mut().find(|one| one.str_at(&["type"]) == "Available");
    let wanted = [("status", condition.status), ("reason", condition.reason), ("message", condition.message.as_str())];
    if let Some(found) = found {
        if wanted.iter().all(|(field, value)| found.str_at(&[field]) == *value) {
            return false;
        }
        if found.str_at(&["status"]) != condition.status {
            found.set(&["lastTransitionTime"], now);
        }
        for (field, value) in wanted {
            found.set(&[field], value);
        }
        return true;
    }
    let mut fresh = Map::new();
    fresh.insert("type", "Available");
    fresh.insert("status", condition.status);
    fresh.insert("lastTransitionTime", now);
    fresh.insert("reason", condition.reason);
    fresh.insert("message", condition.message.as_str());
    conditions.push(Tree::Map(fresh));
    true
}
