//! Requests, typed and untyped, over an [`Endpoint`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Method, Request};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::options::{DeleteOptions, ListOptions, Patch, WatchOptions};
use crate::resource::push_query;
use crate::watch::{RawWatch, Watch};
use crate::{Body, Endpoint, Error, PartialObject, Resource, Result, View};

/// How long an answer (not a watch) is awaited. Upstream's server gives up after 60 s itself.
const REQUEST_DEADLINE: Duration = Duration::from_secs(65);

/// The largest answer accepted in one piece. Lists are asked for in pages where that matters.
const BODY_BYTES_MAX: usize = 1 << 30;

/// Objects reduced to metadata.
const ACCEPT_PARTIAL: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const ACCEPT_PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const ACCEPT_JSON: &str = "application/json";

/// Objects of one list answer and its metadata.
#[derive(Clone, Debug)]
pub struct ObjectList<K> {
    /// The objects, in the server's order.
    pub items: Vec<K>,
    /// The version of the list, and where to continue.
    pub metadata: ListMeta,
}

/// Objects of one list answer, each still as JSON.
#[derive(Clone, Debug)]
pub struct RawList {
    /// The objects. They carry no `apiVersion` and `kind` of their own.
    pub items: Vec<Bytes>,
    /// The version of the list, and where to continue.
    pub metadata: ListMeta,
}

/// A client with the identity of its endpoint. Cheap to clone.
///
/// Where a method takes a namespace, it is empty for cluster-scoped kinds, and for lists and
/// watches over all namespaces.
#[derive(Clone)]
pub struct Client {
    endpoint: Arc<dyn Endpoint>,
    agent: Arc<str>,
}

impl Client {
    /// A client over `endpoint` that introduces itself as `agent` (its `User-Agent`).
    pub fn new(endpoint: Arc<dyn Endpoint>, agent: &str) -> Self {
        Self { endpoint, agent: agent.into() }
    }

    /// The object `name`.
    ///
    /// # Errors
    /// [`Error`]; not found is one of them.
    pub async fn get<K: View>(&self, namespace: &str, name: &str) -> Result<K> {
        self.ask(Method::GET, K::RESOURCE.path(namespace, name, ""), ACCEPT_JSON, "", Vec::new()).await
    }

    /// The object `name`, or `None` when it does not exist.
    ///
    /// # Errors
    /// [`Error`], but not "not found".
    pub async fn find<K: View>(&self, namespace: &str, name: &str) -> Result<Option<K>> {
        match self.get(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One answer of a list.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list<K: View>(&self, namespace: &str, options: &ListOptions) -> Result<ObjectList<K>> {
        let raw = self.list_raw(&K::RESOURCE, namespace, options).await?;
        decode_list(raw, &K::RESOURCE)
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// [`Error`]; "expired" when the list took too long.
    pub async fn list_all<K: View>(&self, namespace: &str, options: &ListOptions) -> Result<Vec<K>> {
        let mut options = options.clone();
        let mut items = Vec::new();
        loop {
            let page = self.list::<K>(namespace, &options).await?;
            items.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => options.continue_token = token,
                None => return Ok(items),
            }
        }
    }

    /// A watch.
    ///
    /// # Errors
    /// [`Error`] when the watch does not start.
    pub async fn watch<K: View>(&self, namespace: &str, options: &WatchOptions) -> Result<Watch<K>> {
        Ok(Watch::new(self.watch_raw(&K::RESOURCE, namespace, options).await?))
    }

    /// Creates `object` in the namespace of its metadata.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create<K: View>(&self, object: &K) -> Result<K> {
        let namespace = object.meta().namespace.as_deref().unwrap_or("");
        let path = K::RESOURCE.path(namespace, "", "");
        let body = encode(object, &path)?;
        self.ask(Method::POST, path, ACCEPT_JSON, ACCEPT_JSON, body).await
    }

    /// Replaces `object`; its resource version, when set, must be the present one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn replace<K: View>(&self, object: &K) -> Result<K> {
        self.replace_subresource(object, "").await
    }

    /// Replaces the status of `object`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn replace_status<K: View>(&self, object: &K) -> Result<K> {
        self.replace_subresource(object, "status").await
    }

    /// Replaces `subresource` of `object` (or all of it when empty).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn replace_subresource<K: View>(&self, object: &K, subresource: &str) -> Result<K> {
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let path = K::RESOURCE.path(namespace, name, subresource);
        let body = encode(object, &path)?;
        self.ask(Method::PUT, path, ACCEPT_JSON, ACCEPT_JSON, body).await
    }

    /// Patches `name`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn patch<K: View>(&self, namespace: &str, name: &str, patch: &Patch) -> Result<K> {
        self.patch_subresource(namespace, name, "", patch).await
    }

    /// Patches `subresource` of `name`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn patch_subresource<K: View>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<K> {
        let bytes = self.patch_raw(&K::RESOURCE, namespace, name, subresource, patch).await?;
        decode(&bytes, || K::RESOURCE.path(namespace, name, subresource))
    }

    /// Deletes `name`. The answer (the object or a `Status`) is dropped.
    ///
    /// # Errors
    /// [`Error`]; not found is one of them.
    pub async fn delete<K: View>(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<()> {
        self.delete_raw(&K::RESOURCE, namespace, name, options).await
    }

    /// Deletes every selected object.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_collection<K: View>(
        &self,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<()> {
        self.delete_collection_raw(&K::RESOURCE, namespace, list, options).await
    }

    /// Asks for the eviction of a pod, which its disruption budgets may refuse (429).
    ///
    /// # Errors
    /// [`Error`].
    pub async fn evict(&self, namespace: &str, pod: &str, options: &DeleteOptions) -> Result<()> {
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": options.json(),
        });
        self.post_for_pod(namespace, pod, "eviction", body).await
    }

    /// Places a pod on a node.
    ///
    /// # Errors
    /// [`Error`]; a conflict when it is already placed.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: &str, node: &str) -> Result<()> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod, "namespace": namespace, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        self.post_for_pod(namespace, pod, "binding", body).await
    }

    /// A token for a service account.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_token(
        &self,
        namespace: &str,
        service_account: &str,
        spec: TokenRequestSpec,
    ) -> Result<TokenRequest> {
        let path = service_accounts().path(namespace, service_account, "token");
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let body = serde_json::to_vec(&request).map_err(|error| codec(&path, &error))?;
        let answer = self.exchange(Method::POST, &path, ACCEPT_JSON, ACCEPT_JSON, body).await?;
        serde_json::from_slice(&answer).map_err(|error| codec(&path, &error))
    }

    /// The metadata of the object `name` of any resource.
    ///
    /// # Errors
    /// [`Error`]; not found is one of them.
    pub async fn get_metadata(&self, resource: &Resource, namespace: &str, name: &str) -> Result<PartialObject> {
        self.ask(Method::GET, resource.path(namespace, name, ""), ACCEPT_PARTIAL, "", Vec::new()).await
    }

    /// One answer of a metadata-only list of any resource.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_metadata(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList<PartialObject>> {
        decode_list(self.list_metadata_raw(resource, namespace, options).await?, resource)
    }

    pub(crate) async fn list_metadata_raw(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<RawList> {
        self.list_accepting(resource, namespace, options, ACCEPT_PARTIAL_LIST).await
    }

    /// A metadata-only watch of any resource.
    ///
    /// # Errors
    /// [`Error`] when the watch does not start.
    pub async fn watch_metadata(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &WatchOptions,
    ) -> Result<Watch<PartialObject>> {
        Ok(Watch::new(self.watch_accepting(resource, namespace, options, ACCEPT_PARTIAL).await?))
    }

    /// The object `name` of any resource, as JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_raw(&self, resource: &Resource, namespace: &str, name: &str, subresource: &str) -> Result<Bytes> {
        let path = resource.path(namespace, name, subresource);
        self.exchange(Method::GET, &path, ACCEPT_JSON, "", Vec::new()).await
    }

    /// One answer of a list of any resource, objects as JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_raw(&self, resource: &Resource, namespace: &str, options: &ListOptions) -> Result<RawList> {
        self.list_accepting(resource, namespace, options, ACCEPT_JSON).await
    }

    /// A watch of any resource, objects as JSON.
    ///
    /// # Errors
    /// [`Error`] when the watch does not start.
    pub async fn watch_raw(&self, resource: &Resource, namespace: &str, options: &WatchOptions) -> Result<RawWatch> {
        self.watch_accepting(resource, namespace, options, ACCEPT_JSON).await
    }

    /// Creates an object of any resource from JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create_raw(&self, resource: &Resource, namespace: &str, object: Vec<u8>) -> Result<Bytes> {
        self.exchange(Method::POST, &resource.path(namespace, "", ""), ACCEPT_JSON, ACCEPT_JSON, object).await
    }

    /// Patches an object of any resource.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn patch_raw(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: &Patch,
    ) -> Result<Bytes> {
        let mut path = resource.path(namespace, name, subresource);
        patch.push_query(&mut path);
        self.exchange(Method::PATCH, &path, ACCEPT_JSON, patch.content_type(), patch.body()).await
    }

    /// Deletes an object of any resource.
    ///
    /// # Errors
    /// [`Error`]; not found is one of them.
    pub async fn delete_raw(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<()> {
        let path = resource.path(namespace, name, "");
        let body = options.json().to_string().into_bytes();
        self.exchange(Method::DELETE, &path, ACCEPT_JSON, ACCEPT_JSON, body).await.map(drop)
    }

    /// Deletes every selected object of any resource.
    ///
    /// # Errors
    /// [`Error`]; "method not allowed" for resources without the verb.
    pub async fn delete_collection_raw(
        &self,
        resource: &Resource,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<()> {
        let mut path = resource.path(namespace, "", "");
        list.push_query(&mut path);
        let body = options.json().to_string().into_bytes();
        self.exchange(Method::DELETE, &path, ACCEPT_JSON, ACCEPT_JSON, body).await.map(drop)
    }

    /// Any request; the answer's body when its code is below 300. Empty `content_type` and `body`
    /// for requests without one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Bytes> {
        let attempt = || attempt(&method, path);
        let answer = async {
            let (code, body) = self.send(&method, path, accept, content_type, body).await?;
            let body = read_all(body, attempt).await?;
            if code < 300 { Ok(body) } else { Err(api_error(code, &body, attempt())) }
        };
        match tokio::time::timeout(REQUEST_DEADLINE, answer).await {
            Ok(result) => result,
            Err(_) => Err(Error::Deadline { attempt: attempt(), seconds: REQUEST_DEADLINE.as_secs() }),
        }
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Body)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, accept)
            .header(http::header::USER_AGENT, &*self.agent);
        if !content_type.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Bytes::from(body))
            .map_err(|error| Error::Codec { attempt: attempt(method, path), cause: error.to_string() })?;
        let response = self.endpoint.send(request).await?;
        Ok((response.status().as_u16(), response.into_body()))
    }

    async fn ask<K: View>(
        &self,
        method: Method,
        path: String,
        accept: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<K> {
        let bytes = self.exchange(method, &path, accept, content_type, body).await?;
        decode(&bytes, || path)
    }

    async fn post_for_pod(&self, namespace: &str, pod: &str, subresource: &str, body: serde_json::Value) -> Result<()> {
        let path = Resource::fixed("", "v1", "Pod", "pods", true).path(namespace, pod, subresource);
        self.exchange(Method::POST, &path, ACCEPT_JSON, ACCEPT_JSON, body.to_string().into_bytes()).await.map(drop)
    }

    async fn list_accepting(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &ListOptions,
        accept: &str,
    ) -> Result<RawList> {
        let mut path = resource.path(namespace, "", "");
        options.push_query(&mut path);
        let bytes = self.exchange(Method::GET, &path, accept, "", Vec::new()).await?;
        split_list(&bytes).map_err(|error| codec(&path, &error))
    }

    async fn watch_accepting(
        &self,
        resource: &Resource,
        namespace: &str,
        options: &WatchOptions,
        accept: &str,
    ) -> Result<RawWatch> {
        let mut path = resource.path(namespace, "", "");
        options.push_query(&mut path);
        let attempt = || attempt(&Method::GET, &path);
        let head = self.send(&Method::GET, &path, accept, "", Vec::new());
        let (code, body) = match tokio::time::timeout(REQUEST_DEADLINE, head).await {
            Ok(head) => head?,
            Err(_) => return Err(Error::Deadline { attempt: attempt(), seconds: REQUEST_DEADLINE.as_secs() }),
        };
        if code >= 300 {
            return Err(api_error(code, &read_all(body, attempt).await?, attempt()));
        }
        Ok(RawWatch::new(body, attempt()))
    }
}

/// Adds query parameters (`dryRun`, `fieldManager`, …) to a path for [`Client::exchange`].
pub fn with_query(mut path: String, parameters: &[(&str, &str)]) -> String {
    for (name, value) in parameters {
        push_query(&mut path, name, value);
    }
    path
}

#[derive(Deserialize)]
struct ListEnvelope<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

fn split_list(bytes: &Bytes) -> serde_json::Result<RawList> {
    let list: ListEnvelope<'_> = serde_json::from_slice(bytes)?;
    let items = list.items.unwrap_or_default();
    Ok(RawList {
        items: items.into_iter().map(|item| bytes.slice_ref(item.get().as_bytes())).collect(),
        metadata: list.metadata,
    })
}

fn decode_list<K: View>(raw: RawList, resource: &Resource) -> Result<ObjectList<K>> {
    let mut items = Vec::with_capacity(raw.items.len());
    for item in &raw.items {
        items.push(decode(item, || resource.path("", "", ""))?);
    }
    Ok(ObjectList { items, metadata: raw.metadata })
}

fn decode<K: View>(bytes: &[u8], path: impl FnOnce() -> String) -> Result<K> {
    K::decode(bytes).map_err(|cause| Error::Codec { attempt: format!("decode {}", path()), cause })
}

fn encode<K: View>(object: &K, path: &str) -> Result<Vec<u8>> {
    object.encode().map_err(|cause| Error::Codec { attempt: format!("encode {path}"), cause })
}

fn codec(path: &str, error: &serde_json::Error) -> Error {
    Error::Codec { attempt: format!("decode {path}"), cause: error.to_string() }
}

fn attempt(method: &Method, path: &str) -> String {
    format!("{method} {path}")
}

async fn read_all(mut body: Body, attempt: impl Fn() -> String) -> Result<Bytes> {
    let Some(first) = body.next().await else { return Ok(Bytes::new()) };
    let first = first?;
    let mut whole: Option<BytesMut> = None;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        let whole = whole.get_or_insert_with(|| BytesMut::from(&first[..]));
        if whole.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Error::Codec { attempt: attempt(), cause: "the answer is larger than 1 GiB".into() });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.map_or(first, BytesMut::freeze))
}

/// The server's `Status`, or one made of the code when the body is something else (a proxy's
/// page, plain text).
fn api_error(code: u16, body: &[u8], attempt: String) -> Error {
    let status = serde_json::from_slice::<Status>(body).ok().filter(|status| status.status.is_some());
    let status = status.unwrap_or_else(|| Status {
        code: Some(i32::from(code)),
        message: Some(format!("the server answered {code}: {}", String::from_utf8_lossy(&body[..body.len().min(512)]))),
        status: Some("Failure".into()),
        ..Status::default()
    });
    Error::Api { attempt, status: Box::new(status) }
}

fn service_accounts() -> Resource {
    Resource::fixed("", "v1", "ServiceAccount", "serviceaccounts", true)
}
