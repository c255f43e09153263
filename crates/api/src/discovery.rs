//! Discovery: which groups, versions and resources there are, from the registry alone.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use skiff_kinds::custom::CustomKind;
use skiff_kinds::{Kind, Registry, Verbs};
use skiff_object::{Key, Map, Tree, json};

use crate::aggregation::{self, Group, Version};
use crate::body::Body;
use crate::chain::Call;
use crate::errors::ApiResult;
use crate::negotiate::{self, Offer};
use crate::resource_metrics;
use crate::respond;
use crate::routes;
use crate::server::ApiServer;

/// What the server says it is.
pub const GIT_VERSION: &str = "v1.36.2";

/// What a build says of itself.
#[derive(Clone, Debug)]
pub struct Build {
    /// The commit it was made of, 40 hex digits; empty when it was not made in a repository.
    pub git_commit: String,
    /// `clean`, or `dirty` when files differed from the commit.
    pub git_tree_state: String,
    /// When, as RFC 3339 in UTC.
    pub build_date: String,
}

impl Default for Build {
    fn default() -> Self {
        Self { git_commit: String::new(), git_tree_state: "clean".into(), build_date: "1970-01-01T00:00:00Z".into() }
    }
}

/// The machine this runs on, in Go's words.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// What `/version` and `kubernetes_build_info` say.
pub fn version_facts(build: &Build) -> [(&'static str, &str); 13] {
    [
        ("major", "1"),
        ("minor", "36"),
        ("emulationMajor", "1"),
        ("emulationMinor", "36"),
        ("minCompatibilityMajor", "1"),
        ("minCompatibilityMinor", "35"),
        ("gitVersion", GIT_VERSION),
        ("gitCommit", &build.git_commit),
        ("gitTreeState", &build.git_tree_state),
        ("buildDate", &build.build_date),
        // Clients require one; there is no Go in here, this is what speaks the same wire.
        ("goVersion", "go1.26.0"),
        ("compiler", "rustc"),
        ("platform", PLATFORM),
    ]
}

/// `/version`
pub fn version(build: &Build) -> Vec<u8> {
    let mut info = Map::new();
    for (key, value) in version_facts(build) {
        info.insert(key, value);
    }
    json::encode_untyped(&Tree::Map(info))
}

/// `/`: every path there is.
pub fn root(server: &ApiServer) -> Response<Body> {
    let mut paths = vec![
        "/.well-known/openid-configuration".to_owned(),
        "/api".into(),
        "/apis".into(),
        "/healthz".into(),
        "/livez".into(),
        "/metrics".into(),
        "/openapi/v2".into(),
        "/openapi/v3".into(),
        "/openid/v1/jwks".into(),
        "/readyz".into(),
        "/version".into(),
    ];
    for Group { name: group, versions } in aggregation::groups(server) {
        if group.is_empty() {
            paths.extend(versions.iter().map(|version| format!("/api/{}", version.name)));
        } else {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|version| format!("/apis/{group}/{}", version.name)));
        }
    }
    paths.sort();
    let mut tree = Map::new();
    tree.insert("paths", paths.into_iter().map(Tree::from).collect::<Vec<_>>());
    respond::json_bytes(json::encode_untyped(&Tree::Map(tree)))
}

/// `/.well-known/openid-configuration`
pub fn openid_configuration(server: &ApiServer) -> Vec<u8> {
    let settings = &server.config.authn;
    let mut algorithms: Vec<_> = server.tokens.keys().iter().map(|key| key.algorithm().name()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let mut tree = Map::new();
    tree.insert("issuer", server.tokens.issuer());
    if settings.jwks_uri.is_empty() {
        tree.insert("jwks_uri", format!("https://{}/openid/v1/jwks", server.config.advertise));
    } else {
        tree.insert("jwks_uri", settings.jwks_uri.as_str());
    }
    tree.insert("response_types_supported", vec![Tree::from("id_token")]);
    tree.insert("subject_types_supported", vec![Tree::from("public")]);
    tree.insert("id_token_signing_alg_values_supported", algorithms.into_iter().map(Tree::from).collect::<Vec<_>>());
    json::encode_untyped(&Tree::Map(tree))
}

/// `/openid/v1/jwks`
pub fn jwks(server: &ApiServer) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Keys {
        keys: Vec<crate::authn::jws::Jwk>,
    }
    let keys = server.tokens.keys().iter().map(|key| key.jwk()).collect();
    serde_json::to_vec(&Keys { keys }).unwrap_or_default()
}

/// An answer about issuer or keys: these may be kept for an hour, as upstream says.
pub fn issuer_answer(body: Vec<u8>, content_type: &'static str) -> Response<Body> {
    let mut response = respond::whole(StatusCode::OK, body, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

/// `/api`, `/apis` and below.
///
/// # Errors
/// 406 when the client accepts none of our forms.
pub fn answer(server: &Arc<ApiServer>, call: &Call, path: &str) -> ApiResult<Response<Body>> {
    let registry = server.registry();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if matches!(parts.as_slice(), ["api" | "apis"]) && wants_aggregated(call) {
        let tree = aggregated_of(server, &registry, &aggregation::groups(server), parts == ["apis"]);
        let mut response = respond::json_bytes(json::encode_untyped(&tree));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        );
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        return Ok(response);
    }
    let form = negotiate::accept(&call.headers, &call.query, Offer::PLAIN)?;
    let document = match parts.as_slice() {
        ["api"] => Some((api_versions(server), "APIVersions")),
        ["api", "v1"] => resource_list(&registry, "", "v1").map(|list| (list, "APIResourceList")),
        ["apis"] => Some((group_list_of(&aggregation::groups(server)), "APIGroupList")),
        ["apis", group] => find_group(&aggregation::groups(server), group).map(|found| (found, "APIGroup")),
        ["apis", group, version] if resource_metrics::handles(server, group, version) => {
            Some((resource_metrics::resource_list(), "APIResourceList"))
        }
        ["apis", group, version] => resource_list(&registry, group, version).map(|list| (list, "APIResourceList")),
        _ => None,
    };
    let Some((tree, kind)) = document else { return Ok(routes::no_such_page()) };
    let ty = respond::type_named("v1", kind);
    Ok(respond::tree(StatusCode::OK, &tree, ty, skiff_kinds::schema(), form))
}

/// Whether the client asks for the aggregated documents before any other.
fn wants_aggregated(call: &Call) -> bool {
    let accept = call.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.split(',').any(|clause| {
        let has = |param: &str| clause.split(';').any(|part| part.trim() == param);
        clause.trim().starts_with("application/json")
            && has("as=APIGroupDiscoveryList")
            && has("g=apidiscovery.k8s.io")
            && has("v=v2")
    })
}

fn typed(kind: &'static str, api_version: &'static str) -> Map {
    let mut map = Map::new();
    map.insert("kind", kind);
    map.insert("apiVersion", api_version);
    map
}

fn api_versions(server: &ApiServer) -> Tree {
    let mut tree = Map::new();
    tree.insert("kind", "APIVersions"); // and no apiVersion, as upstream's
    tree.insert("versions", vec![Tree::from("v1")]);
    let mut address = Map::new();
    address.insert("clientCIDR", "0.0.0.0/0");
    address.insert("serverAddress", server.config.advertise.to_string());
    tree.insert("serverAddressByClientCIDRs", vec![Tree::Map(address)]);
    Tree::Map(tree)
}

/// The `APIGroupList` of `/apis`, of the registry alone.
pub fn group_list(registry: &Registry) -> Tree {
    group_list_of(&aggregation::own_groups(registry))
}

fn group_list_of(groups: &[Group]) -> Tree {
    let named = groups.iter().filter(|group| !group.name.is_empty());
    let groups: Vec<Tree> = named.map(|group| Tree::Map(group_map(Map::new(), group))).collect();
    let mut tree = typed("APIGroupList", "v1");
    tree.insert("groups", groups);
    Tree::Map(tree)
}

/// The `APIGroup` of `/apis/NAME`, if the registry has it.
pub fn group_of(registry: &Registry, name: &str) -> Option<Tree> {
    find_group(&aggregation::own_groups(registry), name)
}

fn find_group(groups: &[Group], name: &str) -> Option<Tree> {
    let group = groups.iter().find(|group| group.name == name && !group.name.is_empty())?;
    Some(Tree::Map(group_map(typed("APIGroup", "v1"), group)))
}

fn group_map(mut tree: Map, group: &Group) -> Map {
    let version = |version: &Version| {
        let mut map = Map::new();
        map.insert("groupVersion", format!("{}/{}", group.name, version.name));
        map.insert("version", version.name.as_str());
        Tree::Map(map)
    };
    tree.insert("name", group.name.as_str());
    tree.insert("versions", group.versions.iter().map(version).collect::<Vec<_>>());
    if let Some(first) = group.versions.first() {
        tree.insert("preferredVersion", version(first));
    }
    tree
}

/// The verbs of a resource. Those of custom resources stand in an order of their own, and one whose definition is on
/// its way out takes nothing new.
fn verbs_of(kind: &dyn Kind) -> Tree {
    const CUSTOM: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    const TERMINATING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];
    let names: &[&str] = match kind.custom().map(CustomKind::is_terminating) {
        None => return verbs(kind.facts().verbs),
        Some(false) => &CUSTOM,
        Some(true) => &TERMINATING,
    };
    Tree::List(names.iter().map(|name| Tree::from(*name)).collect())
}

fn verbs(verbs: Verbs) -> Tree {
    Tree::List(verbs.iter().map(|verb| Tree::from(verb.as_str())).collect())
}

fn names(keys: &[Key]) -> Vec<Tree> {
    keys.iter().map(|key| Tree::from(key.as_str())).collect()
}

/// The `APIResourceList` of a group version, if it is served.
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Tree> {
    let mut resources = Vec::new();
    for kind in registry.group_version(group, version) {
        let facts = kind.facts();
        if !facts.verbs.iter().any(|_| true) {
            continue;
        }
        let mut resource = Map::new();
        resource.insert("name", facts.plural.as_str());
        resource.insert("singularName", facts.singular.as_str());
        resource.insert("namespaced", facts.namespaced);
        resource.insert("kind", facts.kind.as_str());
        resource.insert("verbs", verbs_of(kind.as_ref()));
        if !facts.short_names.is_empty() {
            resource.insert("shortNames", names(&facts.short_names));
        }
        if !facts.categories.is_empty() {
            resource.insert("categories", names(&facts.categories));
        }
        if !facts.storage_version_hash.as_str().is_empty() {
            resource.insert("storageVersionHash", facts.storage_version_hash.as_str());
        }
        resources.push(Tree::Map(resource));
        for sub in &facts.subresources {
            let mut resource = Map::new();
            resource.insert("name", format!("{}/{}", facts.plural.as_str(), sub.name.as_str()));
            resource.insert("singularName", "");
            resource.insert("namespaced", facts.namespaced);
            if sub.foreign {
                let (group, version) = skiff_kinds::facts::split_api_version(sub.api_version.as_str());
                resource.insert("group", group);
                resource.insert("version", version);
            }
            resource.insert("kind", sub.kind.as_str());
            resource.insert("verbs", verbs(sub.verbs));
            resources.push(Tree::Map(resource));
        }
    }
    if resources.is_empty() {
        return None;
    }
    let mut tree = typed("APIResourceList", "v1");
    if group.is_empty() {
        // Upstream's oldest document says no version of its own.
        tree.remove("apiVersion");
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    tree.insert("groupVersion", group_version);
    tree.insert("resources", resources);
    Some(Tree::Map(tree))
}

/// `APIGroupDiscoveryList` of the registry alone, for the core group or for all others.
pub fn aggregated(registry: &Registry, named: bool) -> Tree {
    let groups = aggregation::own_groups(registry);
    group_discovery_list(&groups, named, |group, version| own_version(registry, &group.name, &version.name))
}

fn aggregated_of(server: &ApiServer, registry: &Registry, groups: &[Group], named: bool) -> Tree {
    group_discovery_list(groups, named, |group, version| match &version.remote {
        None => own_version(registry, &group.name, &version.name),
        Some(service) => {
            let documents = server.aggregator.documents(&service.name);
            let resources = documents.as_ref().and_then(|said| said.resources.clone());
            let fresh = documents.is_some_and(|said| said.fresh);
            version_discovery(&version.name, resources, if fresh { "Current" } else { "Stale" })
        }
    })
}

fn own_version(registry: &Registry, group: &str, version: &str) -> Tree {
    if (group, version) == (resource_metrics::GROUP, resource_metrics::VERSION) {
        return version_discovery(version, Some(resource_metrics::discovery()), "Current");
    }
    let resources = registry.group_version(group, version).map(|kind| resource_discovery(kind.as_ref()));
    version_discovery(version, Some(Tree::List(resources.collect())), "Current")
}

fn version_discovery(version: &str, resources: Option<Tree>, freshness: &str) -> Tree {
    let mut tree = Map::new();
    tree.insert("version", version);
    if let Some(resources) = resources {
        tree.insert("resources", resources);
    }
    tree.insert("freshness", freshness);
    Tree::Map(tree)
}

fn group_discovery_list(groups: &[Group], named: bool, version: impl Fn(&Group, &Version) -> Tree) -> Tree {
    let mut items = Vec::new();
    for group in groups.iter().filter(|group| group.name.is_empty() != named) {
        let mut metadata = Map::new();
        if named {
            metadata.insert("name", group.name.as_str());
        }
        let mut item = Map::new();
        item.insert("metadata", Tree::Map(metadata));
        item.insert("versions", group.versions.iter().map(|one| version(group, one)).collect::<Vec<_>>());
        items.push(Tree::Map(item));
    }
    let mut tree = typed("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2");
    tree.insert("metadata", Tree::map());
    tree.insert("items", items);
    Tree::Map(tree)
}

/// Custom resources name group and version even where they are those of the path.
fn of_custom(kind: &dyn Kind) -> Option<&str> {
    kind.custom().map(|custom| custom.facts().api_version.as_str())
}

/// The kind of answers. Group and version are empty where they are those of the path.
fn response_kind(foreign: Option<&str>, kind: &str) -> Tree {
    let (group, version) = foreign.map(skiff_kinds::facts::split_api_version).unwrap_or_default();
    let mut tree = Map::new();
    tree.insert("group", group);
    tree.insert("version", version);
    tree.insert("kind", kind);
    Tree::Map(tree)
}

fn resource_discovery(kind: &dyn Kind) -> Tree {
    let facts = kind.facts();
    let mut tree = Map::new();
    tree.insert("resource", facts.plural.as_str());
    tree.insert("responseKind", response_kind(of_custom(kind), facts.kind.as_str()));
    tree.insert("scope", if facts.namespaced { "Namespaced" } else { "Cluster" });
    tree.insert("singularResource", facts.singular.as_str());
    tree.insert("verbs", verbs_of(kind));
    if !facts.short_names.is_empty() {
        tree.insert("shortNames", names(&facts.short_names));
    }
    if !facts.categories.is_empty() {
        tree.insert("categories", names(&facts.categories));
    }
    if !facts.subresources.is_empty() {
        let subresources: Vec<Tree> = facts
            .subresources
            .iter()
            .map(|sub| {
                let mut tree = Map::new();
                tree.insert("subresource", sub.name.as_str());
                tree.insert(
                    "responseKind",
                    response_kind(sub.foreign.then(|| sub.api_version.as_str()).or(of_custom(kind)), sub.kind.as_str()),
                );
                tree.insert("verbs", verbs(sub.verbs));
                Tree::Map(tree)
            })
            .collect();
        tree.insert("subresources", subresources);
    }
    Tree::Map(tree)
}
