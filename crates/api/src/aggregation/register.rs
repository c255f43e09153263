//! The APIServices of what this server serves itself: its own groups once at the start, those of
//! custom resources as they come and go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use skiff_object::{Map, Tree, json};
use skiff_store::Revision;

use super::{GROUP, PLURAL};
use crate::authn::{MASTERS, UserInfo};
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;
use crate::{meta, resource_metrics};

/// Says that an APIService is ours, and how.
pub(crate) const MANAGED_LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Made at the start and left alone afterwards.
pub(crate) const ON_START: &str = "onstart";
/// Kept as it must be.
const ALWAYS: &str = "true";

/// The priorities of groups that are nobody's in particular, custom resources mostly.
const CUSTOM: (i64, i64) = (1_000, 100);

/// `groupPriorityMinimum` by group, upstream's numbers: the order of `kubectl api-resources`.
const GROUPS: [(&str, i64); 24] = [
    ("", 18_000),
    ("apiregistration.k8s.io", 17_900),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
    ("metrics.k8s.io", 100),
];

/// `versionPriority` where it is not what [`version_priority`] says.
const VERSIONS: [(&str, &str, i64); 8] = [
    ("metrics.k8s.io", "v1beta1", 100),
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("flowcontrol.apiserver.k8s.io", "v1beta3", 18),
    ("networking.k8s.io", "v1beta1", 12),
    ("admissionregistration.k8s.io", "v1beta1", 12),
    ("coordination.k8s.io", "v1beta1", 13),
];

/// `groupPriorityMinimum` and `versionPriority` of a group and version.
pub(crate) fn priority(group: &str, version: &str) -> (i64, i64) {
    let Some((_, number)) = GROUPS.iter().find(|(known, _)| *known == group) else { return CUSTOM };
    let special = VERSIONS.iter().find(|(known, of, _)| *known == group && *of == version);
    (*number, special.map_or_else(|| version_priority(version), |(_, _, number)| *number))
}

fn version_priority(version: &str) -> i64 {
    match version {
        version if version.contains("alpha") => 1,
        version if version.contains("beta") => 9,
        _ => 15,
    }
}

/// An APIService that this server itself stands behind.
pub(crate) fn local(group: &str, version: &str, managed: &'static str) -> Tree {
    let (group_priority, version_priority) = priority(group, version);
    let mut service = Tree::map();
    service.set(&["apiVersion"], "apiregistration.k8s.io/v1");
    service.set(&["kind"], "APIService");
    service.set(&["metadata", "name"], format!("{version}.{group}"));
    service.set(&["metadata", "labels", MANAGED_LABEL], managed);
    if !group.is_empty() {
        service.set(&["spec", "group"], group);
    }
    service.set(&["spec", "version"], version);
    service.set(&["spec", "groupPriorityMinimum"], group_priority);
    service.set(&["spec", "versionPriority"], version_priority);
    service
}

/// Those of the server's own groups. Its group for APIServices has none, as upstream: it is always
/// there.
pub(crate) fn own(server: &ApiServer) -> Vec<Tree> {
    let mut services = Vec::new();
    for (group, versions) in server.config.registry.groups() {
        if group != GROUP {
            services.extend(versions.iter().map(|version| local(group, version, ON_START)));
        }
    }
    if server.config.aggregation.resource_metrics {
        services.push(local(resource_metrics::GROUP, resource_metrics::VERSION, ON_START));
    }
    services
}

/// What custom resource definitions ask for. A definition may have megabytes: each is read once.
#[derive(Default)]
pub(crate) struct Definitions(HashMap<Bytes, (Revision, Vec<(String, String)>)>);

impl Definitions {
    /// Group and version of everything that is defined and served.
    async fn served(&mut self, server: &ApiServer) -> ApiResult<BTreeSet<(String, String)>> {
        let mut now = HashMap::new();
        for item in server.collection("apiextensions.k8s.io", "customresourcedefinitions").list("").await? {
            let stored = &item.stored;
            let known = self.0.remove(&stored.key).filter(|(revision, _)| *revision == stored.revision);
            let read = match known {
                Some(known) => known,
                None => (stored.revision, served(&json::decode_untyped(&stored.value).map_err(ApiError::internal)?)),
            };
            now.insert(stored.key.clone(), read);
        }
        self.0 = now;
        Ok(self.0.values().flat_map(|(_, versions)| versions.iter().cloned()).collect())
    }
}

fn served(definition: &Tree) -> Vec<(String, String)> {
    let versions = definition.list_at(&["spec", "versions"]).iter();
    let served = versions.filter(|version| version.bool_at(&["served"]) == Some(true));
    let group = definition.str_at(&["spec", "group"]);
    served.map(|version| (group.to_owned(), version.str_at(&["name"]).to_owned())).collect()
}

/// Brings the APIServices of custom resources to what is defined.
///
/// # Errors
/// When something cannot be read; a write that is refused is logged and tried again at the next
/// change.
pub(crate) async fn custom(server: &Arc<ApiServer>, definitions: &mut Definitions) -> ApiResult<()> {
    let mut wanted: BTreeMap<String, Tree> = BTreeMap::new();
    for (group, version) in definitions.served(server).await? {
        let service = local(&group, &version, ALWAYS);
        wanted.insert(meta::name(&service).to_owned(), service);
    }
    let mut present = BTreeSet::new();
    let mut writes = Vec::new();
    for item in server.collection(GROUP, PLURAL).list("").await? {
        let service = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
        let name = meta::name(&service).to_owned();
        let managed = meta::label(&service, MANAGED_LABEL) == Some(ALWAYS);
        match wanted.get(&name) {
            None if managed => writes.push(delete(&service)),
            Some(desired) if managed && !same(&service, desired) => writes.push(update(service, desired)),
            _ => {}
        }
        present.insert(name);
    }
    writes.extend(wanted.into_iter().filter(|(name, _)| !present.contains(name)).map(|(_, service)| Write {
        method: Method::POST,
        name: String::new(),
        body: service,
    }));
    futures::future::join_all(writes.into_iter().map(|write| write.send(server))).await;
    Ok(())
}

const SPEC: [&str; 7] =
    ["group", "version", "groupPriorityMinimum", "versionPriority", "service", "caBundle", "insecureSkipTLSVerify"];

fn same(one: &Tree, other: &Tree) -> bool {
    SPEC.iter().all(|field| {
        let value = |tree: &Tree| tree.at(&["spec", field]).filter(|value| !value.is_null()).cloned();
        value(one) == value(other)
    })
}

struct Write {
    method: Method,
    name: String,
    body: Tree,
}

fn delete(service: &Tree) -> Write {
    let mut preconditions = Map::new();
    preconditions.insert("uid", meta::uid(service));
    let mut body = Tree::map();
    body.set(&["apiVersion"], "v1");
    body.set(&["kind"], "DeleteOptions");
    body.set(&["preconditions"], preconditions);
    Write { method: Method::DELETE, name: meta::name(service).to_owned(), body }
}

fn update(mut service: Tree, desired: &Tree) -> Write {
    if let Some(spec) = desired.get("spec") {
        service.set(&["spec"], spec.clone());
    }
    Write { method: Method::PUT, name: meta::name(&service).to_owned(), body: service }
}

impl Write {
    async fn send(self, server: &Arc<ApiServer>) {
        let local = server.local(UserInfo::new("system:apiserver", &[MASTERS]));
        let path = format!("/apis/{GROUP}/v1/{PLURAL}");
        let uri = if self.name.is_empty() { path } else { format!("{path}/{}", self.name) };
        let request = Request::builder()
            .method(self.method)
            .uri(&uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::USER_AGENT, "kube-apiserver")
            .body(Bytes::from(json::encode_untyped(&self.body)));
        let Ok(request) = request else { return };
        let status = local.call(request).await.status();
        let fine = status.is_success() || matches!(status, StatusCode::CONFLICT | StatusCode::NOT_FOUND);
        if !fine {
            tracing::warn!(%status, uri, "an APIService of a custom resource could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_upstreams() {
        let check = |group, version, expected| assert_eq!(priority(group, version), expected, "{group}/{version}");
        check("", "v1", (18_000, 1));
        check("apps", "v1", (17_800, 15));
        check("autoscaling", "v1", (17_500, 15));
        check("autoscaling", "v2", (17_500, 30));
        check("flowcontrol.apiserver.k8s.io", "v1", (16_100, 21));
        check("stable.example.com", "v1", (1_000, 100));
    }
}
