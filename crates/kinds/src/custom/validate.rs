//! The rules of a structural schema, in the words of `k8s.io/kube-openapi/pkg/validation/validate`, with ratcheting:
//! what is wrong with a value that an update leaves as it was is not held against the update.

use skiff_object::errors::{BadValue, FieldError, quote};
use skiff_object::schema::ListKind;
use skiff_object::{Map, Tree};

use crate::custom::formats;
use crate::custom::node::{Additional, Node, Type, Values};

/// Errors that one validation collects; nobody reads more, and a hostile object must not cost memory.
const ERRORS_MAX: usize = 100;

/// What a walk found.
#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    /// How many checks applied: of several alternatives that fail, the one that went furthest is explained.
    applied: usize,
}

impl Found {
    fn push(&mut self, error: FieldError) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    fn merge(&mut self, other: Self) {
        self.applied += other.applied;
        other.errors.into_iter().for_each(|error| self.push(error));
    }
}

/// Everything wrong with `value` below `prefix` (a field, or nothing for a whole object). `old` is what the value was
/// before an update.
pub(crate) fn check(value: &Tree, old: Option<&Tree>, node: &Node, prefix: &str) -> Vec<FieldError> {
    let mut errors = validate(value, old, node, "").errors;
    if !prefix.is_empty() {
        // Upstream judges such a part as an object of its own: its messages name fields below it.
        for error in &mut errors {
            error.field = match error.field.as_str() {
                "" | NOWHERE => prefix.to_owned(),
                field => format!("{prefix}.{field}"),
            };
        }
    }
    errors
}

/// What upstream prints for an error without a field.
pub(crate) const NOWHERE: &str = "<nil>";

fn validate(value: &Tree, old: Option<&Tree>, node: &Node, path: &str) -> Found {
    let mut found = Found::default();
    check_type(value, node, path, &mut found);
    if !value.is_null() {
        if let Some(values) = &node.values {
            check_logic(value, values, path, &mut found);
            check_scalar(value, node, values, path, &mut found);
        }
        if let Tree::List(items) = value {
            check_list(items, old, node, path, &mut found);
        }
    }
    if let Some(values) = &node.values {
        check_enum(value, values, path, &mut found);
    }
    if let Tree::Map(map) = value {
        check_map(map, old, node, path, &mut found);
    }
    if !found.errors.is_empty() && old == Some(value) {
        found.errors.clear();
    }
    found
}

fn check_type(value: &Tree, node: &Node, path: &str, found: &mut Found) {
    let wanted = if node.int_or_string { "integer,string" } else { node.ty.as_str() };
    if wanted.is_empty() {
        return;
    }
    found.applied += 1;
    let fits = match (value, node.ty) {
        (Tree::Null, _) => node.nullable,
        (Tree::Int(_) | Tree::Str(_), _) if node.int_or_string => true,
        _ if node.int_or_string => false,
        (Tree::Map(_), Type::Object)
        | (Tree::List(_), Type::Array)
        | (Tree::Str(_), Type::String)
        | (Tree::Bool(_), Type::Boolean)
        | (Tree::Int(_), Type::Integer | Type::Number)
        | (Tree::Float(_), Type::Number) => true,
        (Tree::Float(number), Type::Integer) => number.fract() == 0.0,
        _ => false,
    };
    if !fits {
        let is = type_name(value);
        found.push(FieldError::type_invalid(
            path,
            is,
            in_body(path, &format!("must be of type {wanted}: {}", quote(is))),
        ));
    }
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

fn in_body(path: &str, what: &str) -> String {
    format!("{path} in body {what}")
}

fn check_logic(value: &Tree, values: &Values, path: &str, found: &mut Found) {
    // Upstream reports these as errors without a field.
    let nowhere = |what: &str| FieldError::invalid(NOWHERE, "", format!("{} {what}", quote(path)));
    if !values.any_of.is_empty() {
        match alternatives(value, &values.any_of, path) {
            (0, best) => {
                found.push(nowhere("must validate at least one schema (anyOf)"));
                found.merge(best);
            }
            _ => found.applied += 1,
        }
    }
    if !values.one_of.is_empty() {
        match alternatives(value, &values.one_of, path) {
            (1, _) => found.applied += 1,
            (0, best) => {
                found.push(nowhere("must validate one and only one schema (oneOf). Found none valid"));
                found.merge(best);
            }
            (count, _) => found.push(nowhere(&format!(
                "must validate one and only one schema (oneOf). Found {count} valid alternatives"
            ))),
        }
    }
    if !values.all_of.is_empty() {
        let mut valid = 0;
        for node in &values.all_of {
            let one = validate(value, None, node, path);
            valid += usize::from(one.errors.is_empty());
            found.merge(one);
        }
        if valid != values.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            found.push(nowhere(&format!("must validate all the schemas (allOf){none}")));
        }
    }
    if let Some(node) = &values.not
        && validate(value, None, node, path).errors.is_empty()
    {
        found.push(nowhere("must not validate the schema (not)"));
    }
}

/// How many alternatives fit, and what is wrong with the one that nearly did.
fn alternatives(value: &Tree, nodes: &[Node], path: &str) -> (usize, Found) {
    let (mut valid, mut best) = (0, None::<Found>);
    for node in nodes {
        let one = validate(value, None, node, path);
        if one.errors.is_empty() {
            valid += 1;
        } else if best.as_ref().is_none_or(|best| one.applied > best.applied) {
            best = Some(one);
        }
    }
    (valid, best.unwrap_or_default())
}

fn check_scalar(value: &Tree, node: &Node, values: &Values, path: &str, found: &mut Found) {
    match value {
        Tree::Str(text) => check_text(text, node, values, path, found),
        Tree::Int(_) | Tree::Float(_) => check_number(value, values, path, found),
        _ => {}
    }
}

fn check_text(text: &str, node: &Node, values: &Values, path: &str, found: &mut Found) {
    found.applied += 1;
    let length = text.chars().count();
    if let Some(max) = values.length.max.filter(|max| length > *max) {
        found.push(FieldError::too_long(path, max));
    }
    if let Some(min) = values.length.min.filter(|min| length < *min) {
        found.push(FieldError::invalid(path, text, in_body(path, &format!("should be at least {min} chars long"))));
    }
    if let Some(pattern) = &values.pattern {
        match pattern.is_match(text) {
            Some(true) => {}
            Some(false) => {
                found.push(FieldError::invalid(path, text, in_body(path, &format!("should match '{}'", pattern.text))));
            }
            None => found.push(FieldError::internal(path, format!("the pattern '{}' cannot be run", pattern.text))),
        }
    }
    let is_text = matches!(node.ty, Type::String | Type::Any) && !node.int_or_string;
    if is_text && !values.format.is_empty() && !formats::fits(&values.format, text) {
        let why = format!("must be of type {}: {}", values.format, quote(text));
        found.push(FieldError::type_invalid(path, text, in_body(path, &why)));
    }
}

fn check_number(value: &Tree, values: &Values, path: &str, found: &mut Found) {
    let Some(number) = float(value) else { return };
    found.applied += 1;
    if let Some(factor) = values.multiple_of.as_ref().and_then(float).filter(|factor| *factor > 0.0) {
        let fits = match (value, &values.multiple_of) {
            (Tree::Int(value), Some(Tree::Int(factor))) => value % factor == 0,
            _ => (number / factor).fract() == 0.0,
        };
        if !fits {
            found.push(FieldError::invalid(path, value, in_body(path, &format!("should be a multiple of {factor}"))));
        }
    }
    if let Some(maximum) = values.maximum.as_ref().and_then(float) {
        let (fails, words) = match values.exclusive_maximum {
            true => (number >= maximum, "less than"),
            false => (number > maximum, "less than or equal to"),
        };
        if fails {
            found.push(FieldError::invalid(path, value, in_body(path, &format!("should be {words} {maximum}"))));
        }
    }
    if let Some(minimum) = values.minimum.as_ref().and_then(float) {
        let (fails, words) = match values.exclusive_minimum {
            true => (number <= minimum, "greater than"),
            false => (number < minimum, "greater than or equal to"),
        };
        if fails {
            found.push(FieldError::invalid(path, value, in_body(path, &format!("should be {words} {minimum}"))));
        }
    }
}

fn float(value: &Tree) -> Option<f64> {
    match value {
        Tree::Int(number) => Some(*number as f64),
        Tree::Float(number) => Some(*number),
        _ => None,
    }
}

fn check_enum(value: &Tree, values: &Values, path: &str, found: &mut Found) {
    if values.allowed.is_empty() {
        return;
    }
    found.applied += 1;
    let same = |one: &Tree| one == value || (float(one).is_some() && float(one) == float(value));
    if values.allowed.iter().any(same) {
        return;
    }
    let texts: Vec<String> = values
        .allowed
        .iter()
        .map(|one| one.as_str().map_or_else(|| skiff_object::errors::show(one), str::to_owned))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let shown = if value.is_null() { BadValue::Text("null".into()) } else { BadValue::from(value) };
    found.push(FieldError::not_supported(path, shown, &texts));
}

fn check_list(items: &[Tree], old: Option<&Tree>, node: &Node, path: &str, found: &mut Found) {
    if let Some(item) = &node.items {
        let old = old.and_then(Tree::as_list);
        for (index, value) in items.iter().enumerate() {
            let old = old.and_then(|old| correlated(value, old, node));
            found.merge(validate(value, old, item, &format!("{path}[{index}]")));
        }
    }
    let Some(values) = &node.values else { return };
    found.applied += 1;
    if let Some(min) = values.items.min.filter(|min| items.len() < *min) {
        found.push(FieldError::invalid(
            path,
            count(items.len()),
            in_body(path, &format!("should have at least {min} items")),
        ));
    }
    if let Some(max) = values.items.max.filter(|max| items.len() > *max) {
        found.push(FieldError::too_many(path, items.len(), max));
    }
}

/// What an item of a map list was before: lists of other types have items without an identity.
pub(crate) fn correlated<'a>(value: &Tree, old: &'a [Tree], node: &Node) -> Option<&'a Tree> {
    let Some(ListKind::Map(keys)) = &node.list else { return None };
    let same = |one: &&Tree| keys.iter().all(|key| one.get(key.name.as_str()) == value.get(key.name.as_str()));
    old.iter().find(same)
}

fn check_map(map: &Map, old: Option<&Tree>, node: &Node, path: &str, found: &mut Found) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(values) = &node.values {
        found.applied += 1;
        if let Some(min) = values.properties.min.filter(|min| map.len() < *min) {
            let why = format!("should have at least {min} properties");
            found.push(FieldError::invalid(path, count(map.len()), in_body(path, &why)));
        }
        if let Some(max) = values.properties.max.filter(|max| map.len() > *max) {
            found.push(FieldError::too_many(path, map.len(), max));
        }
        for name in &values.required {
            if !map.contains_key(name) {
                found.push(FieldError::required(below(name), ""));
            }
        }
    }
    if node.properties.is_empty() && !matches!(node.additional, Additional::Schema(_)) {
        return;
    }
    let old = old.filter(|_| !node.map_is_atomic);
    for (key, value) in map.iter() {
        if let Some(entry) = node.entry(key.as_str()) {
            let old = old.and_then(|old| old.get(key.as_str()));
            found.merge(validate(value, old, entry, &below(key.as_str())));
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Lists that are sets or maps have no two items with one identity.
pub(crate) fn unique_items(value: &Tree, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Tree::Map(map) => {
            for (key, value) in map.iter() {
                let key = key.as_str();
                let (entry, path) = match (node.property(key), &node.additional) {
                    (Some(property), _) if path.is_empty() => (property, key.to_owned()),
                    (Some(property), _) => (property, format!("{path}.{key}")),
                    (None, Additional::Schema(values)) => (&**values, format!("{path}[{key}]")),
                    _ => continue,
                };
                unique_items(value, entry, &path, errors);
            }
        }
        Tree::List(items) => {
            repeated(items, node, path, errors);
            if let Some(node) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    unique_items(item, node, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn repeated(items: &[Tree], node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    let identity = |item: &Tree| match &node.list {
        Some(ListKind::Set) => Some(item.clone()),
        Some(ListKind::Map(keys)) => Some(Tree::Map(
            keys.iter().filter_map(|key| Some((key.name.clone(), item.get(key.name.as_str())?.clone()))).collect(),
        )),
        _ => None,
    };
    if let Some(ListKind::Map(_)) = &node.list
        && let Some(index) = items.iter().position(|item| !item.is_null() && item.as_map().is_none())
    {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(format!("{path}[{index}]"), &items[index], why));
        return;
    }
    let mut seen = std::collections::HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let Some(identity) = identity(item) else { return };
        let times = seen.entry(skiff_object::json::encode_sorted(&identity)).or_insert(0_usize);
        *times += 1;
        // The second is named, further ones are not.
        if *times == 2 && errors.len() < ERRORS_MAX {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &identity));
        }
    }
}

/// Embedded objects say what they are and have metadata that could be stored.
pub(crate) fn embedded(value: &Tree, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Tree::Map(map) => {
            if node.embedded {
                embedded_object(value, path, errors);
            }
            for (key, value) in map.iter() {
                if let Some(entry) = node.entry(key.as_str()) {
                    embedded(value, entry, &below(key.as_str()), errors);
                }
            }
        }
        Tree::List(items) => {
            if let Some(node) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    embedded(item, node, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

fn embedded_object(object: &Tree, path: &str, errors: &mut Vec<FieldError>) {
    use skiff_object::name;
    let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
    for field in ["apiVersion", "kind"] {
        match object.get(field) {
            Some(Tree::Str(text)) if !text.is_empty() => {}
            Some(Tree::Str(_)) | None => errors.push(FieldError::required(at(field), "must not be empty")),
            Some(other) => errors.push(FieldError::invalid(at(field), other, "must be a string")),
        }
    }
    let metadata = at("metadata");
    let text = object.str_at(&["metadata", "name"]);
    if !text.is_empty() {
        let why = name::path_segment(text);
        errors.extend(why.into_iter().map(|why| FieldError::invalid(format!("{metadata}.name"), text, why)));
    }
    let namespace = object.str_at(&["metadata", "namespace"]);
    if !namespace.is_empty() {
        let why = name::dns1123_label(namespace);
        errors.extend(why.into_iter().map(|why| FieldError::invalid(format!("{metadata}.namespace"), namespace, why)));
    }
    let labels = format!("{metadata}.labels");
    errors.extend(name::labels(object.at(&["metadata", "labels"]), skiff_object::path::Path::new(&labels)));
    let annotations = format!("{metadata}.annotations");
    errors.extend(name::annotations(
        object.at(&["metadata", "annotations"]),
        skiff_object::path::Path::new(&annotations),
    ));
}

/// Whether an error keeps expressions from being evaluated: the values are not of the types that they are about.
pub(crate) fn blocks_rules(errors: &[FieldError]) -> bool {
    use skiff_object::errors::ErrorKind;
    errors.iter().any(|error| {
        matches!(
            error.kind,
            ErrorKind::NotSupported
                | ErrorKind::Required
                | ErrorKind::TooLong
                | ErrorKind::TooMany
                | ErrorKind::TypeInvalid
        )
    })
}

/// The error that says so.
pub(crate) fn rules_skipped() -> FieldError {
    FieldError::invalid(
        NOWHERE,
        "null",
        "some validation rules were not checked because the object was invalid; correct the existing errors to \
         complete validation",
    )
}
