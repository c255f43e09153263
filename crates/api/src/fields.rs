//! Who owns which field: `metadata.managedFields` on every write.

use skiff_object::Tree;

use crate::errors::{ApiError, ApiResult};
use crate::write::Writer;

/// A new object's fields belong to who creates it.
pub fn on_create(_writer: &Writer<'_>, object: &mut Tree) {
    object.unset(&["metadata", "managedFields"]);
}

/// Changed fields belong to who changes them.
pub fn on_update(_writer: &Writer<'_>, new: &mut Tree, _old: &Tree) {
    new.unset(&["metadata", "managedFields"]);
}

/// Server-side apply.
pub fn apply(_writer: &Writer<'_>, _config: &Tree, _old: Option<&Tree>) -> ApiResult<Tree> {
    Err(ApiError::unsupported_media_type(&[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ]))
}

/// Whether two versions of an object differ in nothing but the times of their field ownership.
pub fn only_times_differ(_new: &Tree, _old: &Tree) -> bool {
    false
}
