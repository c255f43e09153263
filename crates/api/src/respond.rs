//! Answers: stored bytes, or the form the client asked for.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use skiff_kinds::Kind;
use skiff_object::time::Time;
use skiff_object::{Schema, Tree, TypeId, json, protobuf, yaml};

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::negotiate::{self, Form, Format, JSON, Offer, Projection};
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::table;

mod pretty;
pub(crate) use pretty::Indent;

/// Smaller answers are not worth compressing: upstream's threshold.
pub(crate) const GZIP_BYTES_MIN: usize = 128 * 1024;

/// What an error has to know of a request that is used up by then.
#[derive(Clone)]
pub struct ErrorForm {
    headers: HeaderMap,
    pretty: bool,
}

impl ErrorForm {
    /// Keeps what says which form `call` accepts. Looked at only when there is an error.
    pub fn of(call: &Call) -> Self {
        let mut headers = HeaderMap::new();
        for name in [header::ACCEPT, header::USER_AGENT] {
            if let Some(value) = call.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        Self { headers, pretty: call.query.contains("pretty=true") }
    }

    /// The form; JSON when the client accepts nothing that we have.
    fn form(&self) -> Form {
        let query = if self.pretty { "pretty=true" } else { "" };
        let form = negotiate::accept(&self.headers, query, Offer::RESOURCE).unwrap_or(Form::JSON);
        Form { projection: Projection::Object, ..form }
    }
}

/// An error as a `Status`.
pub fn error(error: &ApiError, form: &ErrorForm) -> Response<Body> {
    let mut response = status(error.code, &error.to_status(), form.form());
    let headers = response.headers_mut();
    if let Some(seconds) = error.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.code == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kubernetes-master\""));
    }
    response
}

/// A `Status` object as an answer.
pub fn status(code: StatusCode, tree: &Tree, form: Form) -> Response<Body> {
    let bytes = encode(tree, type_named("v1", "Status"), skiff_kinds::schema(), form);
    whole(code, bytes, form.content_type())
}

/// Finds a type of the built-in schema.
pub fn type_named(api_version: &str, kind: &str) -> Option<TypeId> {
    skiff_kinds::type_of(api_version, kind)
}

/// Bytes as an answer.
pub fn whole(code: StatusCode, bytes: impl Into<Bytes>, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Compresses an answer that is worth it for a client that can read it.
pub fn compress(response: &mut Response<Body>, encodings: Option<&HeaderValue>) {
    let Body::Whole(Some(bytes)) = response.body() else { return };
    let is_done = response.headers().contains_key(header::CONTENT_ENCODING);
    if bytes.len() < GZIP_BYTES_MIN || is_done || !accepts_gzip(encodings) {
        return;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    let Ok(compressed) = encoder.write_all(bytes).and_then(|()| encoder.finish()) else { return };
    *response.body_mut() = Body::from(compressed);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// An answer that has been compressed before.
pub(crate) fn compressed(bytes: Bytes, content_type: &'static str) -> Response<Body> {
    let mut response = whole(StatusCode::OK, bytes, content_type);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Whether a client can read gzip.
pub(crate) fn accepts_gzip(encodings: Option<&HeaderValue>) -> bool {
    let accepts = encodings.and_then(|value| value.to_str().ok()).unwrap_or("");
    accepts.split(',').any(|one| one.trim().starts_with("gzip"))
}

/// A tree that is not stored (a review, a `Scale`, a `Status`) in the client's form.
pub fn tree(code: StatusCode, tree: &Tree, ty: Option<TypeId>, schema: &Schema, form: Form) -> Response<Body> {
    whole(code, encode(tree, ty, schema, form), form.content_type())
}

/// Encodes a tree that carries its `kind` and `apiVersion`.
pub fn encode(tree: &Tree, ty: Option<TypeId>, schema: &Schema, form: Form) -> Bytes {
    match (form.format, ty) {
        (Format::Protobuf, Some(ty)) => {
            let raw = protobuf::encode(tree, schema, ty);
            protobuf::envelope::encode(tree.str_at(&["apiVersion"]), tree.str_at(&["kind"]), &raw).into()
        }
        (Format::Yaml, Some(ty)) => {
            let json = json::encode(tree, schema, ty);
            json::decode_untyped(&json)
                .map_or_else(|_| yaml::encode_untyped(tree), |tree| yaml::encode_untyped(&tree))
                .into()
        }
        (Format::Yaml, None) => yaml::encode_untyped(tree).into(),
        (_, Some(ty)) => indent(json::encode(tree, schema, ty), form),
        (_, None) => indent(json::encode_untyped(tree), form),
    }
}

fn indent(json: Vec<u8>, form: Form) -> Bytes {
    if form.pretty { pretty::indent(&json).into() } else { json.into() }
}

/// How objects of a kind are shown.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The kind.
    pub kind: &'a dyn Kind,
    /// The client's form.
    pub form: Form,
    /// Ages are measured from here.
    pub now: Time,
}

impl<'a> View<'a> {
    /// As a form, now.
    pub fn new(server: &ApiServer, kind: &'a dyn Kind, form: Form) -> Self {
        Self { kind, form, now: Time::from_nanos(server.clock().now().as_nanos()) }
    }
}

/// A stored object as the kind serves it, with its resourceVersion.
pub fn served(kind: &dyn Kind, stored: &Stored) -> ApiResult<Tree> {
    let mut tree = decode_stored(kind, &stored.value)?;
    if stored.revision > 0 {
        tree.set(&["metadata", "resourceVersion"], stored.revision.to_string());
    }
    kind.to_served(&mut tree);
    Ok(tree)
}

/// The tree of a stored value, in its stored form.
pub fn decode_stored(kind: &dyn Kind, value: &[u8]) -> ApiResult<Tree> {
    let decoded = if is_stored_form(kind) || kind.custom().is_some() {
        json::decode(value, kind.schema(), kind.facts().ty).map(|(tree, _)| tree)
    } else {
        json::decode_untyped(value)
    };
    decoded.map_err(|error| ApiError::internal(format!("decode a stored object: {error}")))
}

/// Whether the kind is served as it is stored. Custom kinds never are: what lies in the store may be of another
/// version or from before the schema was changed.
pub fn is_stored_form(kind: &dyn Kind) -> bool {
    let facts = kind.facts();
    facts.storage.version == facts.version && facts.storage.group == facts.group && kind.custom().is_none()
}

/// One stored object as an answer.
pub fn object(code: StatusCode, view: View<'_>, stored: &Stored) -> ApiResult<Response<Body>> {
    Ok(whole(code, object_bytes(view, stored)?, view.form.content_type()))
}

/// One stored object in a form.
pub fn object_bytes(view: View<'_>, stored: &Stored) -> ApiResult<Bytes> {
    let View { kind, form, now } = view;
    match form.projection {
        Projection::Object if form.format == Format::Json && is_stored_form(kind) => {
            let json = stored.json();
            Ok(if form.pretty { pretty::indent(&json).into() } else { json })
        }
        Projection::Object => Ok(encode(&served(kind, stored)?, Some(kind.facts().ty), kind.schema(), form)),
        Projection::Metadata => {
            let tree = metadata_only(&served(kind, stored)?, "PartialObjectMetadata");
            Ok(encode(&tree, type_named("meta.k8s.io/v1", "PartialObjectMetadata"), skiff_kinds::schema(), form))
        }
        Projection::Table(include) => {
            let object = served(kind, stored)?;
            let version = stored.revision.to_string();
            let style = table::Style { include, columns: true, version: &version, now };
            Ok(encode(&table::of(kind, &[object], style), None, kind.schema(), form))
        }
    }
}

/// `metadata` of an object and nothing else.
pub fn metadata_only(object: &Tree, kind: &'static str) -> Tree {
    let mut tree = Tree::map();
    tree.set(&["kind"], kind);
    tree.set(&["apiVersion"], "meta.k8s.io/v1");
    tree.set(&["metadata"], object.get("metadata").cloned().unwrap_or_else(Tree::map));
    tree
}

/// A list's own metadata.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// The revision of the list; 0 for a list of what is not stored.
    pub revision: u64,
    /// How to go on, when there is more.
    pub continue_token: String,
    /// How many items are left, when it is known.
    pub remaining: Option<i64>,
}

impl ListMeta {
    pub(crate) fn to_tree(&self) -> Tree {
        let mut tree = Tree::map();
        if self.revision > 0 {
            tree.set(&["resourceVersion"], self.revision.to_string());
        }
        if !self.continue_token.is_empty() {
            tree.set(&["continue"], self.continue_token.as_str());
        }
        if let Some(remaining) = self.remaining {
            tree.set(&["remainingItemCount"], remaining);
        }
        tree
    }
}

/// Plain text.
pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = whole(code, text, "text/plain; charset=utf-8");
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// JSON that is ready.
pub fn json_bytes(bytes: impl Into<Bytes>) -> Response<Body> {
    whole(StatusCode::OK, bytes, JSON)
}
