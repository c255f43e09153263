//! The rules of a structural schema: defaults, types, bounds, patterns, in upstream's words.

use std::collections::HashMap;

use regex::Regex;
use skiff_object::errors::{FieldError, show};
use skiff_object::path::Path;
use skiff_object::{Map, Tree};

use crate::custom::compile::CompileError;

/// How large a compiled pattern may get.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What has to be prepared to check objects: the patterns.
pub(super) struct Rules {
    patterns: HashMap<String, Regex>,
}

/// Fills in the defaults of a schema where values are absent.
pub(super) fn default(value: &mut Tree, schema: &Tree) {
    match value {
        Tree::Map(map) => {
            for (name, property) in properties(schema) {
                let nullable = property.bool_at(&["nullable"]) == Some(true);
                let absent = map.get(name).is_none_or(|value| value.is_null() && !nullable);
                if absent && let Some(filler) = property.get("default") {
                    map.insert(skiff_object::Key::from(name.to_owned()), filler.clone());
                }
                if let Some(value) = map.get_mut(name) {
                    default(value, property);
                }
            }
            if let Some(values) = schema.get("additionalProperties").filter(|values| values.as_map().is_some()) {
                let known = schema.get("properties").and_then(Tree::as_map);
                let extra = map.iter_mut().filter(|(key, _)| known.is_none_or(|map| !map.contains_key(key.as_str())));
                extra.for_each(|(_, value)| default(value, values));
            }
        }
        Tree::List(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| default(item, schema));
            }
        }
        _ => {}
    }
}

fn properties(schema: &Tree) -> impl Iterator<Item = (&str, &Tree)> {
    schema
        .get("properties")
        .and_then(Tree::as_map)
        .into_iter()
        .flat_map(Map::iter)
        .map(|(key, value)| (key.as_str(), value))
}

impl Rules {
    pub(super) fn compile(schema: &Tree) -> Result<Self, CompileError> {
        let mut rules = Self { patterns: HashMap::new() };
        rules.collect(schema)?;
        Ok(rules)
    }

    fn collect(&mut self, schema: &Tree) -> Result<(), CompileError> {
        match schema {
            Tree::Map(map) => {
                for (key, value) in map.iter() {
                    match value {
                        Tree::Str(pattern) if key.as_str() == "pattern" => self.add(pattern)?,
                        value => self.collect(value)?,
                    }
                }
            }
            Tree::List(items) => items.iter().try_for_each(|item| self.collect(item))?,
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, pattern: &str) -> Result<(), CompileError> {
        let regex = regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
        let regex =
            regex.map_err(|error| CompileError::Pattern { pattern: pattern.to_owned(), why: error.to_string() })?;
        self.patterns.insert(pattern.to_owned(), regex);
        Ok(())
    }

    /// Adds everything wrong with `value` under `schema`.
    pub(super) fn check(&self, value: &Tree, schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
        if value.is_null() && schema.bool_at(&["nullable"]) == Some(true) {
            return;
        }
        if let Some(wanted) = wrong_type(value, schema) {
            let found = type_name(value);
            let why = format!("{path} in body must be of type {wanted}: \"{found}\"");
            errors.push(FieldError::type_invalid(path, found, why));
            return;
        }
        self.check_enum(value, schema, path, errors);
        match value {
            Tree::Map(map) => self.check_map(map, schema, path, errors),
            Tree::List(items) => self.check_list(items, schema, path, errors),
            Tree::Str(text) => self.check_text(text, schema, path, errors),
            Tree::Int(_) | Tree::Float(_) => check_number(value, schema, path, errors),
            Tree::Bool(_) | Tree::Null => {}
        }
        self.check_logic(value, schema, path, errors);
    }

    fn check_enum(&self, value: &Tree, schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
        let allowed = schema.list_at(&["enum"]);
        if !allowed.is_empty() && !allowed.contains(value) {
            let plain = |tree: &Tree| tree.as_str().map_or_else(|| show(tree), str::to_owned);
            let allowed: Vec<String> = allowed.iter().map(plain).collect();
            let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(path, value, &allowed));
        }
    }

    fn check_map(&self, map: &Map, schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
        for name in schema.list_at(&["required"]).iter().filter_map(Tree::as_str) {
            if !map.contains_key(name) {
                errors.push(FieldError::required(path.child(name), ""));
            }
        }
        let known = schema.get("properties");
        let extra = schema.get("additionalProperties").filter(|values| values.as_map().is_some());
        for (key, value) in map.iter() {
            match (known.and_then(|known| known.get(key.as_str())), extra) {
                (Some(property), _) => self.check(value, property, path.child(key.as_str()), errors),
                (None, Some(values)) => self.check(value, values, path.child(key.as_str()), errors),
                (None, None) => {}
            }
        }
        if let Some(bound) = bound(schema, "minProperties").filter(|bound| map.len() < *bound) {
            let why = format!("{path} in body should have at least {bound} properties");
            errors.push(FieldError::invalid(path, i64::try_from(map.len()).unwrap_or(i64::MAX), why));
        }
        if let Some(bound) = bound(schema, "maxProperties").filter(|bound| map.len() > *bound) {
            errors.push(FieldError::too_many(path, map.len(), bound));
        }
    }

    fn check_list(&self, items: &[Tree], schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.check(item, schema, path.index(index), errors);
            }
        }
        if let Some(bound) = bound(schema, "minItems").filter(|bound| items.len() < *bound) {
            let why = format!("{path} in body should have at least {bound} items");
            errors.push(FieldError::invalid(path, i64::try_from(items.len()).unwrap_or(i64::MAX), why));
        }
        if let Some(bound) = bound(schema, "maxItems").filter(|bound| items.len() > *bound) {
            errors.push(FieldError::too_many(path, items.len(), bound));
        }
        let keys: Vec<&str> = schema.list_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Tree::as_str).collect();
        let identity = |item: &Tree| match schema.str_at(&["x-kubernetes-list-type"]) {
            "set" => Some(show(item)),
            "map" => {
                Some(keys.iter().map(|key| item.get(key).map_or_else(String::new, show)).collect::<Vec<_>>().join(","))
            }
            _ => None,
        };
        let mut seen = std::collections::HashSet::new();
        for (index, item) in items.iter().enumerate() {
            if let Some(identity) = identity(item)
                && !seen.insert(identity)
            {
                errors.push(FieldError::duplicate(path.index(index), item));
            }
        }
    }

    fn check_text(&self, text: &str, schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
        let length = text.chars().count();
        if let Some(bound) = bound(schema, "minLength").filter(|bound| length < *bound) {
            let why = format!("{path} in body should be at least {bound} chars long");
            errors.push(FieldError::invalid(path, text, why));
        }
        if let Some(bound) = bound(schema, "maxLength").filter(|bound| length > *bound) {
            errors.push(FieldError::too_long(path, bound));
        }
        let pattern = schema.str_at(&["pattern"]);
        if self.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text)) {
            errors.push(FieldError::invalid(path, text, format!("{path} in body should match '{pattern}'")));
        }
    }

    fn check_logic(&self, value: &Tree, schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
        let fits = |schema: &Tree| {
            let mut errors = Vec::new();
            self.check(value, schema, path, &mut errors);
            errors.is_empty()
        };
        for schema in schema.list_at(&["allOf"]) {
            self.check(value, schema, path, errors);
        }
        let any = schema.list_at(&["anyOf"]);
        if !any.is_empty() && !any.iter().any(fits) {
            let why = format!("{path} in body must validate at least one schema (anyOf)");
            errors.push(FieldError::invalid(path, value, why));
        }
        let one = schema.list_at(&["oneOf"]);
        if !one.is_empty() && one.iter().filter(|schema| fits(schema)).count() != 1 {
            let why = format!("{path} in body must validate one and only one schema (oneOf)");
            errors.push(FieldError::invalid(path, value, why));
        }
        if schema.get("not").is_some_and(fits) {
            errors.push(FieldError::invalid(path, value, format!("{path} in body must not validate the schema (not)")));
        }
    }
}

/// A bound that counts something.
fn bound(schema: &Tree, name: &str) -> Option<usize> {
    schema.int_at(&[name]).and_then(|bound| usize::try_from(bound).ok())
}

fn check_number(value: &Tree, schema: &Tree, path: Path<'_>, errors: &mut Vec<FieldError>) {
    let Some(number) = float(value) else { return };
    let exclusive = |name: &str| schema.bool_at(&[name]) == Some(true);
    if let Some(minimum) = schema.get("minimum").and_then(float) {
        let (fails, word) = match exclusive("exclusiveMinimum") {
            true => (number <= minimum, "greater than"),
            false => (number < minimum, "greater than or equal to"),
        };
        if fails {
            errors.push(FieldError::invalid(path, value, format!("{path} in body should be {word} {minimum}")));
        }
    }
    if let Some(maximum) = schema.get("maximum").and_then(float) {
        let (fails, word) = match exclusive("exclusiveMaximum") {
            true => (number >= maximum, "less than"),
            false => (number > maximum, "less than or equal to"),
        };
        if fails {
            errors.push(FieldError::invalid(path, value, format!("{path} in body should be {word} {maximum}")));
        }
    }
    if let Some(factor) = schema.get("multipleOf").and_then(float).filter(|factor| *factor != 0.0)
        && (number / factor).fract() != 0.0
    {
        errors.push(FieldError::invalid(path, value, format!("{path} in body should be a multiple of {factor}")));
    }
}

fn float(value: &Tree) -> Option<f64> {
    match value {
        Tree::Int(number) => Some(*number as f64),
        Tree::Float(number) => Some(*number),
        _ => None,
    }
}

/// The type that the schema asks for, when `value` is of another.
fn wrong_type<'a>(value: &Tree, schema: &'a Tree) -> Option<&'a str> {
    if schema.bool_at(&["x-kubernetes-int-or-string"]) == Some(true) {
        return (!matches!(value, Tree::Int(_) | Tree::Str(_))).then_some("integer,string");
    }
    let wanted = schema.str_at(&["type"]);
    let fits = match wanted {
        "object" => matches!(value, Tree::Map(_)),
        "array" => matches!(value, Tree::List(_)),
        "string" => matches!(value, Tree::Str(_)),
        "boolean" => matches!(value, Tree::Bool(_)),
        "integer" => matches!(value, Tree::Int(_)) || matches!(value, Tree::Float(number) if number.fract() == 0.0),
        "number" => matches!(value, Tree::Int(_) | Tree::Float(_)),
        _ => true,
    };
    (!fits).then_some(wanted)
}

const fn type_name(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "null",
        Tree::Bool(_) => "boolean",
        Tree::Int(_) => "integer",
        Tree::Float(_) => "number",
        Tree::Str(_) => "string",
        Tree::List(_) => "array",
        Tree::Map(_) => "object",
    }
}
