//! Certificate signing requests: who asks is not for the client to say, nor is when it was decided.

use skiff_object::{Map, Tree};

use crate::meta;
use crate::write::Writer;

/// Writes down who asks.
pub fn before_create(writer: &Writer<'_>, object: &mut Tree) {
    let user = writer.user;
    let texts = |list: &[String]| list.iter().map(|text| Tree::from(text.as_str())).collect::<Vec<_>>();
    for field in ["username", "uid", "groups", "extra"] {
        object.unset(&["spec", field]);
    }
    object.set(&["spec", "username"], user.name.as_str());
    if !user.uid.is_empty() {
        object.set(&["spec", "uid"], user.uid.as_str());
    }
    if !user.groups.is_empty() {
        object.set(&["spec", "groups"], texts(&user.groups));
    }
    if !user.extra.is_empty() {
        let mut extra = Map::new();
        for (key, values) in &user.extra {
            extra.insert(key.clone(), texts(values));
        }
        object.set(&["spec", "extra"], Tree::Map(extra));
    }
}

/// Dates what was decided. Who may decide is the matter of admission ([`crate::admission::certificates`]).
pub fn before_update(writer: &Writer<'_>, new: &mut Tree) {
    if writer.subject.subresource.is_empty() {
        return;
    }
    let now = meta::time(writer.server.clock().now());
    let Some(conditions) = new.at_mut(&["status", "conditions"]).and_then(Tree::as_list_mut) else { return };
    for condition in conditions {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            if condition.str_at(&[field]).is_empty() {
                condition.set(&[field], now.as_str());
            }
        }
    }
}
