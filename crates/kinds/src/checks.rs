//! Checks that many kinds share, with upstream's paths and words.

use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label::{self, Selector};
use skiff_object::{Map, Tree, name};

use crate::rules;

pub(crate) mod admission;
pub(crate) mod autoscalers;
pub(crate) mod conditions;
pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod jobs;
pub(crate) mod rbac;
pub(crate) mod resources;

/// What is wrong so far.
pub(crate) type Found = Vec<FieldError>;

/// `metadata`, `spec`: where most checks begin.
pub(crate) const SPEC: Path<'static> = Path::new("spec");

/// What judges a text: the list of what is wrong with it.
pub(crate) type Check = fn(&str) -> Vec<String>;

/// `spec`, or nothing at all.
pub(crate) fn spec(object: &Tree) -> &Tree {
    object.get("spec").unwrap_or(&Tree::Null)
}

/// The field, if it is there and not null: what a pointer in Go holds.
pub(crate) fn given<'t>(object: &'t Tree, field: &str) -> Option<&'t Tree> {
    object.get(field).filter(|value| !value.is_null())
}

/// Judges every item of the list at a field.
pub(crate) fn each<'t>(object: &'t Tree, field: &str, path: Path<'_>, mut judge: impl FnMut(&'t Tree, Path<'_>)) {
    let list = path.child(field);
    for (index, item) in object.list_at(&[field]).iter().enumerate() {
        judge(item, list.index(index));
    }
}

/// As [`each`] for a list of texts.
pub(crate) fn each_text<'t>(object: &'t Tree, field: &str, path: Path<'_>, mut judge: impl FnMut(&'t str, Path<'_>)) {
    each(object, field, path, |item, path| judge(item.as_str().unwrap_or(""), path));
}

/// Judges every entry of the map at a field.
pub(crate) fn entries<'t>(
    object: &'t Tree,
    field: &str,
    path: Path<'_>,
    mut judge: impl FnMut(&'t str, &'t Tree, Path<'_>),
) {
    let map = path.child(field);
    for (key, value) in object.get(field).and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
        judge(key.as_str(), value, map.key(key.as_str()));
    }
}

/// Judges the struct at a field, if it is there.
pub(crate) fn within<'t>(object: &'t Tree, field: &str, path: Path<'_>, judge: impl FnOnce(&'t Tree, Path<'_>)) {
    if let Some(inner) = given(object, field) {
        judge(inner, path.child(field));
    }
}

/// The text at a field, if there is any, must be well formed.
pub(crate) fn formed(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, check: Check) {
    let value = object.str_at(&[field]);
    if !value.is_empty() {
        invalid(found, path.child(field), value, check(value));
    }
}

/// The text at a field must be there and well formed.
pub(crate) fn needed(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, check: Check) {
    if let Some(value) = required(found, object, field, path) {
        invalid(found, path.child(field), value, check(value));
    }
}

/// Whatever the text at a field is, it must be well formed.
pub(crate) fn shaped(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, check: Check) {
    let value = object.str_at(&[field]);
    invalid(found, path.child(field), value, check(value));
}

/// The text at a field must be one of these; nothing is none of them.
pub(crate) fn only(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, supported: &[&str]) {
    supported_value(found, object.str_at(&[field]), path.child(field), supported);
}

/// The text at a field, if the field is there, must be one of these; empty text is none of them.
pub(crate) fn only_if_given(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, supported: &[&str]) {
    if given(object, field).is_some() {
        only(found, object, field, path, supported);
    }
}

/// A list must not be longer than `max`.
pub(crate) fn at_most(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, max: usize) {
    let items = object.list_at(&[field]).len();
    if items > max {
        found.push(FieldError::too_many(path.child(field), items, max));
    }
}

/// A text must not be longer than `bytes_max`.
pub(crate) fn not_longer(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, bytes_max: usize) {
    if object.str_at(&[field]).len() > bytes_max {
        found.push(FieldError::too_long(path.child(field), bytes_max));
    }
}

/// No two of the texts in a list may be equal.
pub(crate) fn distinct(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let mut seen = HashSet::new();
    each_text(object, field, path, |item, path| {
        if !seen.insert(item) {
            found.push(FieldError::duplicate(path, item));
        }
    });
}

/// Adds an `Invalid` for each message.
pub(crate) fn invalid(found: &mut Found, path: Path<'_>, value: &str, messages: Vec<String>) {
    found.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
}

/// As [`invalid`] for a number.
pub(crate) fn invalid_number(found: &mut Found, path: Path<'_>, value: i64, messages: Vec<String>) {
    found.extend(messages.into_iter().map(|message| FieldError::invalid(path, value, message)));
}

/// The field must be there; gives its text when it is.
pub(crate) fn required<'t>(found: &mut Found, object: &'t Tree, field: &str, path: Path<'_>) -> Option<&'t str> {
    let value = object.str_at(&[field]);
    if value.is_empty() {
        found.push(FieldError::required(path.child(field), ""));
        return None;
    }
    Some(value)
}

/// The field must be one of these.
pub(crate) fn one_of(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, supported: &[&str]) {
    if let Some(value) = required(found, object, field, path) {
        supported_value(found, value, path.child(field), supported);
    }
}

/// The field, if it is there, must be one of these.
pub(crate) fn maybe_one_of(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, supported: &[&str]) {
    let value = object.str_at(&[field]);
    if !value.is_empty() {
        supported_value(found, value, path.child(field), supported);
    }
}

fn supported_value(found: &mut Found, value: &str, path: Path<'_>, supported: &[&str]) {
    if !supported.contains(&value) {
        found.push(FieldError::not_supported(path, value, supported));
    }
}

/// The number, if it is there, must not be negative.
pub(crate) fn not_negative(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    at_least(found, object, field, path, 0, "must be greater than or equal to 0");
}

/// The number, if it is there, must be above zero.
pub(crate) fn positive(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    at_least(found, object, field, path, 1, "must be greater than 0");
}

fn at_least(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, low: i64, message: &str) {
    if let Some(value) = object.int_at(&[field]).filter(|value| *value < low) {
        found.push(FieldError::invalid(path.child(field), value, message));
    }
}

/// A port, by number or by name.
pub(crate) fn port(found: &mut Found, port: Option<&Tree>, path: Path<'_>) {
    match port {
        Some(Tree::Str(text)) => invalid(found, path, text, name::port_name(text)),
        Some(Tree::Int(number)) => invalid_number(found, path, *number, name::port_number(*number)),
        _ => invalid_number(found, path, 0, name::port_number(0)),
    }
}

/// The port number at a field; nothing is 0.
pub(crate) fn port_in_range(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let number = object.int_at(&[field]).unwrap_or(0);
    invalid_number(found, path.child(field), number, name::port_number(number));
}

/// A percentage at a field must not be more than all.
pub(crate) fn not_above_all(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let value = object.str_at(&[field]);
    let above = value.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()).is_some_and(|part| part > 100);
    if above {
        found.push(FieldError::invalid(path.child(field), value, "must not be greater than 100%"));
    }
}

/// A field that must not change.
pub(crate) fn immutable(found: &mut Found, new: &Tree, old: &Tree, fields: &[&str]) {
    if !rules::same(new.at(fields), old.at(fields)) {
        let value = BadValue::from(new.at(fields));
        found.push(FieldError::invalid(fields.join("."), value, "field is immutable"));
    }
}

/// A count or a percentage.
pub(crate) fn count_or_percent(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    match object.get(field) {
        Some(Tree::Int(number)) if *number < 0 => {
            found.push(FieldError::invalid(path.child(field), *number, "must be greater than or equal to 0"));
        }
        Some(Tree::Str(text)) => invalid(found, path.child(field), text, name::percent(text)),
        _ => {}
    }
}

/// Whether a count or percentage is nothing.
pub(crate) fn is_nothing(value: Option<&Tree>) -> bool {
    match value {
        Some(Tree::Int(number)) => *number == 0,
        Some(Tree::Str(text)) => text.trim_end_matches('%').parse() == Ok(0),
        _ => false,
    }
}

/// The selector of a workload: present, not empty, and matching its own template.
pub(crate) fn workload_selector(found: &mut Found, object: &Tree, kind: &str) {
    let path = SPEC.child("selector");
    let Some(selector) = object.at(&["spec", "selector"]).filter(|selector| !selector.is_null()) else {
        found.push(FieldError::required(path, ""));
        return;
    };
    found.extend(label::validate(Some(selector), path));
    match Selector::from_object(Some(selector)) {
        Ok(selector_value) if selector_value.is_everything() => {
            let message = format!("empty selector is invalid for {kind}");
            found.push(FieldError::invalid(path, BadValue::from(selector), message));
        }
        Ok(selector) => matches_template(found, object, &selector),
        Err(_) => found.push(FieldError::invalid(path, BadValue::from(selector), "invalid label selector")),
    }
}

/// A selector must match the template whose pods it is to find.
pub(crate) fn matches_template(found: &mut Found, object: &Tree, selector: &Selector) {
    let labels = object.at(&["spec", "template", "metadata", "labels"]);
    if !selector.matches_labels(labels) {
        found.push(FieldError::invalid(
            "spec.template.metadata.labels",
            go_labels(labels),
            "`selector` does not match template `labels`",
        ));
    }
}

/// The number at a field must not be below zero, whether or not it is there; for status counts.
pub(crate) fn counts(found: &mut Found, object: &Tree, fields: &[&str], path: Path<'_>) {
    for field in fields {
        not_negative(found, object, field, path);
    }
}

/// What `status` counts must not be more than `whole`, which it also counts.
pub(crate) fn counts_within(found: &mut Found, status: &Tree, fields: &[&str], whole: &str, path: Path<'_>) {
    let limit = status.int_at(&[whole]).unwrap_or(0);
    for field in fields {
        if let Some(value) = status.int_at(&[field]).filter(|value| *value > limit) {
            let why = format!("cannot be greater than {path}.{whole}");
            found.push(FieldError::invalid(path.child(field), value, why));
        }
    }
}

/// The counts in the status of a workload: none below zero, those of `parts` within `replicas`.
pub(crate) fn replica_status(found: &mut Found, new: &Tree, old: &Tree, parts: &[&str]) {
    let path = Path::new("status");
    let status = new.get("status").unwrap_or(&Tree::Null);
    counts(found, status, &["replicas"], path);
    counts(found, status, parts, path);
    counts(found, status, &["observedGeneration", "collisionCount"], path);
    counts_within(found, status, parts, "replicas", path);
    if parts.contains(&"readyReplicas")
        && let Some(available) = status.int_at(&["availableReplicas"])
        && available > status.int_at(&["readyReplicas"]).unwrap_or(0)
    {
        let why = "cannot be greater than readyReplicas";
        found.push(FieldError::invalid(path.child("availableReplicas"), available, why));
    }
    not_decremented(found, new, old, "collisionCount");
}

/// What only grows must not have shrunk.
pub(crate) fn not_decremented(found: &mut Found, new: &Tree, old: &Tree, field: &str) {
    let count = |object: &Tree| object.int_at(&["status", field]).unwrap_or(0);
    if given(old.get("status").unwrap_or(&Tree::Null), field).is_some() && count(new) < count(old) {
        found.push(FieldError::invalid(format!("status.{field}"), count(new), "cannot be decremented"));
    }
}

/// Labels in Go's syntax, as upstream shows them: `map[string]string{"app":"web"}`.
pub(crate) fn go_labels(labels: Option<&Tree>) -> BadValue {
    let mut entries: Vec<String> = labels
        .and_then(Tree::as_map)
        .into_iter()
        .flat_map(Map::iter)
        .map(|(key, value)| {
            let quote = skiff_object::errors::quote;
            format!("{}:{}", quote(key.as_str()), quote(value.as_str().unwrap_or("")))
        })
        .collect();
    if entries.is_empty() {
        return BadValue::Bare("map[string]string(nil)".to_owned());
    }
    entries.sort_unstable();
    BadValue::Bare(format!("map[string]string{{{}}}", entries.join(", ")))
}
