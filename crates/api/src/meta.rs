//! `metadata` of an object in the tree.

use skiff_base::Timestamp;
use skiff_object::Tree;
use skiff_object::time::Time;

/// `metadata.name`
pub fn name(object: &Tree) -> &str {
    object.str_at(&["metadata", "name"])
}

/// `metadata.namespace`
pub fn namespace(object: &Tree) -> &str {
    object.str_at(&["metadata", "namespace"])
}

/// `metadata.uid`
pub fn uid(object: &Tree) -> &str {
    object.str_at(&["metadata", "uid"])
}

/// `metadata.resourceVersion`
pub fn resource_version(object: &Tree) -> &str {
    object.str_at(&["metadata", "resourceVersion"])
}

/// Whether the object is on its way out.
pub fn is_deleting(object: &Tree) -> bool {
    !object.str_at(&["metadata", "deletionTimestamp"]).is_empty()
}

/// `metadata.finalizers`
pub fn finalizers(object: &Tree) -> impl Iterator<Item = &str> {
    object.list_at(&["metadata", "finalizers"]).iter().filter_map(Tree::as_str)
}

/// Whether `finalizer` is set.
pub fn has_finalizer(object: &Tree, finalizer: &str) -> bool {
    finalizers(object).any(|one| one == finalizer)
}

/// Adds a finalizer that is not there yet.
pub fn add_finalizer(object: &mut Tree, finalizer: &str) {
    if has_finalizer(object, finalizer) {
        return;
    }
    let list = object.ensure_map().entry_or("metadata", Tree::map).ensure_map().entry_or("finalizers", Tree::list);
    match list {
        Tree::List(items) => items.push(finalizer.into()),
        other => *other = Tree::List(vec![finalizer.into()]),
    }
}

/// Takes a finalizer away.
pub fn remove_finalizer(object: &mut Tree, finalizer: &str) {
    let Some(items) = object.at_mut(&["metadata", "finalizers"]).and_then(Tree::as_list_mut) else { return };
    items.retain(|item| item.as_str() != Some(finalizer));
    if items.is_empty() {
        object.unset(&["metadata", "finalizers"]);
    }
}

/// A label's value.
pub fn label<'a>(object: &'a Tree, key: &str) -> Option<&'a str> {
    object.at(&["metadata", "labels"])?.get(key)?.as_str()
}

/// An annotation's value.
pub fn annotation<'a>(object: &'a Tree, key: &str) -> Option<&'a str> {
    object.at(&["metadata", "annotations"])?.get(key)?.as_str()
}

/// A point in time as `metav1.Time` writes it.
pub fn time(at: Timestamp) -> String {
    Time::from_nanos(at.as_nanos()).rfc3339()
}

/// Reads a `metav1.Time`.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    Time::parse(text).ok().map(|time| Timestamp::from_nanos(time.to_nanos()))
}
