//! Roles and role bindings.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::{Tree, name};

use super::{Found, each, invalid, only, required};
use crate::{fill, rules};

/// The API group of roles.
const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of a role.
pub(crate) fn policy_rules(found: &mut Found, object: &Tree, path: Path<'_>, namespaced: bool) {
    each(object, "rules", path, |rule, path| policy_rule(found, rule, path, namespaced));
}

fn policy_rule(found: &mut Found, rule: &Tree, path: Path<'_>, namespaced: bool) {
    let has = |field: &str| !rule.list_at(&[field]).is_empty();
    if !has("verbs") {
        found.push(FieldError::required(path.child("verbs"), "verbs must contain at least one value"));
    }
    if has("nonResourceURLs") {
        let value = || BadValue::from(rule.get("nonResourceURLs"));
        if namespaced {
            let why = "namespaced rules cannot apply to non-resource URLs";
            found.push(FieldError::invalid(path.child("nonResourceURLs"), value(), why));
        }
        if has("apiGroups") || has("resources") || has("resourceNames") {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            found.push(FieldError::invalid(path.child("nonResourceURLs"), value(), why));
        }
        return;
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

/// The selectors of the roles that a cluster role is the sum of.
pub(crate) fn aggregation(found: &mut Found, object: &Tree) {
    let Some(rule) = super::given(object, "aggregationRule") else { return };
    let path = Path::new("aggregationRule");
    if rule.list_at(&["clusterRoleSelectors"]).is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        found.push(FieldError::required(path.child("clusterRoleSelectors"), why));
    }
    each(rule, "clusterRoleSelectors", path, |selector, path| found.extend(label::validate(Some(selector), path)));
}

/// The group of a binding's role and of its subjects, where it is left out.
pub(crate) fn default_binding(object: &mut Tree) {
    fill::text(fill::within(object, "roleRef"), "apiGroup", GROUP);
    for subject in fill::items(object, &["subjects"]) {
        if matches!(subject.str_at(&["kind"]), "User" | "Group") {
            fill::text(subject, "apiGroup", GROUP);
        }
    }
}

/// The role, one of `kinds`, and the subjects of a role binding.
pub(crate) fn binding(object: &Tree, kinds: &[&str]) -> Found {
    let mut found = Found::new();
    let role = object.get("roleRef").unwrap_or(&Tree::Null);
    let path = Path::new("roleRef");
    only(&mut found, role, "apiGroup", path, &[GROUP]);
    only(&mut found, role, "kind", path, kinds);
    if let Some(text) = required(&mut found, role, "name", path) {
        invalid(&mut found, path.child("name"), text, name::path_segment(text));
    }
    let namespaced = kinds.len() > 1;
    each(object, "subjects", Path::root(), |one, path| subject(&mut found, one, namespaced, path));
    found
}

fn subject(found: &mut Found, subject: &Tree, namespaced: bool, path: Path<'_>) {
    let named = required(found, subject, "name", path);
    match subject.str_at(&["kind"]) {
        "ServiceAccount" => {
            if let Some(text) = named {
                invalid(found, path.child("name"), text, name::dns1123_subdomain(text));
            }
            only(found, subject, "apiGroup", path, &[""]);
            // In a namespace, the account's is the binding's when it does not say.
            if !namespaced && subject.str_at(&["namespace"]).is_empty() {
                found.push(FieldError::required(path.child("namespace"), ""));
            }
        }
        "User" | "Group" => only(found, subject, "apiGroup", path, &[GROUP]),
        _ => only(found, subject, "kind", path, &["ServiceAccount", "User", "Group"]),
    }
}

/// As [`binding`] for a change: another role would be another binding.
pub(crate) fn changed_binding(new: &Tree, old: &Tree, kinds: &[&str]) -> Found {
    let mut found = binding(new, kinds);
    if !rules::same(new.get("roleRef"), old.get("roleRef")) {
        let value = BadValue::from(new.get("roleRef"));
        found.push(FieldError::invalid("roleRef", value, "cannot change roleRef"));
    }
    found
}
