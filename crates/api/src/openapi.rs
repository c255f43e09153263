//! `/openapi/v2` and `/openapi/v3`: what the server speaks, described.
//!
//! Documents are made from the registry and the schema when they are asked for and kept
//! compressed, so that a server nobody asks pays nothing. A document's URL carries a hash of what
//! it is made from, by which clients cache it for good.
//!
//! A change of a custom kind makes only what it is in anew: its group version in OpenAPI 3, and in
//! the one document of version 2 the part of that group version ([`swagger`], [`parts`]).

mod custom;
mod parts;
mod paths;
mod proto;
mod proto3;
mod schema;
mod swagger;
mod v2;
mod v3;

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha512};
use skiff_kinds::custom::CustomKind;
use skiff_kinds::{Registry, describe};
use skiff_object::{Map, Tree, TypeId, json};

use self::parts::{Joined, Part};
use crate::aggregation::{self, Service};
use crate::body::{Body, BodyError};
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::respond;
use crate::routes;
use crate::server::ApiServer;

/// What the Swagger document says its version is.
const VERSION: &str = "v1.36.2";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const JSON: &str = "application/json";

const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
const V3_PROTOBUF_DEPRECATED: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// Documents that are larger are not whole in memory for a client that cannot read gzip.
const WHOLE_BYTES_MAX: usize = 1 << 20;
/// What such a client is sent at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Documents made so far, gzip-compressed, by path and form.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<HashMap<String, Arc<Document>>>,
    swagger: swagger::Parts,
    /// How often something has changed that documents are made of.
    changes: AtomicU64,
}

struct Document {
    /// What it was made of.
    made_of: String,
    joined: Joined,
    content_type: &'static str,
}

impl Documents {
    /// The registry, or what aggregated servers say, has changed.
    pub(crate) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets the documents of what is not served any more.
    fn tidy(&self, registry: &Registry) {
        self.made.lock().retain(|key, _| match key.split(' ').nth(1).and_then(group_version) {
            Some((group, version)) => registry.group_version(group, version).next().is_some(),
            None => true,
        });
    }

    fn known(&self, key: &str, made_of: &str) -> Option<Arc<Document>> {
        self.made.lock().get(key).filter(|document| document.made_of == made_of).map(Arc::clone)
    }

    fn keep(&self, key: &str, made_of: &str, joined: Joined, content_type: &'static str) -> Arc<Document> {
        let document = Arc::new(Document { made_of: made_of.to_owned(), joined, content_type });
        self.made.lock().insert(key.to_owned(), Arc::clone(&document));
        document
    }

    fn get(
        &self,
        key: &str,
        made_of: &str,
        content_type: &'static str,
        make: impl FnOnce() -> Vec<u8>,
    ) -> ApiResult<Arc<Document>> {
        match self.known(key, made_of) {
            Some(document) => Ok(document),
            None => Ok(self.keep(key, made_of, parts::join(std::iter::once(&Part::new(&make())?)), content_type)),
        }
    }
}

/// Answers a path below `/openapi/`.
///
/// # Errors
/// When the client accepts no form that we have.
pub async fn answer(server: &Arc<ApiServer>, call: &Call, path: &str) -> ApiResult<Response<Body>> {
    // Read before the registry is: a change in between makes the document again.
    let changes = server.openapi.changes.load(Ordering::Acquire).to_string();
    let registry = server.registry();
    let path = path.trim_start_matches('/').trim_start_matches("openapi/").trim_end_matches('/');
    match path.split_once('/') {
        None if path == "v2" => swagger(server, &registry, &changes, call).await,
        None if path == "v3" => index(server, &registry, &changes, call),
        Some(("v3", group_version)) => group_document(server, &registry, call, group_version),
        _ => Ok(routes::no_such_page()),
    }
}

async fn swagger(server: &ApiServer, registry: &Registry, changes: &str, call: &Call) -> ApiResult<Response<Body>> {
    let accept = accept(&call.headers);
    let (key, content_type) = if accept.contains(V2_PROTOBUF) {
        ("v2-protobuf", V2_PROTOBUF_ANSWER)
    } else if accepts_json(accept) {
        ("v2", JSON)
    } else {
        return Err(ApiError::not_acceptable(&[JSON, V2_PROTOBUF]));
    };
    let document = match server.openapi.known(key, changes) {
        Some(document) => document,
        None => {
            let joined = server.openapi.swagger.document(server, registry, content_type != JSON).await?;
            server.openapi.keep(key, changes, joined, content_type)
        }
    };
    respond_with(&document, call)
}

fn index(server: &ApiServer, registry: &Registry, changes: &str, call: &Call) -> ApiResult<Response<Body>> {
    let document = server.openapi.get("v3", changes, JSON, || {
        server.openapi.tidy(registry);
        let mut paths = Map::new();
        for (group, versions) in registry.groups() {
            for version in versions {
                let path = paths::base(group, version);
                let path = path.trim_start_matches('/');
                let url = format!("/openapi/v3/{path}?hash={}", revision(registry, group, version));
                let mut entry = Tree::map();
                entry.set(&["serverRelativeURL"], url);
                paths.insert(path.to_owned(), entry);
            }
        }
        for (service, documents) in remotes(server) {
            if let Some(url) = &documents.v3_url {
                let mut entry = Tree::map();
                entry.set(&["serverRelativeURL"], url.as_str());
                paths.insert(service.path().trim_start_matches('/').to_owned(), entry);
            }
        }
        paths.sort_keys();
        let mut index = Tree::map();
        index.set(&["paths"], paths);
        json::encode_untyped(&index)
    })?;
    respond_with(&document, call)
}

fn group_document(server: &ApiServer, registry: &Registry, call: &Call, path: &str) -> ApiResult<Response<Body>> {
    let Some((group, version)) = group_version(path) else { return Ok(routes::no_such_page()) };
    if registry.group_version(group, version).next().is_none() {
        return Ok(routes::no_such_page());
    }
    let accept = accept(&call.headers);
    // Whichever is named first; quality values are not weighed, clients send none here.
    let place = |names: &[&str]| names.iter().filter_map(|name| accept.find(name)).min();
    let binary = place(&[V3_PROTOBUF, V3_PROTOBUF_DEPRECATED]);
    let is_binary = match (binary, place(&["*/*", "application/*", JSON])) {
        (Some(binary), Some(json)) => binary < json,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) if accept.is_empty() => false,
        (None, None) => return Err(ApiError::not_acceptable(&[JSON, V3_PROTOBUF])),
    };
    let current = revision(registry, group, version);
    let asked = call.query.split('&').find_map(|pair| pair.strip_prefix("hash="));
    if asked.is_some_and(|hash| hash != current) {
        // An old index led here: show the way to the document as it is now.
        let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, Bytes::new());
        if let Ok(url) = HeaderValue::try_from(format!("/openapi/v3/{path}?hash={current}")) {
            response.headers_mut().insert(header::LOCATION, url);
        }
        return Ok(response);
    }
    let make = || v3::document(registry, skiff_kinds::schema(), group, version);
    let documents = &server.openapi;
    let document = if is_binary {
        documents.get(&format!("v3-protobuf {path}"), &current, V3_PROTOBUF, || proto3::document(&make()))?
    } else {
        documents.get(&format!("v3 {path}"), &current, JSON, || json::encode_untyped(&make()))?
    };
    let mut response = respond_with(&document, call)?;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    if asked.is_some() {
        let immutable = HeaderValue::from_static("public, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, immutable);
    }
    Ok(response)
}

/// The aggregated servers that have said something.
fn remotes(server: &ApiServer) -> Vec<(Arc<Service>, Arc<aggregation::documents::Documents>)> {
    let versions = aggregation::groups(server).into_iter().flat_map(|group| group.versions);
    let remotes = versions.filter_map(|version| version.remote);
    remotes.filter_map(|service| server.aggregator.documents(&service.name).map(|said| (service, said))).collect()
}

/// The aggregated server that a request for an OpenAPI 3 document is meant for.
pub(crate) fn remote(server: &ApiServer, call: &Call) -> Option<Arc<Service>> {
    let (group, version) = call.info.path.strip_prefix("/openapi/v3/apis/")?.split_once('/')?;
    server.aggregator.remote(group, version.trim_end_matches('/'))
}

/// `api/v1` or `apis/apps/v1`
fn group_version(path: &str) -> Option<(&str, &str)> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

fn respond_with(document: &Document, call: &Call) -> ApiResult<Response<Body>> {
    let Document { joined, content_type, .. } = document;
    let quoted = format!("\"{}\"", joined.etag);
    let is_known = call.headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == quoted.as_bytes());
    let is_compressed =
        joined.length >= respond::GZIP_BYTES_MIN && respond::accepts_gzip(call.headers.get(header::ACCEPT_ENCODING));
    let mut response = if is_known {
        respond::whole(StatusCode::NOT_MODIFIED, Bytes::new(), content_type)
    } else if is_compressed {
        respond::compressed(joined.compressed.clone(), content_type)
    } else {
        let mut response = respond::whole(StatusCode::OK, Bytes::new(), content_type);
        *response.body_mut() = plain(joined)?;
        response
    };
    if let Ok(etag) = HeaderValue::try_from(quoted) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// A document for a client that cannot read gzip.
fn plain(joined: &Joined) -> ApiResult<Body> {
    let mut reader = flate2::bufread::GzDecoder::new(Cursor::new(joined.compressed.clone()));
    if joined.length <= WHOLE_BYTES_MAX {
        let mut bytes = Vec::with_capacity(joined.length);
        let read = reader.read_to_end(&mut bytes);
        return read
            .map(|_| Body::from(bytes))
            .map_err(|error| ApiError::internal(format!("decompress the OpenAPI document: {error}")));
    }
    let chunks = futures::stream::unfold(reader, |mut reader| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        match reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk) {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(chunk)), reader)),
            Err(error) => Some((Err(BodyError(error.to_string())), reader)),
        }
    });
    Ok(Body::Stream(chunks.boxed()))
}

fn accept(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*")
}

fn accepts_json(accept: &str) -> bool {
    accept.is_empty() || ["*/*", "application/*", JSON].iter().any(|form| accept.contains(form))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// Changes whenever the document of the group version would: with the binary, and with the custom
/// kinds of the group.
fn revision(registry: &Registry, group: &str, version: &str) -> String {
    let mut digest = Sha512::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(describe::REVISION);
    for kind in registry.group_version(group, version) {
        digest.update(kind.facts().plural.as_str());
        digest.update(kind.custom().map_or("", CustomKind::revision));
        digest.update([0]);
    }
    hex(&digest.finalize())
}

/// What a type is known as in the API: its own group, version and kind, and for the types that
/// every group shares also those of the document's group.
fn kinds_of_type(registry: &Registry, id: TypeId, within: Option<(&str, &str)>) -> Vec<(String, String, String)> {
    let mut kinds = Vec::new();
    for kind in registry.iter().filter(|kind| kind.custom().is_none()) {
        let facts = kind.facts();
        let own = |name: &skiff_object::Key| {
            (facts.group.as_str().to_owned(), facts.version.as_str().to_owned(), name.as_str().to_owned())
        };
        if facts.ty == id {
            kinds.push(own(&facts.kind));
        }
        if facts.list_ty == Some(id) {
            kinds.push(own(&facts.list_kind));
        }
    }
    let name = skiff_kinds::schema().get(id).name.as_str();
    if let Some(shared) = name.strip_prefix("io.k8s.apimachinery.pkg.apis.meta.v1.") {
        let named = |group: &str, version: &str| (group.to_owned(), version.to_owned(), shared.to_owned());
        if matches!(shared, "DeleteOptions" | "WatchEvent" | "Status" | "APIGroup" | "APIResourceList") {
            kinds.push(named("", "v1"));
        }
        if let Some((group, version)) = within
            && matches!(shared, "DeleteOptions" | "WatchEvent")
            && !group.is_empty()
        {
            kinds.push(named(group, version));
        }
    }
    kinds
}

/// A parameter of a path or query.
struct Parameter {
    description: String,
    place: &'static str,
    ty: &'static str,
}

fn parameter(name: &'static str, kind: &str) -> Parameter {
    let query = |ty, description: &str| Parameter { description: description.to_owned(), place: "query", ty };
    let path = |description: String| Parameter { description, place: "path", ty: "string" };
    match name {
        "name" => path(format!("The name of the {kind}.")),
        "namespace" => path("The namespace in which the object lives.".to_owned()),
        "pretty" => query("string", "Indent the answer when \"true\"."),
        "dryRun" => query("string", "\"All\" runs every stage of the request but stores nothing."),
        "fieldManager" => query("string", "Who makes this change: the name under which the fields are owned."),
        "fieldValidation" => {
            query("string", "What happens to unknown and duplicate fields: Ignore, Warn (the default) or Strict.")
        }
        "force" => query("boolean", "Take over fields that other managers own. Only for apply."),
        "gracePeriodSeconds" => query("integer", "Seconds until the object is removed; 0 removes it at once."),
        "orphanDependents" => query("boolean", "Deprecated: use propagationPolicy."),
        "propagationPolicy" => query("string", "What becomes of dependents: Orphan, Background or Foreground."),
        "labelSelector" => query("string", "Only objects whose labels match."),
        "fieldSelector" => query("string", "Only objects whose fields match."),
        "limit" => query("integer", "At most so many objects; the answer's continue token leads on."),
        "continue" => query("string", "The token with which an earlier answer ended."),
        "resourceVersion" => query("string", "How fresh the answer must be, or after which version a watch begins."),
        "resourceVersionMatch" => query("string", "How resourceVersion is meant: Exact or NotOlderThan."),
        "sendInitialEvents" => query("boolean", "Begin a watch with the present objects, closed by a bookmark."),
        "allowWatchBookmarks" => query("boolean", "Whether the watch may carry bookmarks."),
        "timeoutSeconds" => query("integer", "How long the request may last."),
        "watch" => query("boolean", "Stream changes instead of listing."),
        "command" => query("string", "The command, a word per occurrence; no shell is involved."),
        "container" => query("string", "The container; the only one when left out."),
        "stdin" => query("boolean", "Whether to send standard input."),
        "stdout" => query("boolean", "Whether to receive standard output."),
        "stderr" => query("boolean", "Whether to receive standard error."),
        "tty" => query("boolean", "Whether to allocate a terminal."),
        "ports" => query("integer", "The ports to forward."),
        "follow" => query("boolean", "Go on as lines come."),
        "previous" => query("boolean", "The log of the container's previous run."),
        "sinceSeconds" => query("integer", "Only lines of the last so many seconds."),
        "tailLines" => query("integer", "Only so many lines from the end."),
        "limitBytes" => query("integer", "At most so many bytes."),
        "timestamps" => query("boolean", "Begin each line with its time."),
        "stream" => query("string", "Which stream: All, Stdout or Stderr."),
        "insecureSkipTLSVerifyBackend" => query("boolean", "Do not verify the kubelet's certificate."),
        "path" => path("The rest of the path, passed on to what is proxied.".to_owned()),
        _ => query("string", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v3(group: &str, version: &str) -> Tree {
        v3::document(Registry::builtin(), skiff_kinds::schema(), group, version)
    }

    #[test]
    fn operations_have_upstreams_names() {
        let apps = v3("apps", "v1");
        let id =
            |tree: &Tree, path: &str, method: &str| tree.str_at(&["paths", path, method, "operationId"]).to_owned();
        let one = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
        assert_eq!(id(&apps, one, "put"), "replaceAppsV1NamespacedDeployment");
        assert_eq!(id(&apps, &format!("{one}/scale"), "patch"), "patchAppsV1NamespacedDeploymentScale");
        assert_eq!(id(&apps, "/apis/apps/v1/deployments", "get"), "listAppsV1DeploymentForAllNamespaces");
        assert_eq!(id(&apps, "/apis/apps/v1/watch/deployments", "get"), "watchAppsV1DeploymentListForAllNamespaces");
        let core = v3("", "v1");
        let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
        assert_eq!(id(&core, &format!("{pod}/exec"), "post"), "connectCoreV1PostNamespacedPodExec");
        assert_eq!(id(&core, &format!("{pod}/proxy/{{path}}"), "head"), "connectCoreV1HeadNamespacedPodProxyWithPath");
        assert_eq!(id(&core, "/api/v1/namespaces/{namespace}/pods", "delete"), "deleteCoreV1CollectionNamespacedPod");
        assert_eq!(id(&core, "/api/v1/nodes", "get"), "listCoreV1Node");
    }

    #[test]
    fn schemas_carry_what_apply_and_explain_need() {
        let core = v3("", "v1");
        let ports = core
            .at(&["components", "schemas", "io.k8s.api.core.v1.ServiceSpec", "properties", "ports"])
            .expect("a Service has ports");
        assert_eq!(ports.str_at(&["x-kubernetes-list-type"]), "map");
        assert_eq!(ports.str_at(&["x-kubernetes-patch-merge-key"]), "port");
        let pod = core.at(&["components", "schemas", "io.k8s.api.core.v1.Pod", "x-kubernetes-group-version-kind"]);
        assert_eq!(pod.and_then(Tree::as_list).map(<[Tree]>::len), Some(1));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(tree: &Tree, schemas: &Tree) {
            match tree {
                Tree::Map(map) => {
                    for (key, value) in map.iter() {
                        // CRD schemas have a property of that name.
                        if let ("$ref", Some(target)) = (key.as_str(), value.as_str()) {
                            let name = target.strip_prefix("#/components/schemas/").unwrap();
                            assert!(schemas.get(name).is_some(), "{name}");
                        }
                        check(value, schemas);
                    }
                }
                Tree::List(items) => items.iter().for_each(|item| check(item, schemas)),
                _ => {}
            }
        }
        for (group, versions) in Registry::builtin().groups() {
            for version in versions {
                let document = v3(group, version);
                check(&document, document.at(&["components", "schemas"]).unwrap());
            }
        }
    }

    #[test]
    fn the_protobuf_form_begins_as_a_document() {
        let bytes = proto::document(&v2::document(Registry::builtin(), skiff_kinds::schema()));
        assert_eq!(&bytes[..5], b"\x0a\x032.0");
        assert!(bytes.len() > 100_000);
    }
}
