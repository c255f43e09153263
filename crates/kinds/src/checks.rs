//! Checks that many kinds share, with upstream's paths and words.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label::{self, Selector};
use skiff_object::{Map, Tree, name};

use crate::rules;

/// What is wrong so far.
pub(crate) type Found = Vec<FieldError>;

/// `metadata`, `spec`: where most checks begin.
pub(crate) const SPEC: Path<'static> = Path::new("spec");

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

/// The keys and the size of a ConfigMap's or Secret's data.
pub(crate) fn data(found: &mut Found, object: &Tree, fields: &[&str], size_path: &str) {
    const BYTES_MAX: usize = 1_024 * 1_024;
    let mut bytes = 0;
    for field in fields {
        let path = Path::new(field);
        for (key, value) in object.get(field).and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            let key = key.as_str();
            invalid(found, path.key(key), key, name::config_map_key(key));
            let text = value.as_str().unwrap_or("");
            // What is base64 counts as what it stands for.
            bytes += if *field == "data" && fields.len() > 1 { text.len() } else { text.len() / 4 * 3 };
        }
    }
    if bytes > BYTES_MAX {
        found.push(FieldError::too_long(size_path, BYTES_MAX));
    }
}

/// What an immutable ConfigMap or Secret must keep.
pub(crate) fn kept_data(found: &mut Found, new: &Tree, old: &Tree, fields: &[&str]) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old.bool_at(&["immutable"]) != Some(true) {
        return;
    }
    if new.bool_at(&["immutable"]) != Some(true) {
        found.push(FieldError::forbidden("immutable", WHY));
    }
    for field in fields {
        if !rules::same(new.get(field), old.get(field)) {
            found.push(FieldError::forbidden(field, WHY));
        }
    }
}

/// The rules of a role.
pub(crate) fn policy_rules(found: &mut Found, object: &Tree, namespaced: bool) {
    let rules_path = Path::new("rules");
    for (index, rule) in object.list_at(&["rules"]).iter().enumerate() {
        let path = rules_path.index(index);
        let has = |field: &str| !rule.list_at(&[field]).is_empty();
        if !has("verbs") {
            found.push(FieldError::required(path.child("verbs"), "verbs must contain at least one value"));
        }
        if has("nonResourceURLs") {
            let value = || BadValue::from(rule.get("nonResourceURLs"));
            if namespaced {
                found.push(FieldError::invalid(
                    path.child("nonResourceURLs"),
                    value(),
                    "namespaced rules cannot apply to non-resource URLs",
                ));
            } else if has("apiGroups") || has("resources") || has("resourceNames") {
                found.push(FieldError::invalid(
                    path.child("nonResourceURLs"),
                    value(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                ));
            }
            continue;
        }
        if !has("apiGroups") {
            let why = "resource rules must supply at least one api group";
            found.push(FieldError::required(path.child("apiGroups"), why));
        }
        if !has("resources") {
            let why = "resource rules must supply at least one resource";
            found.push(FieldError::required(path.child("resources"), why));
        }
    }
}

/// The role and the subjects of a role binding.
pub(crate) fn role_binding(found: &mut Found, object: &Tree, kinds: &[&str]) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = object.get("roleRef").unwrap_or(&Tree::Null);
    let path = Path::new("roleRef");
    if role.str_at(&["apiGroup"]) != GROUP {
        found.push(FieldError::not_supported(path.child("apiGroup"), role.str_at(&["apiGroup"]), &[GROUP]));
    }
    if !kinds.contains(&role.str_at(&["kind"])) {
        found.push(FieldError::not_supported(path.child("kind"), role.str_at(&["kind"]), kinds));
    }
    if let Some(text) = required(found, role, "name", path) {
        invalid(found, path.child("name"), text, name::path_segment(text));
    }
    let subjects = Path::new("subjects");
    for (index, subject) in object.list_at(&["subjects"]).iter().enumerate() {
        let path = subjects.index(index);
        let named = required(found, subject, "name", path);
        let group = subject.str_at(&["apiGroup"]);
        let wanted = match subject.str_at(&["kind"]) {
            "ServiceAccount" => {
                if let Some(text) = named {
                    invalid(found, path.child("name"), text, name::dns1123_subdomain(text));
                }
                if subject.str_at(&["namespace"]).is_empty() {
                    found.push(FieldError::required(path.child("namespace"), ""));
                }
                ""
            }
            "User" | "Group" => GROUP,
            other => {
                let known = ["ServiceAccount", "User", "Group"];
                found.push(FieldError::not_supported(path.child("kind"), other, &known));
                continue;
            }
        };
        if group != wanted {
            found.push(FieldError::not_supported(path.child("apiGroup"), group, &[wanted]));
        }
    }
}

/// The webhooks of an admission configuration.
pub(crate) fn webhooks(found: &mut Found, object: &Tree) {
    let list = Path::new("webhooks");
    let mut names = std::collections::HashSet::new();
    for (index, webhook) in object.list_at(&["webhooks"]).iter().enumerate() {
        let path = list.index(index);
        if let Some(text) = required(found, webhook, "name", path) {
            let wrong = name::dns1123_subdomain(text);
            if !wrong.is_empty() {
                found.push(FieldError::invalid(path.child("name"), text, wrong.join(",")));
            } else if text.split('.').count() < 3 {
                let why = "should be a domain with at least three segments separated by dots";
                found.push(FieldError::invalid(path.child("name"), text, why));
            }
            if !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
        }
        let versions = webhook.list_at(&["admissionReviewVersions"]);
        if versions.is_empty() {
            let why = "must specify one of v1, v1beta1";
            found.push(FieldError::required(path.child("admissionReviewVersions"), why));
        } else if !versions.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1"))) {
            let why = "must include at least one of v1, v1beta1";
            let value = BadValue::from(webhook.get("admissionReviewVersions"));
            found.push(FieldError::invalid(path.child("admissionReviewVersions"), value, why));
        }
        match webhook.str_at(&["sideEffects"]) {
            "" => {
                let why = "must specify one of None, NoneOnDryRun";
                found.push(FieldError::required(path.child("sideEffects"), why));
            }
            _ => one_of(found, webhook, "sideEffects", path, &["None", "NoneOnDryRun"]),
        }
        maybe_one_of(found, webhook, "failurePolicy", path, &["Fail", "Ignore"]);
        maybe_one_of(found, webhook, "matchPolicy", path, &["Equivalent", "Exact"]);
        maybe_one_of(found, webhook, "reinvocationPolicy", path, &["IfNeeded", "Never"]);
        if let Some(seconds) = webhook.int_at(&["timeoutSeconds"]).filter(|seconds| !(1..=30).contains(seconds)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            found.push(FieldError::invalid(path.child("timeoutSeconds"), seconds, why));
        }
        for field in ["namespaceSelector", "objectSelector"] {
            found.extend(label::validate(webhook.get(field), path.child(field)));
        }
        webhook_client(found, webhook, path.child("clientConfig"));
    }
}

fn webhook_client(found: &mut Found, webhook: &Tree, path: Path<'_>) {
    let url = webhook.str_at(&["clientConfig", "url"]);
    let service = webhook.at(&["clientConfig", "service"]).filter(|service| !service.is_null());
    match (url, service) {
        ("", Some(service)) => {
            for field in ["name", "namespace"] {
                if service.str_at(&[field]).is_empty() {
                    let why = format!("service {field} is required");
                    found.push(FieldError::required(path.child("service").child(field), why));
                }
            }
        }
        ("", None) => {
            found.push(FieldError::required(path, "exactly one of url or service is required"));
        }
        (_, Some(_)) => {
            found.push(FieldError::required(path.child("url"), "exactly one of url or service is required"));
        }
        (url, None) if !url.starts_with("https://") => {
            let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            found.push(FieldError::invalid(path.child("url"), url, why));
        }
        _ => {}
    }
}
