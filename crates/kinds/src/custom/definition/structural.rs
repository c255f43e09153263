//! What makes a schema structural (`apiextensions-apiserver/pkg/apiserver/schema/validation.go` and `complete.go`):
//! every field has a type, and value validations speak only of fields that are specified.

use skiff_object::errors::FieldError;
use skiff_object::{Map, Tree};

use super::{Level, items_of, properties_of};
use crate::custom::node::SCHEMA_DEPTH_MAX;
use crate::custom::pattern;

/// Errors of one definition; nobody reads more.
pub(super) const ERRORS_MAX: usize = 200;

/// What keeps the schemas of a definition from being structural.
pub(super) fn violations(definition: &Tree) -> Vec<FieldError> {
    let mut found = Vec::new();
    for (index, version) in definition.list_at(&["spec", "versions"]).iter().enumerate() {
        if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) {
            found.extend(validate(schema, &format!("spec.versions[{index}].schema.openAPIV3Schema")));
        }
    }
    found
}

/// Everything that keeps a schema from being structural, in the order of the messages.
pub(super) fn validate(schema: &Tree, path: &str) -> Vec<FieldError> {
    let mut check = Check { found: Vec::new() };
    check.node(schema, Level::Root, path, 0);
    check.complete_values(schema, Some(schema), path, path, 0);
    check.found.sort_by_cached_key(ToString::to_string);
    check.found
}

struct Check {
    found: Vec<FieldError>,
}

fn is(schema: &Tree, name: &str) -> bool {
    schema.bool_at(&[name]) == Some(true)
}

impl Check {
    fn push(&mut self, error: FieldError) {
        if self.found.len() < ERRORS_MAX {
            self.found.push(error);
        }
    }

    fn node(&mut self, schema: &Tree, level: Level, path: &str, depth: usize) {
        if depth > SCHEMA_DEPTH_MAX {
            let why = format!("the schema is nested deeper than {SCHEMA_DEPTH_MAX} levels");
            return self.push(FieldError::forbidden(path, why));
        }
        let ty = schema.str_at(&["type"]);
        let items = items_of(schema);
        if ty == "array" && items.is_none() {
            self.push(FieldError::required(format!("{path}.items"), "must be specified"));
        }
        if let Some(items) = items {
            self.node(items, Level::Item, &format!("{path}.items"), depth + 1);
        }
        for (name, property) in properties_of(schema) {
            self.node(property, Level::Field, &format!("{path}.properties[{name}]"), depth + 1);
        }
        if let Some(values) = schema.get("additionalProperties").filter(|values| !values.is_null()) {
            let path = format!("{path}.additionalProperties");
            if level == Level::Root {
                self.push(FieldError::forbidden(&path, "must not be used at the root"));
            }
            if values.as_map().is_some() {
                self.node(values, Level::Field, &path, depth + 1);
            }
        }
        self.extensions(schema, path);
        self.values(schema, int_or_string(schema), int_or_string_first(schema), path, depth);
        self.type_of(schema, ty, level, path);
        self.metadata(schema, level, path);
    }

    fn extensions(&mut self, schema: &Tree, path: &str) {
        if !is(schema, "x-kubernetes-int-or-string") {
            return;
        }
        for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if is(schema, name) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                self.push(FieldError::invalid(format!("{path}.{name}"), true, why));
            }
        }
    }

    fn type_of(&mut self, schema: &Tree, ty: &str, level: Level, path: &str) {
        let embedded = is(schema, "x-kubernetes-embedded-resource");
        let keeps = is(schema, "x-kubernetes-preserve-unknown-fields");
        let field = format!("{path}.type");
        if embedded && ty != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            self.push(if ty.is_empty() {
                FieldError::required(&field, why)
            } else {
                FieldError::invalid(&field, ty, why)
            });
        } else if ty.is_empty() && !is(schema, "x-kubernetes-int-or-string") && !keeps {
            let place = match level {
                Level::Root => "at the root",
                Level::Item => "for specified array items",
                Level::Field => "for specified object fields",
            };
            self.push(FieldError::required(&field, format!("must not be empty {place}")));
        }
        if embedded && schema.get("additionalProperties").is_some() {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            self.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
        }
        if level == Level::Root && !ty.is_empty() && ty != "object" {
            self.push(FieldError::invalid(&field, ty, "must be object at the root"));
        }
        if embedded && !keeps && properties_of(schema).next().is_none() {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                       x-kubernetes-preserve-unknown-fields";
            self.push(FieldError::required(format!("{path}.properties"), why));
        }
    }

    /// `metadata` is implied: a schema may only restrict its name and generateName.
    fn metadata(&mut self, schema: &Tree, level: Level, path: &str) {
        let is_object = level == Level::Root || is(schema, "x-kubernetes-embedded-resource");
        for (name, property) in properties_of(schema) {
            let field = format!("{path}.properties[{name}]");
            let wanted = match name {
                "kind" | "apiVersion" => "string",
                "metadata" => "object",
                _ => continue,
            };
            let ty = property.str_at(&["type"]);
            if is_object && ty != wanted {
                self.push(FieldError::invalid(format!("{field}.type"), ty, format!("must be {wanted}")));
            }
            if name == "metadata" && level == Level::Root && !names_only(property) {
                let why =
                    "must not specify anything other than name and generateName, but metadata is implicitly specified";
                self.push(FieldError::forbidden(field, why));
            }
        }
    }

    fn values(&mut self, schema: &Tree, skip_any: bool, skip_first: bool, path: &str, depth: usize) {
        for (name, list) in [("anyOf", "anyOf"), ("allOf", "allOf"), ("oneOf", "oneOf")] {
            if name == "anyOf" && skip_any {
                continue;
            }
            for (index, nested) in schema.list_at(&[list]).iter().enumerate() {
                let skip = name == "allOf" && skip_first && index == 0;
                self.nested(nested, skip, &format!("{path}.{name}[{index}]"), depth + 1);
            }
        }
        if let Some(not) = schema.get("not").filter(|not| not.as_map().is_some()) {
            self.nested(not, false, &format!("{path}.not"), depth + 1);
        }
        let text = schema.str_at(&["pattern"]);
        if !text.is_empty()
            && let Err(why) = pattern::compile(text)
        {
            let why = format!("must be a valid regular expression, but isn't: {why}");
            self.push(FieldError::invalid(format!("{path}.pattern"), text, why));
        }
    }

    /// A schema below `anyOf` and its like judges values and specifies nothing.
    fn nested(&mut self, schema: &Tree, skip_any: bool, path: &str, depth: usize) {
        if depth > SCHEMA_DEPTH_MAX {
            let why = format!("the schema is nested deeper than {SCHEMA_DEPTH_MAX} levels");
            return self.push(FieldError::forbidden(path, why));
        }
        self.values(schema, skip_any, false, path, depth);
        if let Some(items) = items_of(schema) {
            self.nested(items, false, &format!("{path}.items"), depth + 1);
        }
        for (name, property) in properties_of(schema) {
            self.nested(property, false, &format!("{path}.properties[{name}]"), depth + 1);
            if name == "metadata" {
                let why = "must not be specified in a nested context";
                self.push(FieldError::forbidden(format!("{path}.properties[metadata]"), why));
            }
        }
        const EMPTY: &str = "must be empty to be structural";
        const UNDEFINED: &str = "must be undefined to be structural";
        const FALSE: &str = "must be false to be structural";
        for (name, why) in [
            ("type", EMPTY),
            ("additionalProperties", UNDEFINED),
            ("default", UNDEFINED),
            ("title", EMPTY),
            ("description", EMPTY),
            ("nullable", FALSE),
            ("x-kubernetes-preserve-unknown-fields", FALSE),
            ("x-kubernetes-embedded-resource", FALSE),
            ("x-kubernetes-int-or-string", FALSE),
            ("x-kubernetes-list-map-keys", EMPTY),
            ("x-kubernetes-list-type", UNDEFINED),
            ("x-kubernetes-map-type", UNDEFINED),
            ("x-kubernetes-validations", EMPTY),
        ] {
            let says = match schema.get(name) {
                None | Some(Tree::Null | Tree::Bool(false)) => false,
                Some(Tree::Str(text)) => !text.is_empty() || why == UNDEFINED,
                Some(Tree::List(items)) => !items.is_empty(),
                Some(_) => true,
            };
            if says {
                self.push(FieldError::forbidden(format!("{path}.{name}"), why));
            }
        }
    }

    /// What value validations speak of is specified outside of them too.
    fn complete_values(&mut self, values: &Tree, schema: Option<&Tree>, at: &str, from: &str, depth: usize) {
        if depth > SCHEMA_DEPTH_MAX {
            return;
        }
        if let Some(not) = values.get("not").filter(|not| not.as_map().is_some()) {
            self.complete(not, schema, at, &format!("{from}.not"), depth + 1);
        }
        for name in ["allOf", "anyOf", "oneOf"] {
            for (index, nested) in values.list_at(&[name]).iter().enumerate() {
                self.complete(nested, schema, at, &format!("{from}.{name}[{index}]"), depth + 1);
            }
        }
    }

    fn complete(&mut self, nested: &Tree, schema: Option<&Tree>, at: &str, from: &str, depth: usize) {
        let Some(schema) = schema else {
            return self.push(FieldError::required(at, format!("because it is defined in {from}")));
        };
        self.complete_values(nested, Some(schema), at, from, depth);
        if let Some(items) = items_of(nested) {
            self.complete(items, items_of(schema), &format!("{at}.items"), &format!("{from}.items"), depth + 1);
        }
        for (name, property) in properties_of(nested) {
            let step = format!(".properties[{name}]");
            let found = schema.at(&["properties", name]);
            self.complete(property, found, &format!("{at}{step}"), &format!("{from}{step}"), depth + 1);
        }
    }
}

fn names_only(metadata: &Tree) -> bool {
    const VALUES: [&str; 2] = ["type", "properties"];
    let known = properties_of(metadata).all(|(name, _)| matches!(name, "name" | "generateName"));
    let map = metadata.as_map().map(Map::iter).into_iter().flatten();
    known && map.into_iter().all(|(key, value)| VALUES.contains(&key.as_str()) || key == "default" || empty(value))
}

fn empty(value: &Tree) -> bool {
    match value {
        Tree::Null | Tree::Bool(false) => true,
        Tree::Str(text) => text.is_empty(),
        Tree::List(items) => items.is_empty(),
        _ => false,
    }
}

fn int_or_string_pair(schema: &Tree) -> bool {
    let any = schema.list_at(&["anyOf"]);
    let only = |tree: &Tree, ty: &str| {
        tree.str_at(&["type"]) == ty
            && tree.as_map().is_some_and(|map| map.values().filter(|it| !empty(it)).count() == 1)
    };
    matches!(any, [one, other] if only(one, "integer") && only(other, "string"))
}

/// `anyOf: [{type: integer}, {type: string}]` is allowed besides `x-kubernetes-int-or-string`.
fn int_or_string(schema: &Tree) -> bool {
    int_or_string_pair(schema)
}

/// So is the same as the first of `allOf`.
fn int_or_string_first(schema: &Tree) -> bool {
    schema.list_at(&["allOf"]).first().is_some_and(int_or_string_pair)
}
