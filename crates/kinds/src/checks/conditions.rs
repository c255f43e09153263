//! Conditions of the common form (`metav1.Condition`).

use std::collections::HashSet;

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::{Found, each, given, invalid, not_longer, only, shaped};

/// How long a reason may be.
const REASON_BYTES_MAX: usize = 1_024;
/// How long a message may be.
const MESSAGE_BYTES_MAX: usize = 32 * 1_024;

/// The conditions at a field: well formed, each type once.
pub(crate) fn conditions(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let mut types = HashSet::new();
    each(object, field, path, |condition, path| {
        let ty = condition.str_at(&["type"]);
        if !types.insert(ty) {
            found.push(FieldError::duplicate(path.child("type"), ty));
        }
        self::condition(found, condition, path);
    });
}

fn condition(found: &mut Found, condition: &Tree, path: Path<'_>) {
    shaped(found, condition, "type", path, name::qualified_name);
    only(found, condition, "status", path, &["False", "True", "Unknown"]);
    if let Some(generation) = condition.int_at(&["observedGeneration"]).filter(|generation| *generation < 0) {
        let why = "must be greater than or equal to zero";
        found.push(FieldError::invalid(path.child("observedGeneration"), generation, why));
    }
    if given(condition, "lastTransitionTime").is_none() {
        found.push(FieldError::required(path.child("lastTransitionTime"), "must be set"));
    }
    match condition.str_at(&["reason"]) {
        "" => found.push(FieldError::required(path.child("reason"), "must be set")),
        text => {
            invalid(found, path.child("reason"), text, reason(text));
            not_longer(found, condition, "reason", path, REASON_BYTES_MAX);
        }
    }
    not_longer(found, condition, "message", path, MESSAGE_BYTES_MAX);
}

fn reason(text: &str) -> Vec<String> {
    let middle = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b',' | b':');
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic());
    let last = text.bytes().last().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
    if first && last && text.bytes().all(middle) {
        return Vec::new();
    }
    vec![name::regex_error(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}
