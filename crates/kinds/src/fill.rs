//! Filling in what a client left out, field by field.
//!
//! For a plain Go string or number, the zero value and absence are one; for a pointer they are not.
//! So there are two kinds of functions: [`text`] and [`number`] replace zero values, [`absent`] only
//! what is not there.

use skiff_object::quantity::Quantity;
use skiff_object::{Map, Tree};

/// Sets a string field that is absent or empty.
pub(crate) fn text(object: &mut Tree, field: &'static str, value: &str) {
    if object.str_at(&[field]).is_empty() {
        put(object, field, value);
    }
}

/// Sets a number field that is absent or zero.
pub(crate) fn number(object: &mut Tree, field: &'static str, value: i64) {
    if object.int_at(&[field]).unwrap_or(0) == 0 {
        put(object, field, value);
    }
}

/// Sets a pointer field that is absent.
pub(crate) fn absent(object: &mut Tree, field: &'static str, value: impl Into<Tree>) {
    if object.get(field).is_none_or(Tree::is_null) {
        put(object, field, value);
    }
}

/// Sets a field of a map; other trees are left alone.
pub(crate) fn put(object: &mut Tree, field: &'static str, value: impl Into<Tree>) {
    if let Tree::Map(map) = object {
        map.insert(field, value);
    }
}

/// Makes a struct field that is absent (a value struct in Go) and gives it.
pub(crate) fn within<'a>(object: &'a mut Tree, field: &'static str) -> &'a mut Tree {
    let map = object.ensure_map();
    let slot = map.entry_or(field, Tree::map);
    if slot.is_null() {
        *slot = Tree::map();
    }
    slot
}

/// The items of the list below a path, to be changed.
pub(crate) fn items<'a>(object: &'a mut Tree, path: &[&str]) -> impl Iterator<Item = &'a mut Tree> {
    object.at_mut(path).and_then(Tree::as_list_mut).into_iter().flatten()
}

/// Runs `fill` on what is below a path, if that is a map.
pub(crate) fn each(object: &mut Tree, path: &[&str], fill: impl FnOnce(&mut Tree)) {
    if let Some(inner) = object.at_mut(path).filter(|inner| inner.as_map().is_some()) {
        fill(inner);
    }
}

/// Puts the entries of the map `source` that `target` lacks into it.
pub(crate) fn entries(object: &mut Tree, target: &'static str, source: &Map) {
    if source.is_empty() {
        return;
    }
    let target = within(object, target).ensure_map();
    for (key, value) in source.iter() {
        if !target.contains_key(key.as_str()) {
            target.push_unchecked(key.clone(), value.clone());
        }
    }
}

/// Rounds the quantities of a resource list up to thousandths, as upstream does to every list.
pub(crate) fn round_resources(object: &mut Tree, path: &[&str]) {
    let Some(list) = object.at_mut(path).and_then(Tree::as_map_mut) else { return };
    for (_, value) in list.iter_mut() {
        let Some(quantity) = value.as_str().and_then(|text| text.parse::<Quantity>().ok()) else { continue };
        if !quantity.is_milli() {
            *value = Quantity::from_milli(quantity.milli(), quantity.format()).to_string().into();
        }
    }
}

/// What an admission policy matches.
pub(crate) fn match_resources(resources: &mut Tree) {
    absent(resources, "matchPolicy", "Equivalent");
    absent(resources, "namespaceSelector", Tree::map());
    absent(resources, "objectSelector", Tree::map());
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items(resources, &[list]) {
            absent(rule, "scope", "*");
        }
    }
}

/// A request for devices.
pub(crate) fn device_request(request: &mut Tree) {
    text(request, "allocationMode", "ExactCount");
    if request.str_at(&["allocationMode"]) == "ExactCount" {
        number(request, "count", 1);
    }
    for toleration in items(request, &["tolerations"]) {
        text(toleration, "operator", "Equal");
    }
}
