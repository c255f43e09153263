//! Defaults: nulls that may not be are dropped, absent values filled in.

use skiff_object::Tree;

use crate::custom::node::{Additional, Node};

/// Fills in the defaults of a schema where values are absent, or null and may not be. Runs on everything that is
/// read, from clients and from the store; a second run changes nothing.
pub(crate) fn default(value: &mut Tree, node: &Node) {
    match value {
        Tree::Map(map) => {
            map.retain(|key, value| {
                // Null where it may not be is as good as nothing.
                !value.is_null()
                    || node.entry(key.as_str()).is_none_or(|entry| entry.nullable || entry.default.is_some())
            });
            for (name, property) in &node.properties {
                let Some(filler) = &property.default else { continue };
                if map.get(name.as_str()).is_none_or(|value| value.is_null() && !property.nullable) {
                    map.insert(name.clone(), filler.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(property) = node.property(key.as_str()) {
                    default(value, property);
                } else if let Additional::Schema(values) = &node.additional {
                    fill_null(value, values);
                    default(value, values);
                }
            }
        }
        Tree::List(items) => {
            let Some(node) = &node.items else { return };
            for item in items {
                fill_null(item, node);
                default(item, node);
            }
        }
        _ => {}
    }
}

fn fill_null(value: &mut Tree, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(filler) = &node.default
    {
        *value = filler.clone();
    }
}
