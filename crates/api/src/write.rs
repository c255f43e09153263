//! What all writes have in common: the body becomes a tree, the tree becomes a stored object.
//!
//! The order is upstream's: decode, default, ownership of fields, mutating admission, default,
//! prepare, validate, validating admission, encode, store.

use bytes::Bytes;
use skiff_kinds::Kind;
use skiff_object::{Schema, Tree, TypeId, json, protobuf, yaml};

use crate::authn::UserInfo;
use crate::chain::Call;
use crate::custom;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::negotiate::{self, Format};
use crate::request::options::{FieldValidation, WriteOptions};
use crate::respond;
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::verbs::Subject;

/// A write on its way.
pub struct Writer<'a> {
    /// The server.
    pub server: &'a ApiServer,
    /// What is written.
    pub subject: &'a Subject,
    /// Who writes.
    pub user: &'a UserInfo,
    /// How.
    pub options: &'a WriteOptions,
    /// Who owns the fields: `fieldManager`, else the first word of the user agent.
    pub manager: String,
    /// Where warnings go.
    pub call: Option<&'a Call>,
    /// Whether the write was admitted already, as something else (a scale).
    pub is_admitted: bool,
    /// The subresource that `managedFields` name: that of the request, even where the object is written whole.
    pub recorded: &'a str,
}

impl<'a> Writer<'a> {
    /// A write asked for by a request.
    pub fn of(server: &'a ApiServer, call: &'a Call, subject: &'a Subject, options: &'a WriteOptions) -> Self {
        Self {
            server,
            subject,
            user: &call.user,
            options,
            manager: manager(call, options),
            call: Some(call),
            is_admitted: false,
            recorded: &subject.subresource,
        }
    }

    /// The kind that is written.
    pub fn kind(&self) -> &dyn Kind {
        self.subject.kind.as_ref()
    }

    /// Tells the client something besides the answer.
    pub fn warn(&self, text: String) {
        if let Some(call) = self.call {
            call.warn(text);
        }
    }

    /// The canonical stored bytes of a served object.
    pub async fn encode(&self, object: &Tree) -> ApiResult<Bytes> {
        custom::convert::stored(self.server, self.kind(), object).await
    }

    /// What is written now, in the version of the path.
    pub async fn current(&self) -> ApiResult<Option<Stored>> {
        let subject = self.subject;
        let stored = subject.collection.get(&subject.namespace, &subject.name).await?;
        custom::convert::served_maybe(self.server, self.kind(), stored).await
    }

    /// An object that was written, in the version of the path.
    pub async fn written(&self, stored: Stored) -> ApiResult<Stored> {
        custom::convert::served_one(self.server, self.kind(), stored).await
    }

    /// A stored object that was not stored (`dryRun`).
    pub fn unstored(&self, value: Bytes, revision: u64) -> Stored {
        Stored { key: Bytes::new(), value, revision }
    }
}

/// The canonical stored bytes of a served object.
///
/// # Errors
/// 400 when they could not be read again: patches add keys, and entries of `managedFields` nest deeper than the fields
/// they name.
pub fn encode_stored(kind: &dyn Kind, object: &Tree) -> ApiResult<Bytes> {
    skiff_object::decode::check(object).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if respond::is_stored_form(kind) && meta::resource_version(object).is_empty() {
        return Ok(json::encode(object, kind.schema(), kind.facts().ty).into());
    }
    let mut object = object.clone();
    object.unset(&["metadata", "resourceVersion"]);
    kind.to_stored(&mut object);
    let facts = kind.facts();
    if let Some(custom) = kind.custom() {
        return Ok(json::encode(&object, custom.stored_schema(), facts.ty).into());
    }
    if respond::is_stored_form(kind) {
        return Ok(json::encode(&object, kind.schema(), facts.ty).into());
    }
    let stored_as = skiff_kinds::builtin().resource(
        facts.storage.group.as_str(),
        facts.storage.version.as_str(),
        facts.plural.as_str(),
    );
    Ok(match stored_as {
        Some(stored) => json::encode(&object, stored.schema(), stored.facts().ty).into(),
        None => json::encode_untyped(&object).into(),
    })
}

/// Who a write's fields belong to.
fn manager(call: &Call, options: &WriteOptions) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    let agent = call.user_agent();
    let name = agent.split('/').next().unwrap_or("");
    if name.is_empty() { "unknown".to_owned() } else { name.chars().take(128).collect() }
}

/// What a body is decoded as.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The `apiVersion` of the path.
    pub api_version: &'a str,
    /// The kind of the path.
    pub kind: &'a str,
    /// Its type.
    pub schema: &'a Schema,
    /// Its type.
    pub ty: TypeId,
}

impl<'a> Expected<'a> {
    /// The objects of a resource.
    pub fn of(kind: &'a dyn Kind) -> Self {
        let facts = kind.facts();
        Self { api_version: facts.api_version.as_str(), kind: facts.kind.as_str(), schema: kind.schema(), ty: facts.ty }
    }
}

/// Reads and decodes the body of a request.
pub async fn decode_body(
    call: &mut Call,
    offer: negotiate::Offer,
    expected: Expected<'_>,
    mode: FieldValidation,
) -> ApiResult<Tree> {
    let format = negotiate::content_type(&call.headers, offer)?;
    let bytes = call.read_body().await?;
    decode(call, &bytes, format, expected, mode)
}

/// Decodes an object and checks that it is what the path expects.
pub fn decode(
    call: &Call,
    bytes: &[u8],
    format: Format,
    expected: Expected<'_>,
    mode: FieldValidation,
) -> ApiResult<Tree> {
    let Expected { api_version, kind, schema, ty } = expected;
    let failed = |why: &dyn std::fmt::Display| failed(expected, why);
    let mut tree = match format {
        Format::Protobuf => {
            let envelope = protobuf::envelope::decode(bytes).map_err(|error| failed(&error))?;
            let mut tree = protobuf::decode(envelope.raw, schema, ty).map_err(|error| failed(&error))?;
            let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
            tree.set(&["apiVersion"], or(envelope.api_version, api_version));
            tree.set(&["kind"], or(envelope.kind, kind));
            tree
        }
        Format::Json | Format::Yaml => {
            let decoded =
                if format == Format::Json { json::decode(bytes, schema, ty) } else { yaml::decode(bytes, schema, ty) };
            let (tree, issues) = decoded.map_err(|error| failed(&error))?;
            strict(call, issues.iter().map(ToString::to_string).collect(), mode).map_err(|why| failed(&why))?;
            tree
        }
    };
    if !matches!(tree, Tree::Map(_)) {
        return Err(failed(&"the body is no object"));
    }
    check_type(&mut tree, api_version, kind)?;
    Ok(tree)
}

/// The 400 for a body that is no object of the expected kind.
pub fn failed(expected: Expected<'_>, why: &dyn std::fmt::Display) -> ApiError {
    let (_, version) = skiff_kinds::facts::split_api_version(expected.api_version);
    let kind = expected.kind;
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// Unknown and duplicate fields: an error, warnings or nothing.
pub fn strict(call: &Call, issues: Vec<String>, mode: FieldValidation) -> Result<(), String> {
    if issues.is_empty() {
        return Ok(());
    }
    match mode {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            issues.into_iter().for_each(|issue| call.warn(issue));
            Ok(())
        }
        FieldValidation::Strict => Err(format!("strict decoding error: {}", issues.join(", "))),
    }
}

/// `kind` and `apiVersion` are the path's, or absent.
pub fn check_type(tree: &mut Tree, api_version: &str, kind: &str) -> ApiResult<()> {
    let (found_version, found_kind) = (tree.str_at(&["apiVersion"]).to_owned(), tree.str_at(&["kind"]).to_owned());
    if found_kind.is_empty() && found_version.is_empty() {
        tree.set(&["kind"], kind);
        tree.set(&["apiVersion"], api_version);
        return Ok(());
    }
    let found_version = if found_version.is_empty() { api_version.to_owned() } else { found_version };
    let found_kind = if found_kind.is_empty() { kind.to_owned() } else { found_kind };
    if found_kind != kind {
        let (_, version) = skiff_kinds::facts::split_api_version(&found_version);
        return Err(ApiError::bad_request(format!(
            "{found_kind} in version {version:?} cannot be handled as a {kind}: converting ({found_version}, \
             Kind={found_kind}) to ({api_version}, Kind={kind}): unknown conversion"
        )));
    }
    if found_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    tree.set(&["kind"], found_kind);
    tree.set(&["apiVersion"], found_version);
    Ok(())
}
