//! `patch`: four kinds of it, each a function from what is there to what shall be there.

use http::{Response, StatusCode};
use skiff_object::patch::json::JsonPatchError;
use skiff_object::{Schema, Tree, TypeId, conform, json, patch, yaml};

use super::update::{self, CONFLICT_RETRIES_MAX, ChangeKind};
use super::{Subject, create};
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult, Cause, Qualified};
use crate::negotiate::{self, Offer, PatchType};
use crate::request::options::{FieldValidation, WriteOptions};
use crate::server::ApiServer;
use crate::storage::Stored;
use crate::write::{self, Expected, Writer};
use crate::{fields, meta, respond};

/// A patch, read.
pub struct Patch {
    /// How it is applied.
    pub kind: PatchType,
    /// What it says.
    pub tree: Tree,
}

/// Changes an object.
pub async fn patch(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let patch_type = negotiate::patch_type(&call.headers, subject.offer() == Offer::RESOURCE)?;
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    check_options(&options, patch_type)?;
    let patch = read(call, patch_type, options.field_validation).await?;
    let writer = Writer::of(server, call, subject, &options);
    let (stored, created) = apply(&writer, &patch).await?;
    let stored = writer.written(stored).await?;
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    respond::object(code, subject.view(server, form), &stored)
}

/// Apply needs a manager; nothing else may force.
fn check_options(options: &WriteOptions, patch_type: PatchType) -> ApiResult<()> {
    let cause = |reason: &str, field: &str, message: &str| {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        Err(ApiError::invalid(Qualified { group: "meta.k8s.io", name: "PatchOptions" }, "", vec![cause]))
    };
    if patch_type == PatchType::Apply {
        if options.field_manager.is_empty() {
            return cause("FieldValueRequired", "fieldManager", "Required value: is required for apply patch");
        }
    } else if options.force.is_some() {
        return cause("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch");
    }
    Ok(())
}

/// Reads the body as a patch.
pub async fn read(call: &mut Call, kind: PatchType, mode: FieldValidation) -> ApiResult<Patch> {
    let bytes = call.read_body().await?;
    let tree = match kind {
        PatchType::Apply => yaml::decode_untyped(&bytes)
            .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?,
        _ => {
            let (tree, issues) =
                json::decode_untyped_strict(&bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
            let issues = issues.iter().map(ToString::to_string).collect();
            write::strict(call, issues, mode).map_err(ApiError::bad_request)?;
            tree
        }
    };
    Ok(Patch { kind, tree })
}

/// Applies a patch to what is there, again when somebody else was faster.
pub async fn apply(writer: &Writer<'_>, patch: &Patch) -> ApiResult<(Stored, bool)> {
    let subject = writer.subject;
    for _ in 0..CONFLICT_RETRIES_MAX {
        let Some(current) = writer.current().await? else {
            if patch.kind == PatchType::Apply && subject.subresource.is_empty() {
                return create_by_apply(writer, patch).await.map(|stored| (stored, true));
            }
            return Err(subject.not_found());
        };
        let old = respond::served(writer.kind(), &current)?;
        let new = patched(writer, patch, &old).await?;
        let new = update::check_place(new, subject)?;
        // A patch that carries a resourceVersion means exactly that version.
        update::check_preconditions(writer, &new, &old, &current)?;
        let change = if patch.kind == PatchType::Apply { ChangeKind::Apply } else { ChangeKind::Update };
        if let Some(stored) = update::store_change(writer, new, &old, &current, change).await? {
            return Ok((stored, false));
        }
    }
    Err(ApiError::stale(subject.resource(), &subject.name))
}

/// What `old` becomes by `patch`.
async fn patched(writer: &Writer<'_>, patch: &Patch, old: &Tree) -> ApiResult<Tree> {
    if patch.kind == PatchType::Apply {
        return fields::apply(writer, &patch.tree, Some(old)).await;
    }
    let (schema, ty) = (writer.kind().schema(), writer.kind().facts().ty);
    decode_patched(writer, merge(patch, old, schema, ty)?)
}

/// Applies any patch but apply to an object; the result is not yet known to be of its type.
pub fn merge(patch: &Patch, old: &Tree, schema: &Schema, ty: TypeId) -> ApiResult<Tree> {
    // A patch sees what clients see: absent fields in the shape that the encoder gives them.
    let mut document = old.clone();
    conform::fill(&mut document, schema, ty);
    match patch.kind {
        PatchType::Json => patch::json::apply(document, &patch.tree).map_err(|error| match error {
            JsonPatchError::Malformed(_) => ApiError::bad_request(error.to_string()),
            // Upstream wraps a patch that does not fit in a 422 without a field.
            _ => ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Invalid",
                format!("the server rejected our request due to an error in our request: {error}"),
            ),
        }),
        PatchType::Strategic => patch::strategic::apply(document, patch.tree.clone(), schema, ty)
            .map_err(|error| ApiError::bad_request(error.to_string())),
        PatchType::Merge if !matches!(patch.tree, Tree::Map(_)) => {
            Err(ApiError::bad_request("json: cannot unmarshal the patch into Go value of type map[string]interface {}"))
        }
        PatchType::Merge | PatchType::Apply => {
            patch::merge::apply(document, patch.tree.clone()).map_err(|error| ApiError::bad_request(error.to_string()))
        }
    }
}

/// The patched document as an object of its kind.
fn decode_patched(writer: &Writer<'_>, new: Tree) -> ApiResult<Tree> {
    let kind = writer.kind();
    let expected = Expected::of(kind);
    let failed = |why: &dyn std::fmt::Display| write::failed(expected, why);
    let (mut tree, issues) = conform::conform(new, kind.schema(), kind.facts().ty).map_err(|error| failed(&error))?;
    if let Some(call) = writer.call {
        let issues = issues.iter().map(ToString::to_string).collect();
        write::strict(call, issues, writer.options.field_validation).map_err(|why| failed(&why))?;
    }
    write::check_type(&mut tree, expected.api_version, expected.kind)?;
    Ok(tree)
}

async fn create_by_apply(writer: &Writer<'_>, patch: &Patch) -> ApiResult<Stored> {
    let subject = writer.subject;
    if !meta::resource_version(&patch.tree).is_empty() || !meta::uid(&patch.tree).is_empty() {
        return Err(ApiError::conflict(
            subject.resource(),
            &subject.name,
            &format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                meta::uid(&patch.tree)
            ),
        ));
    }
    let object = fields::apply(writer, &patch.tree, None).await?;
    let object = update::check_place(object, subject)?;
    create::write_new(writer, object, ChangeKind::Apply).await
}
