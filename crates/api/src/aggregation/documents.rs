//! What aggregated servers say of themselves: discovery and OpenAPI.
//!
//! Fetched after a server has proven available and again every minute; a server that cannot be
//! asked keeps what it last said, marked stale.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Response, StatusCode};
use skiff_object::{Map, Tree, json};

use super::check::request;
use super::{Remote, Service};
use crate::authn::MASTERS;
use crate::outbound::Limits;
use crate::server::ApiServer;

/// How long a server may take for a document.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document: upstream's own OpenAPI 2 document has 4 MiB.
const BYTES_MAX: usize = 32 * 1024 * 1024;
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What a remote server said last about its group and version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Documents {
    /// The resources, as aggregated discovery shows them; `None` when it has never said.
    pub(crate) resources: Option<Tree>,
    /// Whether the last attempt to ask succeeded.
    pub(crate) fresh: bool,
    /// `serverRelativeURL` of its OpenAPI 3 document.
    pub(crate) v3_url: Option<String>,
    /// Its OpenAPI 2 document, as far as it is about its group and version.
    pub(crate) v2: Option<Arc<Tree>>,
    pub(super) v2_etag: Option<HeaderValue>,
}

impl Documents {
    /// Whether discovery or OpenAPI would show anything else.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let same_v2 = match (&self.v2, &other.v2) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (None, None) => true,
            _ => false,
        };
        !same_v2 || self.v3_url != other.v3_url
    }
}

/// Asks anew. What cannot be had stays as it was `before`.
pub(crate) async fn fetch(server: &ApiServer, service: &Service, before: Documents) -> Documents {
    let Some(remote) = &service.remote else { return before };
    let mut documents = before;
    match resources(server, service, remote).await {
        Ok(resources) => {
            documents.resources = Some(resources);
            documents.fresh = true;
        }
        Err(error) => {
            tracing::info!(name = service.name, error, "an aggregated server does not say what it serves");
            documents.fresh = false;
        }
    }
    documents.v3_url = v3_url(server, service, remote).await;
    v2(server, service, remote, &mut documents).await;
    documents
}

async fn get(
    server: &ApiServer,
    remote: &Remote,
    path: &str,
    headers: &[(http::HeaderName, HeaderValue)],
) -> Result<Response<Bytes>, String> {
    let mut request = request(path, &[MASTERS]).map_err(|error| error.to_string())?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    let limits = Limits { timeout: TIMEOUT, answer_bytes_max: BYTES_MAX };
    server.outbound().send(&remote.target, request, limits).await.map_err(|error| format!("GET {path}: {error}"))
}

fn tree(path: &str, answer: &Response<Bytes>) -> Result<Tree, String> {
    json::decode_untyped(answer.body()).map_err(|error| format!("GET {path}: {error}"))
}

/// The resources from the aggregated document, or from the one of the version where there is none.
async fn resources(server: &ApiServer, service: &Service, remote: &Remote) -> Result<Tree, String> {
    let aggregated = get(server, remote, "/apis", &[(ACCEPT, HeaderValue::from_static(AGGREGATED))]).await?;
    let content_type = aggregated.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if aggregated.status() == StatusCode::OK && content_type.contains("as=APIGroupDiscoveryList") {
        let document = tree("/apis", &aggregated)?;
        let group = document.list_at(&["items"]).iter().find(|one| one.str_at(&["metadata", "name"]) == service.group);
        let versions = group.map(|group| group.list_at(&["versions"])).unwrap_or_default();
        let version = versions.iter().find(|one| one.str_at(&["version"]) == service.version);
        return Ok(Tree::List(version.map(|one| one.list_at(&["resources"]).to_vec()).unwrap_or_default()));
    }
    let path = service.path();
    let legacy = get(server, remote, &path, &[(ACCEPT, HeaderValue::from_static("application/json"))]).await?;
    if legacy.status() != StatusCode::OK {
        return Err(format!("GET {path}: {}", legacy.status()));
    }
    Ok(from_legacy(&tree(&path, &legacy)?))
}

/// An `APIResourceList` as aggregated discovery shows it.
fn from_legacy(list: &Tree) -> Tree {
    let mut resources: Vec<Tree> = Vec::new();
    let response_kind = |one: &Tree| {
        let mut kind = Map::new();
        for field in ["group", "version", "kind"] {
            kind.insert(field, one.str_at(&[field]));
        }
        Tree::Map(kind)
    };
    let copied = |one: &Tree, field: &str| one.get(field).filter(|value| !value.is_null()).cloned();
    let all = list.list_at(&["resources"]);
    for one in all.iter().filter(|one| !one.str_at(&["name"]).contains('/')) {
        let mut resource = Map::new();
        resource.insert("resource", one.str_at(&["name"]));
        resource.insert("responseKind", response_kind(one));
        let namespaced = one.bool_at(&["namespaced"]) == Some(true);
        resource.insert("scope", if namespaced { "Namespaced" } else { "Cluster" });
        resource.insert("singularResource", one.str_at(&["singularName"]));
        for field in ["verbs", "shortNames", "categories"] {
            if let Some(value) = copied(one, field) {
                resource.insert(field, value);
            }
        }
        resources.push(Tree::Map(resource));
    }
    for one in all {
        let Some((parent, name)) = one.str_at(&["name"]).split_once('/') else { continue };
        let Some(resource) = resources.iter_mut().find(|known| known.str_at(&["resource"]) == parent) else { continue };
        let mut subresource = Map::new();
        subresource.insert("subresource", name);
        subresource.insert("responseKind", response_kind(one));
        if let Some(verbs) = copied(one, "verbs") {
            subresource.insert("verbs", verbs);
        }
        if let Tree::List(items) = resource.ensure_map().entry_or("subresources", Tree::list) {
            items.push(Tree::Map(subresource));
        }
    }
    Tree::List(resources)
}

async fn v3_url(server: &ApiServer, service: &Service, remote: &Remote) -> Option<String> {
    let answer = get(server, remote, "/openapi/v3", &[(ACCEPT, HeaderValue::from_static("application/json"))]).await;
    let answer = answer.ok().filter(|answer| answer.status() == StatusCode::OK)?;
    let index = tree("/openapi/v3", &answer).ok()?;
    let path = service.path();
    let url = index.str_at(&["paths", path.trim_start_matches('/'), "serverRelativeURL"]);
    url.starts_with('/').then(|| url.to_owned())
}

async fn v2(server: &ApiServer, service: &Service, remote: &Remote, documents: &mut Documents) {
    let mut headers = vec![(ACCEPT, HeaderValue::from_static("application/json"))];
    if let Some(etag) = &documents.v2_etag {
        headers.push((IF_NONE_MATCH, etag.clone()));
    }
    match get(server, remote, "/openapi/v2", &headers).await {
        Ok(answer) if answer.status() == StatusCode::OK => {
            documents.v2_etag = answer.headers().get(ETAG).cloned();
            documents.v2 = tree("/openapi/v2", &answer).ok().map(|whole| Arc::new(part_of(&whole, &service.path())));
        }
        Ok(answer) if answer.status() == StatusCode::NOT_MODIFIED => {}
        Ok(_) => (documents.v2, documents.v2_etag) = (None, None),
        // It may be back in a moment: what it said stays.
        Err(error) => tracing::debug!(name = service.name, error, "no OpenAPI document of an aggregated server"),
    }
}

/// The paths below `path` and the definitions they lead to.
fn part_of(whole: &Tree, path: &str) -> Tree {
    let below = |one: &str| one.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut paths = Map::new();
    if let Some(Tree::Map(all)) = whole.get("paths") {
        for (key, value) in all.iter().filter(|(key, _)| below(key.as_str())) {
            paths.insert(key.clone(), value.clone());
        }
    }
    let paths = Tree::Map(paths);
    let mut names = BTreeSet::new();
    references(&paths, &mut |name| names.extend([name.to_owned()]));
    let mut waiting: Vec<String> = names.iter().cloned().collect();
    let mut definitions = Map::new();
    while let Some(name) = waiting.pop() {
        let Some(definition) = whole.at(&["definitions", &name]) else { continue };
        references(definition, &mut |found| {
            if names.insert(found.to_owned()) {
                waiting.push(found.to_owned());
            }
        });
        definitions.insert(name, definition.clone());
    }
    let mut part = Tree::map();
    part.set(&["paths"], paths);
    part.set(&["definitions"], definitions);
    part
}

const DEFINITIONS: &str = "#/definitions/";

/// Every definition that something refers to.
fn references(tree: &Tree, found: &mut dyn FnMut(&str)) {
    match tree {
        Tree::Map(map) => {
            for (key, value) in map.iter() {
                match value.as_str().and_then(|text| text.strip_prefix(DEFINITIONS)) {
                    Some(name) if key.as_str() == "$ref" => found(name),
                    _ => references(value, found),
                }
            }
        }
        Tree::List(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Adds a remote document to ours. A definition that means something else under a known name gets
/// another one; a path that we have already stays ours.
pub(crate) fn merge(document: &mut Tree, part: &Tree) {
    let mut renamed: Vec<(String, String)> = Vec::new();
    if let Some(Tree::Map(theirs)) = part.get("definitions") {
        let ours = document.get("definitions");
        for (name, definition) in theirs.iter() {
            let known = |name: &str| ours.and_then(|ours| ours.get(name));
            if known(name.as_str()).is_some_and(|own| own != definition) {
                let fresh = (2..).map(|number| format!("{}_v{number}", name.as_str()));
                let fresh = fresh.into_iter().find(|name| known(name).is_none_or(|own| own == definition));
                renamed.extend(fresh.map(|fresh| (name.as_str().to_owned(), fresh)));
            }
        }
    }
    for section in ["definitions", "paths"] {
        let Some(Tree::Map(theirs)) = part.get(section) else { continue };
        let ours = document.ensure_map().entry_or(section, Tree::map).ensure_map();
        for (name, value) in theirs.iter() {
            let own = renamed.iter().find(|(old, _)| section == "definitions" && old == name.as_str());
            let name = own.map_or_else(|| name.as_str().to_owned(), |(_, fresh)| fresh.clone());
            if !ours.contains_key(&name) {
                let mut value = value.clone();
                rename(&mut value, &renamed);
                ours.insert(name, value);
            }
        }
        ours.sort_keys();
    }
}

fn rename(tree: &mut Tree, renamed: &[(String, String)]) {
    if renamed.is_empty() {
        return;
    }
    match tree {
        Tree::Map(map) => {
            for (key, value) in map.iter_mut() {
                let name = value.as_str().and_then(|text| text.strip_prefix(DEFINITIONS));
                let fresh = renamed.iter().find(|(old, _)| key.as_str() == "$ref" && Some(old.as_str()) == name);
                match fresh {
                    Some((_, fresh)) => *value = Tree::from(format!("{DEFINITIONS}{fresh}")),
                    None => rename(value, renamed),
                }
            }
        }
        Tree::List(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Tree {
        json::decode_untyped(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_what_belongs_to_the_version_is_taken() {
        let whole = parse(
            r##"{"paths":{"/apis/a/v1/x":{"get":{"$ref":"#/definitions/X"}},"/apis/a/v1beta1/y":{"$ref":"#/definitions/Y"}},
            "definitions":{"X":{"properties":{"m":{"$ref":"#/definitions/M"}}},"Y":{},"M":{"properties":{"x":{"$ref":"#/definitions/X"}}}}}"##,
        );
        let part = part_of(&whole, "/apis/a/v1");
        assert!(part.at(&["definitions", "X"]).is_some() && part.at(&["definitions", "M"]).is_some());
        assert!(part.at(&["definitions", "Y"]).is_none() && part.at(&["paths", "/apis/a/v1beta1/y"]).is_none());
    }

    #[test]
    fn a_definition_that_means_something_else_gets_another_name() {
        let mut ours = parse(r#"{"paths":{},"definitions":{"M":{"type":"object"},"S":{"type":"string"}}}"#);
        let theirs = parse(
            r##"{"paths":{"/apis/a/v1/x":{"$ref":"#/definitions/M"}},"definitions":{"M":{"type":"array"},"S":{"type":"string"}}}"##,
        );
        merge(&mut ours, &theirs);
        assert_eq!(ours.str_at(&["paths", "/apis/a/v1/x", "$ref"]), "#/definitions/M_v2");
        assert_eq!(ours.str_at(&["definitions", "M_v2", "type"]), "array");
        assert_eq!(ours.str_at(&["definitions", "M", "type"]), "object");
        assert!(ours.at(&["definitions", "S_v2"]).is_none());
    }

    #[test]
    fn an_old_server_s_list_becomes_aggregated_discovery() {
        let list = parse(
            r#"{"resources":[{"name":"flunders","singularName":"flunder","namespaced":true,"kind":"Flunder",
            "verbs":["get"]},{"name":"flunders/status","kind":"Flunder","verbs":["update"]}]}"#,
        );
        let resources = from_legacy(&list);
        let first = &resources.as_list().unwrap()[0];
        assert_eq!((first.str_at(&["resource"]), first.str_at(&["scope"])), ("flunders", "Namespaced"));
        assert_eq!(first.list_at(&["subresources"])[0].str_at(&["subresource"]), "status");
    }
}
