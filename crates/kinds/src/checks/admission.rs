//! Webhooks, rules, and admission policies.

use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::{Tree, name};

use super::{Found, at_most, distinct, each, each_text, given, invalid, needed, only, only_if_given, required, within};
use crate::fill;

/// How many conditions a webhook or a policy may have.
const MATCH_CONDITIONS_MAX: usize = 64;
/// The versions of `AdmissionReview` there are.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const WILDCARD: &str = "*";

/// Fills in what the webhooks of a configuration leave out.
pub(crate) fn default_webhooks(object: &mut Tree, mutating: bool) {
    for webhook in fill::items(object, &["webhooks"]) {
        fill::absent(webhook, "failurePolicy", "Fail");
        fill::absent(webhook, "matchPolicy", "Equivalent");
        fill::absent(webhook, "namespaceSelector", Tree::map());
        fill::absent(webhook, "objectSelector", Tree::map());
        fill::absent(webhook, "timeoutSeconds", 10);
        if mutating {
            fill::absent(webhook, "reinvocationPolicy", "Never");
        }
        fill::each(webhook, &["clientConfig", "service"], |service| fill::absent(service, "port", 443));
        for rule in fill::items(webhook, &["rules"]) {
            fill::absent(rule, "scope", "*");
        }
    }
}

/// What an old configuration gets away with because it was accepted once.
#[derive(Clone, Copy, Default)]
struct Tolerance {
    side_effects: bool,
    unknown_versions: bool,
    same_names: bool,
}

/// The webhooks of an admission configuration.
pub(crate) fn webhooks(object: &Tree) -> Found {
    judge_webhooks(object, Tolerance::default())
}

/// As [`webhooks`] for a change: what the old one had wrong, the new one may have.
pub(crate) fn changed_webhooks(new: &Tree, old: &Tree) -> Found {
    let old = old.list_at(&["webhooks"]);
    let names: HashSet<&str> = old.iter().map(|webhook| webhook.str_at(&["name"])).collect();
    let tolerance = Tolerance {
        side_effects: old.iter().any(|webhook| !matches!(webhook.str_at(&["sideEffects"]), "None" | "NoneOnDryRun")),
        unknown_versions: old.iter().any(|webhook| !knows_a_version(webhook)),
        same_names: names.len() < old.len(),
    };
    judge_webhooks(new, tolerance)
}

fn judge_webhooks(object: &Tree, tolerance: Tolerance) -> Found {
    let mut found = Found::new();
    let mut names = HashSet::new();
    each(object, "webhooks", Path::root(), |one, path| {
        webhook(&mut found, one, tolerance, path);
        review_versions(&mut found, one, tolerance, path);
        let text = one.str_at(&["name"]);
        if !text.is_empty() && !names.insert(text) && !tolerance.same_names {
            found.push(FieldError::duplicate(path.child("name"), text));
        }
    });
    found
}

fn webhook(found: &mut Found, webhook: &Tree, tolerance: Tolerance, path: Path<'_>) {
    needed(found, webhook, "name", path, name::fully_qualified_name);
    each(webhook, "rules", path, |one, path| rule_with_operations(found, one, path));
    only_if_given(found, webhook, "failurePolicy", path, &["Fail", "Ignore"]);
    only_if_given(found, webhook, "matchPolicy", path, &["Equivalent", "Exact"]);
    let side_effects: &[&str] =
        if tolerance.side_effects { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { &["None", "NoneOnDryRun"] };
    if given(webhook, "sideEffects").is_some() {
        only(found, webhook, "sideEffects", path, side_effects);
    } else {
        let why = format!("must specify one of {}", side_effects.join(", "));
        found.push(FieldError::required(path.child("sideEffects"), why));
    }
    if let Some(seconds) = webhook.int_at(&["timeoutSeconds"]).filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        found.push(FieldError::invalid(path.child("timeoutSeconds"), seconds, why));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        found.extend(label::validate(webhook.get(field), path.child(field)));
    }
    client_config(found, webhook.get("clientConfig").unwrap_or(&Tree::Null), path.child("clientConfig"));
    only_if_given(found, webhook, "reinvocationPolicy", path, &["IfNeeded", "Never"]);
    match_conditions(found, webhook, path);
}

fn knows_a_version(webhook: &Tree) -> bool {
    let versions = webhook.list_at(&["admissionReviewVersions"]);
    versions.iter().filter_map(Tree::as_str).any(|version| REVIEW_VERSIONS.contains(&version))
}

fn review_versions(found: &mut Found, webhook: &Tree, tolerance: Tolerance, path: Path<'_>) {
    const FIELD: &str = "admissionReviewVersions";
    let versions = webhook.list_at(&[FIELD]);
    if versions.is_empty() {
        let why = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        found.push(FieldError::required(path.child(FIELD), why));
        return;
    }
    let mut seen = HashSet::new();
    each_text(webhook, FIELD, path, |version, path| {
        if !seen.insert(version) {
            found.push(FieldError::duplicate(path, version));
        }
        invalid(found, path, version, name::dns1035_label(version));
    });
    if !knows_a_version(webhook) && !tolerance.unknown_versions {
        let why = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        found.push(FieldError::invalid(path.child(FIELD), BadValue::from(webhook.get(FIELD)), why));
    }
}

/// How a webhook is reached: a URL or a service.
pub(crate) fn client_config(found: &mut Found, config: &Tree, path: Path<'_>) {
    match (given(config, "url"), given(config, "service")) {
        (None, None) | (Some(_), Some(_)) => {
            found.push(FieldError::required(path, "exactly one of url or service is required"));
        }
        (Some(url), None) => webhook_url(found, url.as_str().unwrap_or(""), path.child("url")),
        (None, Some(service)) => webhook_service(found, service, path.child("service")),
    }
}

fn webhook_url(found: &mut Found, url: &str, path: Path<'_>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let cut = |text: &str, at: char| {
        let (before, after) = text.split_once(at).unwrap_or((text, ""));
        (before.to_owned(), after.to_owned())
    };
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(&rest, '?');
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or("") };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "https" {
        found.push(FieldError::invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    if host.is_empty() {
        found.push(FieldError::invalid(path, host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        found.push(FieldError::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        found.push(FieldError::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        found.push(FieldError::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

fn webhook_service(found: &mut Found, service: &Tree, path: Path<'_>) {
    for field in ["name", "namespace"] {
        if service.str_at(&[field]).is_empty() {
            found.push(FieldError::required(path.child(field), format!("service {field} is required")));
        }
    }
    let port = service.int_at(&["port"]).unwrap_or(0);
    let wrong = name::port_number(port);
    if !wrong.is_empty() {
        let why = format!("port is not valid: {}", wrong.join(","));
        found.push(FieldError::invalid(path.child("port"), port, why));
    }
    let text = service.str_at(&["path"]);
    let path = path.child("path");
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        found.push(FieldError::invalid(path, text, "segment[0] may not be empty"));
        return;
    }
    let Some(steps) = text.strip_prefix('/') else {
        found.push(FieldError::invalid(path, text, "must start with a '/'"));
        return;
    };
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            found.push(FieldError::invalid(path, text, format!("segment[{index}] may not be empty")));
            continue;
        }
        let wrong = name::dns1123_subdomain(step).into_iter().map(|why| format!("segment[{index}]: {why}")).collect();
        invalid(found, path, text, wrong);
    }
}

/// The CEL conditions of a webhook or a policy, without compiling them.
pub(crate) fn match_conditions(found: &mut Found, object: &Tree, path: Path<'_>) {
    at_most(found, object, "matchConditions", path, MATCH_CONDITIONS_MAX);
    let mut names = HashSet::new();
    each(object, "matchConditions", path, |condition, path| {
        if condition.str_at(&["expression"]).trim().is_empty() {
            found.push(FieldError::required(path.child("expression"), ""));
        }
        needed(found, condition, "name", path, name::qualified_name);
        let text = condition.str_at(&["name"]);
        if !text.is_empty() && !names.insert(text) {
            found.push(FieldError::duplicate(path.child("name"), text));
        }
    });
}

/// Which requests something applies to.
fn rule_with_operations(found: &mut Found, rule: &Tree, path: Path<'_>) {
    wildcard_list(found, rule, "operations", "operations", path);
    each_text(rule, "operations", path, |operation, path| {
        let known = [WILDCARD, "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !known.contains(&operation) {
            found.push(FieldError::not_supported(path, operation, &known));
        }
    });
    wildcard_list(found, rule, "apiGroups", "API groups", path);
    wildcard_list(found, rule, "apiVersions", "API versions", path);
    each_text(rule, "apiVersions", path, |version, path| {
        if version.is_empty() {
            found.push(FieldError::required(path, ""));
        }
    });
    rule_resources(found, rule, path);
    only_if_given(found, rule, "scope", path, &[WILDCARD, "Cluster", "Namespaced"]);
}

fn wildcard_list(found: &mut Found, rule: &Tree, field: &str, what: &str, path: Path<'_>) {
    let list = rule.list_at(&[field]);
    if list.is_empty() {
        found.push(FieldError::required(path.child(field), ""));
    }
    if list.len() > 1 && list.iter().any(|one| one.as_str() == Some(WILDCARD)) {
        let why = format!("if '*' is present, must not specify other {what}");
        found.push(FieldError::invalid(path.child(field), BadValue::from(rule.get(field)), why));
    }
}

fn rule_resources(found: &mut Found, rule: &Tree, path: Path<'_>) {
    let list = rule.list_at(&["resources"]);
    if list.is_empty() {
        found.push(FieldError::required(path.child("resources"), ""));
    }
    let (mut everything, mut every_resource, mut plain) = (false, false, false);
    let mut all_of: HashSet<&str> = HashSet::new();
    let mut of_all: HashSet<&str> = HashSet::new();
    each_text(rule, "resources", path, |text, path| {
        everything |= text == "*/*";
        every_resource |= text == WILDCARD;
        let Some((resource, subresource)) = text.split_once('/') else {
            if text.is_empty() {
                found.push(FieldError::required(path, ""));
            }
            plain |= !text.is_empty() && text != WILDCARD;
            return;
        };
        if all_of.contains(resource) {
            let why = format!("if '{resource}/*' is present, must not specify {text}");
            found.push(FieldError::invalid(path, text, why));
        }
        if of_all.contains(subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {text}");
            found.push(FieldError::invalid(path, text, why));
        }
        if subresource == WILDCARD {
            all_of.insert(resource);
        }
        if resource == WILDCARD {
            of_all.insert(subresource);
        }
    });
    let mut refuse = |why| {
        found.push(FieldError::invalid(path.child("resources"), BadValue::from(rule.get("resources")), why));
    };
    if list.len() > 1 && everything {
        refuse("if '*/*' is present, must not specify other resources");
    }
    if every_resource && plain {
        refuse("if '*' is present, must not specify other resources without subresources");
    }
}

/// What a policy matches.
pub(crate) fn match_resources(found: &mut Found, resources: &Tree, path: Path<'_>) {
    if given(resources, "matchPolicy").is_none() {
        found.push(FieldError::required(path.child("matchPolicy"), ""));
    } else {
        only(found, resources, "matchPolicy", path, &["Equivalent", "Exact"]);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        match given(resources, field) {
            None => found.push(FieldError::required(path.child(field), "")),
            selector => found.extend(label::validate(selector, path.child(field))),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        each(resources, list, path, |rule, path| {
            each_text(rule, "resourceNames", path, |text, path| invalid(found, path, text, name::path_segment(text)));
            distinct(found, rule, "resourceNames", path);
            rule_with_operations(found, rule, path);
        });
    }
}

/// What the two kinds of policies have in common.
pub(crate) fn policy(found: &mut Found, spec: &Tree, path: Path<'_>) {
    required_choice(found, spec, "failurePolicy", path, &["Fail", "Ignore"]);
    within(spec, "paramKind", path, |kind, path| param_kind(found, kind, path));
    match given(spec, "matchConstraints") {
        None => found.push(FieldError::required(path.child("matchConstraints"), "")),
        Some(constraints) => {
            let path = path.child("matchConstraints");
            match_resources(found, constraints, path);
            if constraints.list_at(&["resourceRules"]).is_empty() {
                found.push(FieldError::required(path.child("resourceRules"), ""));
            }
        }
    }
    match_conditions(found, spec, path);
    let mut names = HashSet::new();
    each(spec, "variables", path, |variable, path| {
        if let Some(text) = required(found, variable, "name", path) {
            if !name::c_identifier(text).is_empty() {
                found.push(FieldError::invalid(path.child("name"), text, "name is not a valid CEL identifier"));
            }
            if !names.insert(text) {
                found.push(FieldError::duplicate(path.child("name"), text));
            }
        }
        expression(found, variable, "expression", path);
    });
}

/// Text in CEL must be there.
pub(crate) fn expression(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    if object.str_at(&[field]).trim().is_empty() {
        found.push(FieldError::required(path.child(field), format!("{field} is not specified")));
    }
}

/// As [`only`], but what is absent is required.
fn required_choice(found: &mut Found, object: &Tree, field: &str, path: Path<'_>, supported: &[&str]) {
    if given(object, field).is_none() {
        found.push(FieldError::required(path.child(field), ""));
    } else {
        only(found, object, field, path, supported);
    }
}

fn param_kind(found: &mut Found, kind: &Tree, path: Path<'_>) {
    if let Some(text) = required(found, kind, "apiVersion", path) {
        let path = path.child("apiVersion");
        let (group, version) = text.rsplit_once('/').unwrap_or(("", text));
        if group.contains('/') {
            found.push(FieldError::invalid(path, text, format!("unexpected GroupVersion string: {text}")));
        } else {
            let wrong = if group.is_empty() { Vec::new() } else { name::dns1123_subdomain(group) };
            if !wrong.is_empty() {
                found.push(FieldError::invalid(path, group, wrong.join(",")));
            }
            let wrong = name::dns1035_label(version);
            if version.is_empty() {
                found.push(FieldError::invalid(path, text, "version must be specified"));
            } else if !wrong.is_empty() {
                found.push(FieldError::invalid(path, version, wrong.join(",")));
            }
        }
    }
    if let Some(text) = required(found, kind, "kind", path) {
        let wrong = name::dns1035_label(&text.to_lowercase());
        if !wrong.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            found.push(FieldError::invalid(path.child("kind"), text, why));
        }
    }
}

/// What the two kinds of bindings have in common.
pub(crate) fn policy_binding(found: &mut Found, spec: &Tree, path: Path<'_>) {
    needed(found, spec, "policyName", path, name::dns1123_subdomain);
    within(spec, "paramRef", path, |param, path| param_ref(found, param, path));
    within(spec, "matchResources", path, |resources, path| match_resources(found, resources, path));
}

fn param_ref(found: &mut Found, param: &Tree, path: Path<'_>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let text = param.str_at(&["name"]);
    let selector = given(param, "selector");
    if !text.is_empty() {
        invalid(found, path.child("name"), text, name::path_segment(text));
        if selector.is_some() {
            found.push(FieldError::forbidden(path.child("name"), EXCLUSIVE));
        }
    }
    if selector.is_some() {
        found.extend(label::validate(selector, path.child("selector")));
        if !text.is_empty() {
            found.push(FieldError::forbidden(path.child("selector"), EXCLUSIVE));
        }
    }
    if text.is_empty() && selector.is_none() {
        found.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    required_choice(found, param, "parameterNotFoundAction", path, &["Deny", "Allow"]);
}
