//! What identifies the items of a list, and what fits a leaf.

use std::collections::BTreeMap;

use super::set::{Step, Value};
use crate::errors::go;
use crate::schema::{ListKey, ListKind, Scalar};
use crate::tree::Tree;

/// Items by their step; those that have none are left out.
pub(super) fn grouped<'t>(kind: &ListKind, items: &'t [Tree]) -> BTreeMap<Step, Vec<&'t Tree>> {
    let mut out: BTreeMap<Step, Vec<&Tree>> = BTreeMap::new();
    for item in items {
        if let Ok(step) = step_of(kind, item) {
            out.entry(step).or_default().push(item);
        }
    }
    out
}

/// What identifies an item of a list.
pub(super) fn step_of(kind: &ListKind, item: &Tree) -> Result<Step, String> {
    match kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Map(keys) => step_of_map(keys, item),
        ListKind::Set => match item {
            Tree::Map(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Tree::List(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Tree::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Value::of(scalar).map(Step::Value).ok_or_else(|| "not a scalar".to_owned()),
        },
    }
}

fn step_of_map(keys: &[ListKey], item: &Tree) -> Result<Step, String> {
    let map = match item {
        Tree::Map(map) => map,
        Tree::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut fields = Vec::with_capacity(keys.len());
    for key in keys {
        let value = match (map.get(key.name.as_str()), &key.default) {
            (Some(value), _) => {
                Value::of(value).ok_or_else(|| format!("key field {} is not a scalar", key.name.as_str()))?
            }
            (None, Some(default)) => default_value(default.as_str()),
            (None, None) => continue,
        };
        fields.push((Box::from(key.name.as_str()), value));
    }
    if fields.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| crate::errors::quote(key.name.as_str())).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values \
             for any key fields)",
            names.join(" ")
        ));
    }
    fields.sort();
    Ok(Step::Key(fields))
}

/// A default is kept as a JSON scalar; a bare word is a string.
fn default_value(text: &str) -> Value {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::String(text)) => Value::Str(text.into()),
        Ok(serde_json::Value::Number(number)) if number.is_i64() => Value::Int(number.as_i64().unwrap_or(0)),
        Ok(serde_json::Value::Bool(value)) => Value::Bool(value),
        _ => Value::Str(text.into()),
    }
}

/// Why a value is no scalar of its type, in upstream's words.
pub(super) fn scalar_error(scalar: Option<Scalar>, value: &Tree) -> Option<String> {
    let fits = match (scalar, value) {
        (Some(Scalar::Int32 | Scalar::Int64 | Scalar::Double), value) => matches!(value, Tree::Int(_) | Tree::Float(_)),
        (Some(Scalar::Bool), value) => matches!(value, Tree::Bool(_)),
        (Some(Scalar::String | Scalar::Bytes | Scalar::Duration), value) => matches!(value, Tree::Str(_)),
        (_, value) => !matches!(value, Tree::List(_) | Tree::Map(_)),
    };
    if fits {
        return None;
    }
    let shown = go(value);
    Some(match scalar {
        Some(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => {
            let kind = match value {
                Tree::Bool(_) => "bool",
                Tree::Str(_) => "string",
                Tree::List(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            format!("expected numeric (int or float), got {kind}")
        }
        Some(Scalar::Bool) => format!("expected boolean, got &{{{shown}}}"),
        Some(Scalar::String | Scalar::Bytes | Scalar::Duration) => {
            format!("expected string, got &value.valueUnstructured{{Value:{shown}}}")
        }
        _ => format!("expected any scalar, got &{{{shown}}}"),
    })
}
