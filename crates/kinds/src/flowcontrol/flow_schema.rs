//! `flowschemas` in `flowcontrol.apiserver.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Tree, name};

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill};

/// Which requests belong to which priority level.
pub(crate) struct FlowSchema(pub(crate) Facts);

impl Kind for FlowSchema {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        fill::number(fill::within(object, "spec"), "matchingPrecedence", 1_000);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let conditions = object.list_at(&["status", "conditions"]);
        let dangling =
            conditions.iter().find(|one| one.str_at(&["type"]) == "Dangling").map(|one| one.str_at(&["status"]));
        vec![
            cells::name(object),
            cells::text(object, &["spec", "priorityLevelConfiguration", "name"]),
            cells::number(object, &["spec", "matchingPrecedence"]),
            cells::text_or(object, &["spec", "distinguisherMethod", "type"], "<none>"),
            cells::age(object, now),
            dangling.unwrap_or("?").into(),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let precedence = spec.int_at(&["matchingPrecedence"]).unwrap_or(0);
        let path = SPEC.child("matchingPrecedence");
        if precedence <= 0 {
            found.push(FieldError::invalid(path, precedence, "must be a positive value"));
        }
        if precedence > PRECEDENCE_MAX {
            let why = format!("must not be greater than {PRECEDENCE_MAX}");
            found.push(FieldError::invalid(path, precedence, why));
        }
        if precedence == 1 && object.str_at(&["metadata", "name"]) != "exempt" {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            found.push(FieldError::invalid(path, precedence, why));
        }
        let level = spec.get("priorityLevelConfiguration").unwrap_or(&Tree::Null);
        let path = SPEC.child("priorityLevelConfiguration");
        if level.str_at(&["name"]).is_empty() {
            found.push(FieldError::required(path.child("name"), "must reference a priority level"));
        }
        checks::formed(&mut found, level, "name", path, name::dns1123_subdomain);
        checks::within(spec, "distinguisherMethod", SPEC, |method, path| {
            let ty = method.str_at(&["type"]);
            let known = ["ByNamespace", "ByUser"];
            if !known.contains(&ty) {
                found.push(FieldError::not_supported(path, BadValue::from(method), &known));
            }
        });
        checks::each(spec, "rules", SPEC, |one, path| rule(&mut found, one, path));
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        condition_types(&mut found, new);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("PriorityLevel", "string", "Where its requests wait."),
    Column::new("MatchingPrecedence", "integer", "When it is asked."),
    Column::new("DistinguisherMethod", "string", "What tells flows apart."),
    cells::AGE,
    Column::new("MissingPL", "string", "Whether the priority level is missing."),
];

/// The last to be asked.
const PRECEDENCE_MAX: i64 = 10_000;

const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const NON_RESOURCE_VERBS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// Each type of condition is there once, and has a name.
pub(crate) fn condition_types(found: &mut Found, object: &Tree) {
    let status = object.get("status").unwrap_or(&Tree::Null);
    let mut types = HashSet::new();
    checks::each(status, "conditions", Path::new("status"), |condition, path| {
        let ty = condition.str_at(&["type"]);
        if !types.insert(ty) {
            found.push(FieldError::duplicate(path.child("type"), ty));
        }
        checks::required(found, condition, "type", path);
    });
}

fn rule(found: &mut Found, rule: &Tree, path: Path<'_>) {
    if rule.list_at(&["subjects"]).is_empty() {
        found.push(FieldError::required(path.child("subjects"), "subjects must contain at least one value"));
    }
    checks::each(rule, "subjects", path, |one, path| subject(found, one, path));
    if ["resourceRules", "nonResourceRules"].iter().all(|list| rule.list_at(&[list]).is_empty()) {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        found.push(FieldError::required(path, why));
    }
    checks::each(rule, "resourceRules", path, |one, path| resource_rule(found, one, path));
    checks::each(rule, "nonResourceRules", path, |one, path| {
        verbs(found, one, &NON_RESOURCE_VERBS, path);
        let missing = "nonResourceURLs must contain at least one value";
        if wildcard_list(found, one, "nonResourceURLs", missing, "non-resource URLs", path) {
            checks::each_text(one, "nonResourceURLs", path, |url, path| {
                if let Some(why) = wrong_url(url) {
                    found.push(FieldError::invalid(path, url, why));
                }
            });
        }
    });
}

fn subject(found: &mut Found, subject: &Tree, path: Path<'_>) {
    const FIELDS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.str_at(&["kind"]);
    let Some((_, wanted)) = FIELDS.iter().find(|(known, _)| *known == kind) else {
        checks::only(found, subject, "kind", path, &FIELDS.map(|(known, _)| known));
        return;
    };
    for (other, field) in FIELDS {
        if field != *wanted && checks::given(subject, field).is_some() {
            let why = format!("{field} is forbidden when subject kind is not '{other}'");
            found.push(FieldError::forbidden(path.child(field), why));
        }
    }
    let Some(inner) = checks::given(subject, wanted) else {
        let why = format!("{wanted} is required when subject kind is '{kind}'");
        found.push(FieldError::required(path.child(wanted), why));
        return;
    };
    let path = path.child(wanted);
    if let Some(text) = checks::required(found, inner, "name", path)
        && kind == "ServiceAccount"
        && text != "*"
    {
        checks::invalid(found, path.child("name"), text, name::dns1123_subdomain(text));
    }
    if kind == "ServiceAccount" {
        if inner.str_at(&["namespace"]).is_empty() {
            let why = "must specify namespace for service account";
            found.push(FieldError::required(path.child("namespace"), why));
        }
        checks::formed(found, inner, "namespace", path, name::dns1123_label);
    }
}

fn resource_rule(found: &mut Found, rule: &Tree, path: Path<'_>) {
    verbs(found, rule, &VERBS, path);
    let missing = "resource rules must supply at least one api group";
    wildcard_list(found, rule, "apiGroups", missing, "api groups", path);
    let missing = "resource rules must supply at least one resource";
    wildcard_list(found, rule, "resources", missing, "resources", path);
    if rule.list_at(&["namespaces"]).is_empty() && rule.bool_at(&["clusterScope"]) == Some(true) {
        return;
    }
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    if wildcard_list(found, rule, "namespaces", missing, "namespaces", path) {
        checks::each_text(rule, "namespaces", path, |text, path| {
            if text != "*" {
                checks::invalid(found, path, text, name::dns1123_label(text));
            }
        });
    }
}

fn verbs(found: &mut Found, rule: &Tree, known: &[&str], path: Path<'_>) {
    let missing = "verbs must contain at least one value";
    if !wildcard_list(found, rule, "verbs", missing, "verbs", path) {
        return;
    }
    let unknown = |verb: &&Tree| verb.as_str().is_none_or(|verb| verb != "*" && !known.contains(&verb));
    if rule.list_at(&["verbs"]).iter().find(unknown).is_some() {
        found.push(FieldError::not_supported(path.child("verbs"), BadValue::from(rule.get("verbs")), known));
    }
}

/// A list must have something, and nothing beside `*`; gives whether that is so.
fn wildcard_list(found: &mut Found, rule: &Tree, field: &str, missing: &str, what: &str, path: Path<'_>) -> bool {
    let list = rule.list_at(&[field]);
    if list.is_empty() {
        found.push(FieldError::required(path.child(field), missing));
        return false;
    }
    if list.len() > 1 && list.iter().any(|one| one.as_str() == Some("*")) {
        let why = format!("if '*' is present, must not specify other {what}");
        found.push(FieldError::invalid(path.child(field), BadValue::from(rule.get(field)), why));
        return false;
    }
    true
}

fn wrong_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" | "*" => None,
        url if !url.starts_with('/') => Some("must start with slash"),
        url if url.contains(' ') => Some("must not contain white-space"),
        url if url.contains("//") => Some("must not contain double slash"),
        url if stars > 1 || (stars == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}
