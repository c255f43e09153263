//! The data of ConfigMaps and Secrets.

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::{Map, Tree, name};

use super::{Found, entries, invalid};
use crate::rules;

/// How large the values together may be (`MaxSecretSize`).
const BYTES_MAX: usize = 1_024 * 1_024;

/// The keys of a field; gives how many bytes the values are. What is base64 counts as what it stands for.
pub(crate) fn keys(found: &mut Found, object: &Tree, field: &str, base64: bool) -> usize {
    let mut bytes = 0;
    entries(object, field, Path::root(), |key, value, path| {
        invalid(found, path, key, name::config_map_key(key));
        let text = value.as_str().unwrap_or("");
        let padding = text.bytes().rev().take_while(|c| *c == b'=').count();
        bytes += if base64 { (text.len() / 4 * 3).saturating_sub(padding) } else { text.len() };
    });
    bytes
}

/// The values together must not be too large.
pub(crate) fn size(found: &mut Found, bytes: usize, path: &str) {
    if bytes > BYTES_MAX {
        found.push(FieldError::too_long(path, BYTES_MAX));
    }
}

/// What is immutable must keep its data, and stay immutable.
pub(crate) fn kept(found: &mut Found, new: &Tree, old: &Tree, fields: &[&str]) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old.bool_at(&["immutable"]) != Some(true) {
        return;
    }
    if new.bool_at(&["immutable"]) != Some(true) {
        found.push(FieldError::forbidden("immutable", WHY));
    }
    for field in fields {
        if !rules::same(new.get(field), old.get(field)) {
            found.push(FieldError::forbidden(field, WHY));
        }
    }
}

/// Keys that are in both fields of a ConfigMap.
pub(crate) fn in_both(found: &mut Found, object: &Tree) {
    let text = object.get("data").and_then(Tree::as_map);
    for key in object.get("binaryData").and_then(Tree::as_map).into_iter().flat_map(Map::keys) {
        if text.is_some_and(|text| text.contains_key(key.as_str())) {
            let path = format!("binaryData[{}]", key.as_str());
            found.push(FieldError::invalid(path, key.as_str(), "duplicate of key present in data"));
        }
    }
}
