//! Defaults in a schema must fit it: nothing unknown in them, and valid.

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};

use super::{items_of, properties_of};
use crate::custom::node::{Additional, Node};
use crate::custom::rules::Rules;
use crate::custom::validate;

/// Everything wrong with the defaults of a schema that is structural.
pub(super) fn validate(schema: &Tree, path: &str, pruned: bool, found: &mut Vec<FieldError>) {
    if has_default(schema) {
        node(schema, path, pruned, Meta::Outside, found);
    }
}

/// Whether a schema has defaults with unknown fields.
pub(super) fn has_unpruned(schema: &Tree) -> bool {
    let mut found = Vec::new();
    node(schema, "", true, Meta::Outside, &mut found);
    found.iter().any(|error| error.detail == UNKNOWN)
}

const UNKNOWN: &str = "must not have unknown fields";

/// Whether a schema is of a part of metadata, which is judged as metadata.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meta {
    Outside,
    Inside,
}

fn has_default(schema: &Tree) -> bool {
    schema.get("default").is_some()
        || items_of(schema).is_some_and(has_default)
        || properties_of(schema).any(|(_, property)| has_default(property))
}

fn node(schema: &Tree, path: &str, pruned: bool, meta: Meta, found: &mut Vec<FieldError>) {
    let embedded = schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
    let meta = if embedded { Meta::Outside } else { meta };
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let compiled = Node::compile(schema);
        let field = format!("{path}.default");
        if pruned && meta == Meta::Outside && has_unknown(default, &compiled) {
            found.push(FieldError::invalid(&field, BadValue::from(default), UNKNOWN));
        }
        let mut wrong = Vec::new();
        validate::embedded(default, &compiled, &field, &mut wrong);
        if wrong.is_empty() {
            wrong = validate::check(default, None, &compiled, &field);
        }
        if wrong.is_empty()
            && let Some(rules) = Rules::compile(schema, &compiled)
        {
            wrong = rules.check(default, None, &compiled, &field);
        }
        found.extend(wrong);
    }
    // Defaults below additionalProperties are never filled in on their own.
    if let Some(items) = items_of(schema) {
        node(items, &format!("{path}.items"), pruned, meta, found);
    }
    for (name, property) in properties_of(schema) {
        let inside = embedded && matches!(name, "metadata" | "apiVersion" | "kind");
        let meta = if inside { Meta::Inside } else { meta };
        node(property, &format!("{path}.properties[{name}]"), pruned, meta, found);
    }
}

/// Whether pruning would take something away.
fn has_unknown(value: &Tree, node: &Node) -> bool {
    match value {
        Tree::Map(map) => map.iter().any(|(key, value)| {
            let name = key.as_str();
            if node.embedded && matches!(name, "metadata" | "apiVersion" | "kind") {
                return false;
            }
            match (node.entry(name), &node.additional) {
                (Some(entry), _) => has_unknown(value, entry),
                (None, Additional::Any) => false,
                (None, _) => !node.preserve_unknown && !node.int_or_string,
            }
        }),
        Tree::List(items) => node.items.as_ref().is_some_and(|node| items.iter().any(|item| has_unknown(item, node))),
        _ => false,
    }
}
