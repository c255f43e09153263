//! Custom kinds in OpenAPI: their schema as the definition has it, with what every object has
//! (`apiextensions-apiserver/pkg/controller/openapi/builder`).

use std::sync::Arc;

use skiff_kinds::custom::CustomKind;
use skiff_kinds::{Kind, facts::split_api_version, type_named};
use skiff_object::{Map, Tree};

use super::paths::Operation;
use super::schema::{Dialect, Schemas, group_version_kind, object};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
/// How deep a schema is written; definitions that nest deeper are refused.
const DEPTH_MAX: usize = 128;

/// `io.cert-manager.v1.Certificate`: the group turned around, as a Java package.
pub(crate) fn model_name(api_version: &str, kind: &str) -> String {
    let (group, version) = split_api_version(api_version);
    let parts: Vec<&str> = group.split('.').rev().chain([version, kind]).collect();
    parts.join(".")
}

/// The media types of an operation: custom kinds have no protobuf and no strategic merge.
pub(crate) fn media(operation: &Operation, all: &[&'static str]) -> Vec<&'static str> {
    let fits =
        |one: &&&'static str| !operation.custom || !(one.contains("protobuf") || one.contains("strategic-merge-patch"));
    all.iter().filter(fits).copied().collect()
}

/// The definitions of the custom kinds among `kinds`, by name.
pub(crate) fn definitions<'a>(
    kinds: impl Iterator<Item = &'a Arc<dyn Kind>>,
    schemas: &mut Schemas<'_>,
) -> Vec<(String, Tree)> {
    let mut all = Vec::new();
    for kind in kinds {
        let Some(custom) = kind.custom() else { continue };
        let facts = kind.facts();
        let api_version = facts.api_version.as_str();
        let name = model_name(api_version, facts.kind.as_str());
        let list_name = model_name(api_version, facts.list_kind.as_str());
        all.push((list_name, list(custom, &name, schemas)));
        all.push((name, whole(custom, schemas)));
    }
    all
}

fn meta_reference(name: &str, schemas: &mut Schemas<'_>) -> Tree {
    type_named(name).map_or_else(|| object([("type", "object")]), |id| schemas.refer(id))
}

fn kinds_of(custom: &CustomKind, kind: &str) -> Vec<Tree> {
    let facts = custom.facts();
    let text = |key: &skiff_object::Key| key.as_str().to_owned();
    vec![group_version_kind(&(text(&facts.group), text(&facts.version), kind.to_owned()))]
}

fn whole(custom: &CustomKind, schemas: &mut Schemas<'_>) -> Tree {
    let structure = custom.structure();
    let loose = structure.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(true);
    let said = structure.as_map().is_some_and(|map| !map.is_empty());
    // With any property, kubectl would take every other field for unknown.
    let mut tree = if !said || (loose && schemas.dialect() == Dialect::V2) {
        object([("type", "object")])
    } else {
        let mut tree = rewritten(&structure, schemas, 0);
        add_meta(&mut tree, schemas);
        tree
    };
    let facts = custom.facts();
    let map = tree.ensure_map();
    map.insert("x-kubernetes-group-version-kind", kinds_of(custom, facts.kind.as_str()));
    let selectable = custom.selectable_fields();
    if !selectable.is_empty() && schemas.dialect() == Dialect::V3 {
        let fields: Vec<Tree> = selectable.iter().map(|field| object([("fieldPath", field)])).collect();
        map.insert("x-kubernetes-selectable-fields", fields);
    }
    map.sort_keys();
    tree
}

/// What every object says of itself.
fn add_meta(tree: &mut Tree, schemas: &mut Schemas<'_>) {
    let metadata = described(meta_reference(OBJECT_META, schemas), "Standard metadata of every object.", schemas);
    let properties = tree.ensure_map().entry_or("properties", Tree::map).ensure_map();
    properties.insert("metadata", metadata);
    let mut text = object([("type", "string")]);
    text.ensure_map().insert("description", "The versioned schema of this object.");
    properties.insert("apiVersion", text);
    let mut text = object([("type", "string")]);
    text.ensure_map().insert("description", "The kind of this object.");
    properties.insert("kind", text);
    properties.sort_keys();
}

/// A reference with a description beside it.
fn described(reference: Tree, text: &str, schemas: &Schemas<'_>) -> Tree {
    let mut tree = match schemas.dialect() {
        Dialect::V2 => reference,
        Dialect::V3 => {
            let mut tree = Tree::map();
            tree.ensure_map().insert("allOf", vec![reference]);
            tree
        }
    };
    tree.ensure_map().insert("description", text);
    tree
}

fn list(custom: &CustomKind, name: &str, schemas: &mut Schemas<'_>) -> Tree {
    let facts = custom.facts();
    let mut items = object([("type", "array")]);
    items.ensure_map().insert("description", format!("The {}.", facts.plural.as_str()));
    items.ensure_map().insert("items", schemas.dialect().reference(name));
    let mut tree = object([("type", "object")]);
    add_meta(&mut tree, schemas);
    let metadata = described(meta_reference(LIST_META, schemas), "Standard metadata of every list.", schemas);
    tree.set(&["properties", "metadata"], metadata);
    tree.set(&["properties", "items"], items);
    let map = tree.ensure_map();
    map.insert("description", format!("A list of {}.", facts.kind.as_str()));
    map.insert("required", vec![Tree::from("items")]);
    map.insert("x-kubernetes-group-version-kind", kinds_of(custom, facts.list_kind.as_str()));
    map.sort_keys();
    tree
}

/// A schema as OpenAPI has it; version 2 knows less.
fn rewritten(schema: &Tree, schemas: &mut Schemas<'_>, depth: usize) -> Tree {
    let Some(map) = schema.as_map().filter(|_| depth < DEPTH_MAX) else { return schema.clone() };
    let v2 = schemas.dialect() == Dialect::V2;
    let is = |name: &str| schema.bool_at(&[name]) == Some(true);
    // Swagger 2 cannot say null, nor "and whatever else": there nothing is said.
    let opaque = v2 && (is("nullable") || is("x-kubernetes-preserve-unknown-fields"));
    let mut out = Map::with_capacity(map.len());
    for (key, value) in map.iter() {
        let value = match key.as_str() {
            "allOf" | "anyOf" | "oneOf" | "not" | "nullable" if v2 => continue,
            "properties" | "additionalProperties" | "items" if opaque => continue,
            "required" if opaque => continue,
            "type" if v2 && is("nullable") => continue,
            "properties" => Tree::Map(
                value
                    .as_map()
                    .into_iter()
                    .flat_map(Map::iter)
                    .map(|(name, property)| (name.clone(), rewritten(property, schemas, depth + 1)))
                    .collect(),
            ),
            "additionalProperties" | "items" => rewritten(value, schemas, depth + 1),
            _ => value.clone(),
        };
        out.push_unchecked(key.clone(), value);
    }
    if v2 && let Some(Tree::List(required)) = out.get("required").cloned() {
        let nullable = |name: &Tree| {
            let path = ["properties", name.as_str().unwrap_or(""), "nullable"];
            schema.bool_at(&path) == Some(true)
        };
        let kept: Vec<Tree> = required.into_iter().filter(|name| !nullable(name)).collect();
        match kept.is_empty() {
            true => drop(out.remove("required")),
            false => drop(out.insert("required", kept)),
        }
    }
    if !v2 && is("x-kubernetes-int-or-string") && !out.contains_key("anyOf") && !out.contains_key("allOf") {
        out.insert("anyOf", vec![object([("type", "integer")]), object([("type", "string")])]);
    }
    let mut tree = Tree::Map(out);
    if is("x-kubernetes-embedded-resource") && !opaque {
        add_meta(&mut tree, schemas);
    }
    tree.ensure_map().sort_keys();
    tree
}
