//! Who owns which field: `metadata.managedFields` on every write.

mod siblings;

use http::StatusCode;
use skiff_kinds::Kind;
use skiff_object::managed::set::FieldSet;
use skiff_object::managed::versions::Pending;
use skiff_object::managed::{self, ApplyError, Request};
use skiff_object::schema::Shape;
use skiff_object::time::Time;
use skiff_object::{Schema, Tree, TypeId};

use crate::errors::{ApiError, ApiResult, Cause};
use crate::write::Writer;

use siblings::Siblings;

/// Each round learns at least one conversion. A definition with more versions that own fields of one object than
/// this allows is nobody's.
const CONVERSION_ROUNDS_MAX: usize = 64;

/// A new object's fields belong to who creates it.
pub fn on_create(writer: &Writer<'_>, object: &mut Tree) {
    let versions = Siblings::new(writer);
    // Nothing was there before: there is nothing to convert, and so nothing to wait for.
    let (Ok(()) | Err(Pending)) = with_request(writer, &versions, |request| managed::update(request, None, object));
}

/// Changed fields belong to who changes them. When owners in other versions cannot be shown what changes, because a
/// webhook fails, everybody keeps what they had.
pub async fn on_update(writer: &Writer<'_>, new: &mut Tree, old: &Tree) {
    let mut versions = Siblings::new(writer);
    for _ in 0..CONVERSION_ROUNDS_MAX {
        if with_request(writer, &versions, |request| managed::update(request, Some(old), new)).is_ok() {
            return;
        }
        if let Err(error) = versions.settle(writer).await {
            tracing::warn!(error = %error.message, "cannot tell who owns which field");
            break;
        }
    }
    match old.at(&["metadata", "managedFields"]) {
        Some(entries) => new.set(&["metadata", "managedFields"], entries.clone()),
        None => drop(new.unset(&["metadata", "managedFields"])),
    }
}

/// Server-side apply.
///
/// # Errors
/// 409 with the other owners, 400 for a configuration that is none, 500 when a webhook does not convert.
pub async fn apply(writer: &Writer<'_>, config: &Tree, old: Option<&Tree>) -> ApiResult<Tree> {
    let force = writer.options.force == Some(true);
    let mut versions = Siblings::new(writer);
    for _ in 0..CONVERSION_ROUNDS_MAX {
        match with_request(writer, &versions, |request| managed::apply(request, old, config, force)) {
            Err(ApplyError::Pending) => versions.settle(writer).await?,
            outcome => return outcome.map_err(refused),
        }
    }
    Err(ApiError::internal("owners of fields in too many versions"))
}

fn refused(error: ApplyError) -> ApiError {
    match error {
        ApplyError::BadRequest(why) => ApiError::bad_request(why),
        ApplyError::Unmergeable(why) => ApiError::internal(why),
        ApplyError::Pending => ApiError::internal(error),
        ApplyError::Conflict(conflicts) => {
            let mut conflict = ApiError::new(StatusCode::CONFLICT, "Conflict", conflicts.to_string());
            let causes = conflicts.causes();
            let causes = causes.as_list().unwrap_or(&[]).iter().map(|cause| Cause {
                reason: cause.str_at(&["reason"]).to_owned(),
                message: cause.str_at(&["message"]).to_owned(),
                field: cause.str_at(&["field"]).to_owned(),
            });
            conflict.details.get_or_insert_default().causes = causes.collect();
            conflict
        }
    }
}

/// A write that changes nothing but the times of its entries changes nothing.
pub fn keep_times(new: &mut Tree, old: &Tree) {
    managed::keep_times(new, old);
}

fn with_request<T>(writer: &Writer<'_>, versions: &Siblings, run: impl FnOnce(&Request<'_>) -> T) -> T {
    let kind = writer.kind();
    let facts = kind.facts();
    let reset = reset(kind, &writer.subject.subresource);
    run(&Request {
        schema: kind.schema(),
        ty: facts.ty,
        api_version: facts.api_version.as_str(),
        kind: facts.kind.as_str(),
        subresource: writer.recorded,
        reset: &reset,
        versions,
        manager: &writer.manager,
        now: Time::from_nanos(writer.server.clock().now().as_nanos()),
    })
}

/// The fields that a path does not write: nobody comes to own them through it.
fn reset(kind: &dyn Kind, subresource: &str) -> FieldSet {
    match subresource {
        "" if kind.facts().has_status() => FieldSet::of_fields(&[&["status"]]),
        "status" => {
            let names = top_level(kind.schema(), kind.facts().ty);
            let mut paths: Vec<Vec<&str>> = names
                .into_iter()
                .filter(|name| !matches!(*name, "status" | "metadata" | "kind" | "apiVersion"))
                .map(|name| vec![name])
                .collect();
            for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers"] {
                paths.push(vec!["metadata", field]);
            }
            let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
            FieldSet::of_fields(&paths)
        }
        _ => FieldSet::of_fields(&[]),
    }
}

fn top_level(schema: &Schema, ty: TypeId) -> Vec<&str> {
    match &schema.get(ty).shape {
        Shape::Struct(ty) => ty.fields.iter().map(|field| field.name.as_str()).collect(),
        _ => Vec::new(),
    }
}
