//! Schemas of a definition beyond being structural: what OpenAPI has and definitions may not, list and map types,
//! the shape of expressions.

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};

use super::spec::Tolerance;
use super::{defaulted, expressions, items_of, properties_of, structural};
use crate::custom::formats;
use crate::custom::node::{Additional, Node, SCHEMA_DEPTH_MAX};

type Found = Vec<FieldError>;

/// What a schema with a status subresource may say at its root, in Go's names of the fields.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

pub(super) fn validate(
    schema: &Tree,
    path: &str,
    status: bool,
    unchanged: bool,
    tolerance: &Tolerance,
    found: &mut Found,
) {
    let path = format!("{path}.openAPIV3Schema");
    if status {
        at_root(schema, &path, found);
    }
    if schema.bool_at(&["nullable"]) == Some(true) {
        found.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let clean = found.len();
    if !tolerance.non_structural {
        found.extend(structural::validate(schema, &path));
        if found.len() == clean {
            defaulted::validate(schema, &path, !tolerance.unpruned_defaults, found);
        }
    }
    let structural = found.len() == clean && !tolerance.non_structural;
    let place = Place { defaults: None, in_meta: false, uncorrelated: None };
    let mut check = Check { tolerance, found };
    check.node(schema, &path, &place, true, 0);
    if structural && found.len() == clean {
        expressions::validate(schema, &path, unchanged, found);
    }
}

fn at_root(schema: &Tree, path: &str, found: &mut Found) {
    if schema.str_at(&["type"]) != "object" {
        let why =
            r#"only "object" is allowed as the type at the root of the schema if the status subresource is enabled"#;
        found.push(FieldError::invalid(format!("{path}.type"), schema.str_at(&["type"]), why));
        return;
    }
    let empty = |value: &Tree| matches!(value, Tree::Null | Tree::Bool(false)) || value.as_str() == Some("");
    let fields = schema.as_map().into_iter().flat_map(skiff_object::Map::iter);
    let unknown = |(key, value): (&skiff_object::Key, &Tree)| {
        !AT_ROOT.iter().any(|(name, _)| key.as_str() == *name) && !empty(value)
    };
    if fields.into_iter().any(unknown) {
        let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        found.push(FieldError::invalid(path, BadValue::from(schema), why));
    }
}

/// What the place of a schema forbids.
#[derive(Clone)]
struct Place {
    /// Why there may be no defaults.
    defaults: Option<String>,
    /// Within kind, apiVersion or metadata of an object.
    in_meta: bool,
    /// The outermost schema within which an old value cannot be found.
    uncorrelated: Option<String>,
}

struct Check<'a> {
    tolerance: &'a Tolerance,
    found: &'a mut Found,
}

impl Check<'_> {
    fn push(&mut self, error: FieldError) {
        if self.found.len() < structural::ERRORS_MAX {
            self.found.push(error);
        }
    }

    fn node(&mut self, schema: &Tree, path: &str, place: &Place, root: bool, depth: usize) {
        if depth > SCHEMA_DEPTH_MAX || schema.as_map().is_none() {
            return;
        }
        self.unsupported(schema, path, place);
        self.children(schema, path, place, root, depth);
        self.map_and_list(schema, path);
        if !self.tolerance.list_types {
            self.list_items(schema, path);
        }
        for (index, rule) in schema.list_at(&["x-kubernetes-validations"]).iter().enumerate() {
            self.rule(schema, rule, &format!("{path}.x-kubernetes-validations[{index}]"));
        }
    }

    fn unsupported(&mut self, schema: &Tree, path: &str, place: &Place) {
        const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
        let ty = schema.str_at(&["type"]);
        let has = |name: &str| schema.get(name).is_some_and(|value| !value.is_null());
        if !ty.is_empty() && !TYPES.contains(&ty) {
            self.push(FieldError::not_supported(format!("{path}.type"), ty, &TYPES));
        }
        if has("default")
            && let Some(reason) = &place.defaults
        {
            self.push(FieldError::forbidden(format!("{path}.default"), format!("must not be set {reason}")));
        }
        for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            if has(name) {
                self.push(FieldError::forbidden(format!("{path}.{name}"), format!("{name} is not supported")));
            }
        }
        if ty == "null" {
            let why = "type cannot be set to null, use nullable as an alternative";
            self.push(FieldError::forbidden(format!("{path}.type"), why));
        }
        if schema.get("items").is_some_and(|items| items.as_list().is_some()) {
            let why = "items must be a schema object and not an array";
            self.push(FieldError::forbidden(format!("{path}.items"), why));
        }
        if place.in_meta && schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true) {
            let why = "must not be used inside of resource meta";
            self.push(FieldError::forbidden(format!("{path}.x-kubernetes-embedded-resource"), why));
        }
        if schema.bool_at(&["uniqueItems"]) == Some(true) {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
        }
        if schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(false) {
            let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.push(FieldError::invalid(field, false, "must be true or undefined"));
        }
    }

    fn children(&mut self, schema: &Tree, path: &str, place: &Place, root: bool, depth: usize) {
        if let Some(values) = schema.get("additionalProperties").filter(|values| !values.is_null()) {
            if properties_of(schema).next().is_some() && *values != Tree::Bool(true) {
                let why = "additionalProperties and properties are mutual exclusive";
                self.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
            }
            let mut below = place.clone();
            if place.in_meta {
                below.defaults = Some("inside additionalProperties applying to object metadata".into());
            }
            self.node(values, &format!("{path}.additionalProperties"), &below, false, depth + 1);
        }
        for (name, property) in properties_of(schema) {
            let mut below = place.clone();
            if schema.str_at(&["x-kubernetes-map-type"]) == "atomic" {
                below.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            let embedded = schema.bool_at(&["x-kubernetes-embedded-resource"]) == Some(true);
            if (root || embedded) && matches!(name, "metadata" | "kind" | "apiVersion") {
                below.in_meta = true;
                if root {
                    below.defaults = Some(format!("in top-level {name}"));
                }
            }
            self.node(property, &format!("{path}.properties[{name}]"), &below, false, depth + 1);
        }
        if let Some(not) = schema.get("not") {
            self.node(not, &format!("{path}.not"), place, false, depth + 1);
        }
        for name in ["allOf", "oneOf", "anyOf"] {
            for (index, nested) in schema.list_at(&[name]).iter().enumerate() {
                self.node(nested, &format!("{path}.{name}[{index}]"), place, false, depth + 1);
            }
        }
        if let Some(items) = items_of(schema) {
            let mut below = place.clone();
            if schema.str_at(&["x-kubernetes-list-type"]) != "map" {
                below.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            self.node(items, &format!("{path}.items"), &below, false, depth + 1);
        }
    }

    fn must_be(&mut self, schema: &Tree, path: &str, wanted: &str, because: &str) -> bool {
        let ty = schema.str_at(&["type"]);
        if ty == wanted {
            return true;
        }
        let (field, why) = (format!("{path}.type"), format!("must be {wanted} if {because} is specified"));
        self.push(if ty.is_empty() { FieldError::required(field, why) } else { FieldError::invalid(field, ty, why) });
        false
    }

    fn map_and_list(&mut self, schema: &Tree, path: &str) {
        if let Some(text) = schema.get("x-kubernetes-map-type").and_then(Tree::as_str) {
            self.must_be(schema, path, "object", "x-kubernetes-map-type");
            if !matches!(text, "atomic" | "granular") {
                let field = format!("{path}.x-kubernetes-map-type");
                self.push(FieldError::not_supported(field, text, &["atomic", "granular"]));
            }
        }
        let list_type = schema.get("x-kubernetes-list-type").and_then(Tree::as_str);
        if let Some(text) = list_type {
            let is_array = self.must_be(schema, path, "array", "x-kubernetes-list-type");
            if is_array && text == "set" && !self.tolerance.list_types {
                self.set_items(schema, path);
            }
            if !matches!(text, "atomic" | "set" | "map") {
                let field = format!("{path}.x-kubernetes-list-type");
                self.push(FieldError::not_supported(field, text, &["atomic", "set", "map"]));
            }
        }
        let keys = schema.list_at(&["x-kubernetes-list-map-keys"]);
        if !keys.is_empty() && list_type != Some("map") {
            let field = format!("{path}.x-kubernetes-list-type");
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.push(match list_type {
                None => FieldError::required(field, why),
                Some(text) => FieldError::invalid(field, text, why),
            });
        }
        if list_type == Some("map") {
            self.map_list(schema, keys, path);
        }
    }

    fn set_items(&mut self, schema: &Tree, path: &str) {
        let Some(items) = items_of(schema) else { return };
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (name, atomic) = match items.str_at(&["type"]) {
            "array" => ("x-kubernetes-list-type", matches!(items.str_at(&["x-kubernetes-list-type"]), "" | "atomic")),
            "object" => ("x-kubernetes-map-type", items.str_at(&["x-kubernetes-map-type"]) == "atomic"),
            _ => return,
        };
        if !atomic {
            let value = BadValue::from(items.get("x-kubernetes-list-type"));
            self.push(FieldError::invalid(format!("{path}.items.{name}"), value, why));
        }
    }

    fn map_list(&mut self, schema: &Tree, keys: &[Tree], path: &str) {
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.push(FieldError::required(format!("{path}.x-kubernetes-list-map-keys"), why));
        }
        let Some(items) = items_of(schema) else {
            let why = "must have a schema if x-kubernetes-list-type is map";
            return self.push(FieldError::required(format!("{path}.items"), why));
        };
        let ty = items.str_at(&["type"]);
        if ty != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            return self.push(FieldError::invalid(format!("{path}.items.type"), ty, why));
        }
        let mut seen = std::collections::HashSet::new();
        for key in keys.iter().filter_map(Tree::as_str) {
            let field = format!("{path}.x-kubernetes-list-map-keys");
            let shown = || BadValue::from(schema.get("x-kubernetes-list-map-keys"));
            match items.at(&["properties", key]) {
                Some(property) if matches!(property.str_at(&["type"]), "array" | "object") => {
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.push(FieldError::invalid(format!("{path}.items.properties[{key}].type"), ty, why));
                }
                Some(_) => {}
                None => {
                    self.push(FieldError::invalid(&field, shown(), "entries must all be names of item properties"));
                }
            }
            if !seen.insert(key) {
                self.push(FieldError::invalid(field, shown(), "must not contain duplicate entries"));
            }
        }
    }

    /// Items of sets and maps are never null, and every key of a map has a value.
    fn list_items(&mut self, schema: &Tree, path: &str) {
        for error in loose_list(schema, path) {
            self.push(error);
        }
    }

    fn rule(&mut self, schema: &Tree, rule: &Tree, path: &str) {
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        const EMPTY: &str = "must be non-empty if specified";
        const LINES: &str = "must not contain line breaks";
        let text = |field: &str| rule.str_at(&[field]);
        let blank = |field: &str| !text(field).is_empty() && text(field).trim().is_empty();
        let broken = |text: &str| text.contains(['\n', '\r']);
        let message = format!("{path}.message");
        if text("rule").trim().is_empty() {
            self.push(FieldError::required(format!("{path}.rule"), "rule is not specified"));
        } else if blank("message") {
            self.push(FieldError::invalid(message, text("message"), EMPTY));
        } else if broken(text("message").trim()) {
            self.push(FieldError::invalid(message, text("message"), LINES));
        } else if broken(text("rule").trim()) && text("message").trim().is_empty() {
            self.push(FieldError::required(message, "message must be specified if rule contains line breaks"));
        }
        if blank("messageExpression") {
            let why = "messageExpression must be non-empty if specified";
            self.push(FieldError::required(format!("{path}.messageExpression"), why));
        }
        if let Some(reason) = rule.get("reason").and_then(Tree::as_str).filter(|reason| !REASONS.contains(reason)) {
            self.push(FieldError::not_supported(format!("{path}.reason"), reason, &REASONS));
        }
        let field = format!("{path}.fieldPath");
        if blank("fieldPath") {
            self.push(FieldError::invalid(&field, text("fieldPath"), EMPTY));
        }
        if broken(text("fieldPath")) {
            self.push(FieldError::invalid(&field, text("fieldPath"), LINES));
        }
        if !text("fieldPath").is_empty()
            && field_at(&Node::compile(schema), text("fieldPath"), Arrays::Allowed).is_err()
        {
            self.push(FieldError::invalid(field, text("fieldPath"), "must be a valid path"));
        }
    }
}

fn loose_list(schema: &Tree, path: &str) -> Found {
    let mut found = Vec::new();
    let list_type = schema.str_at(&["x-kubernetes-list-type"]);
    let Some(items) = items_of(schema).filter(|_| matches!(list_type, "set" | "map")) else { return found };
    if items.bool_at(&["nullable"]) == Some(true) {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        found.push(FieldError::forbidden(format!("{path}.items.nullable"), why));
    }
    if list_type != "map" {
        return found;
    }
    let required = items.list_at(&["required"]);
    for key in schema.list_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Tree::as_str) {
        let Some(property) = items.at(&["properties", key]) else { continue };
        let field = format!("{path}.items.properties[{key}]");
        if !required.iter().any(|one| one.as_str() == Some(key)) && property.get("default").is_none() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            found.push(FieldError::required(format!("{field}.default"), why));
        }
        if property.bool_at(&["nullable"]) == Some(true) {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            found.push(FieldError::forbidden(format!("{field}.nullable"), why));
        }
    }
    found
}

/// Whether a schema has lists that would be refused today.
pub(super) fn has_loose_lists(schema: &Tree) -> bool {
    let mut loose = false;
    walk(schema, 0, &mut |schema| {
        let set = schema.str_at(&["x-kubernetes-list-type"]) == "set";
        let granular = |items: &Tree| match items.str_at(&["type"]) {
            "array" => !matches!(items.str_at(&["x-kubernetes-list-type"]), "" | "atomic"),
            "object" => items.str_at(&["x-kubernetes-map-type"]) != "atomic",
            _ => false,
        };
        loose |= (set && items_of(schema).is_some_and(granular)) || !loose_list(schema, "").is_empty();
    });
    loose
}

/// Visits every schema within a schema.
fn walk(schema: &Tree, depth: usize, visit: &mut dyn FnMut(&Tree)) {
    if depth > SCHEMA_DEPTH_MAX || schema.as_map().is_none() {
        return;
    }
    visit(schema);
    for name in ["items", "not", "additionalProperties"] {
        if let Some(below) = schema.get(name) {
            walk(below, depth + 1, visit);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.list_at(&[name]).iter().for_each(|below| walk(below, depth + 1, visit));
    }
    properties_of(schema).for_each(|(_, below)| walk(below, depth + 1, visit));
}

/// Formats that nobody checks, and sets that apply cannot merge.
pub(super) fn warnings(schema: &Tree, texts: &mut Vec<String>, depth: usize) {
    walk(schema, depth, &mut |schema| {
        let (ty, format) = (schema.str_at(&["type"]), schema.str_at(&["format"]));
        if !format.is_empty() && !formats::is_known(ty, format) {
            texts.push(format!("unrecognized format {}", skiff_object::errors::quote(format)));
        }
        let items = items_of(schema).map_or("", |items| items.str_at(&["type"]));
        if schema.str_at(&["x-kubernetes-list-type"]) == "set" && matches!(items, "object" | "array") {
            texts.push(format!(
                "x-kubernetes-list-type: set for items of type {} is not supported by server-side apply or CEL \
                 validation rules",
                skiff_object::errors::quote(items)
            ));
        }
    });
}

/// Whether a path may go through lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrays {
    Allowed,
    Forbidden,
}

/// The schema that a field path (`.spec.a['b.c']`) leads to; nothing where a map says nothing of its values.
///
/// # Errors
/// When it leads nowhere.
pub(super) fn field_at<'a>(node: &'a Node, path: &str, arrays: Arrays) -> Result<Option<&'a Node>, String> {
    let mut rest = path;
    let mut at = node;
    while !rest.is_empty() {
        let name;
        (name, rest) = step(rest, arrays)?;
        at = if at.properties.is_empty() {
            match &at.additional {
                Additional::Schema(values) => values,
                Additional::Any => return Ok(None),
                Additional::None => return Err("does not refer to a valid field".into()),
            }
        } else {
            at.property(&name).ok_or("does not refer to a valid field")?
        };
    }
    Ok(Some(at))
}

/// The next name of a path, and what follows it.
fn step(rest: &str, arrays: Arrays) -> Result<(String, &str), String> {
    if let Some(inner) = rest.strip_prefix('.') {
        let end = inner.find(['.', '[', ']']).unwrap_or(inner.len());
        let name = if end == 0 { inner.get(..1).unwrap_or("") } else { &inner[..end] };
        if name.is_empty() {
            return Err("unexpected end of JSON path".into());
        }
        return Ok((name.to_owned(), &inner[name.len()..]));
    }
    let Some(inner) = rest.strip_prefix('[') else {
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
        return Err(format!("expected [ or . but got: {}", rest.get(..end).unwrap_or(rest)));
    };
    if arrays == Arrays::Forbidden {
        return Err("array notation is not allowed".into());
    }
    let end = inner.find("']").ok_or("unexpected end of JSON path")?;
    let name = inner[..end].strip_prefix('\'');
    let name = name.ok_or_else(|| format!("expected single quoted string but got {}", &inner[..end]))?;
    Ok((name.replace("\\'", "'").replace("\\\\", "\\"), &inner[end + 2..]))
}
