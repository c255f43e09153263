//! `resourcequotas` in `v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Map, Tree};

use crate::checks::{self, Found, SPEC, resources};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill};

/// What a namespace may use in total.
pub(crate) struct ResourceQuota(pub(crate) Facts);

impl Kind for ResourceQuota {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for path in [&["spec", "hard"], &["status", "hard"], &["status", "used"]] {
            fill::round_resources(object, path);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::quota(object, false), cells::quota(object, true), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        amounts(&mut found, spec, "hard", SPEC);
        scopes(&mut found, spec);
        selector(&mut found, spec);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let set = |object: &Tree| -> HashSet<String> {
            let scopes = object.list_at(&["spec", "scopes"]).iter();
            scopes.filter_map(|scope| scope.as_str().map(str::to_owned)).collect()
        };
        if set(new) != set(old) {
            let value = BadValue::from(new.at(&["spec", "scopes"]));
            found.push(FieldError::invalid("spec.scopes", value, "field is immutable"));
        }
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        for list in ["hard", "used"] {
            amounts(&mut found, status, list, Path::new("status"));
        }
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Request", "string", "What is requested of what may be."),
    Column::new("Limit", "string", "What is limited of what may be."),
    cells::AGE,
];

const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// What a scope that selects pods can bound beside their number.
const POD_COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn amounts(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    checks::entries(object, field, path, |resource, value, path| {
        resources::quota_resource_name(found, resource, path);
        if let Some(amount) = resources::quantity(Some(value)) {
            resources::amount(found, resource, amount, path);
        }
    });
}

/// Whether a scope is known, and whether it can bound a resource that quotas know.
fn scope_bounds(scope: &str, resource: &str) -> Option<bool> {
    let standard = resources::is_quota(resource);
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            Some(!standard || resource == "pods" || POD_COMPUTE.contains(&resource))
        }
        "BestEffort" => Some(!standard || resource == "pods"),
        "VolumeAttributesClass" => Some(!standard || matches!(resource, "persistentvolumeclaims" | "requests.storage")),
        _ => None,
    }
}

fn hard(spec: &Tree) -> impl Iterator<Item = &str> {
    spec.get("hard").and_then(Tree::as_map).into_iter().flat_map(Map::keys).map(skiff_object::Key::as_str)
}

fn scopes(found: &mut Found, spec: &Tree) {
    let scopes: Vec<&str> = spec.list_at(&["scopes"]).iter().filter_map(Tree::as_str).collect();
    let mut refuse = |why| {
        found.push(FieldError::invalid(SPEC.child("scopes"), BadValue::from(spec.get("scopes")), why));
    };
    for scope in &scopes {
        if scope_bounds(scope, "pods").is_none() {
            refuse("unsupported scope");
        }
        for _ in hard(spec).filter(|resource| scope_bounds(scope, resource) == Some(false)) {
            refuse("unsupported scope applied to resource");
        }
    }
    for pair in OPPOSITES {
        if pair.iter().all(|one| scopes.contains(one)) {
            refuse("conflicting scopes");
        }
    }
}

fn selector(found: &mut Found, spec: &Tree) {
    const EXISTS_ONLY: &str = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
        ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
        ResourceQuotaScopeCrossNamespacePodAffinity";
    let Some(selector) = checks::given(spec, "scopeSelector") else { return };
    let path = SPEC.child("scopeSelector");
    let path = path.child("matchExpressions");
    let whole = || BadValue::from(selector);
    let mut scopes = Vec::new();
    for one in selector.list_at(&["matchExpressions"]) {
        let [scope, operator] = ["scopeName", "operator"].map(|field| one.str_at(&[field]));
        if scope_bounds(scope, "pods").is_none() {
            found.push(FieldError::invalid(path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in hard(spec).filter(|resource| scope_bounds(scope, resource) == Some(false)) {
            found.push(FieldError::invalid(path, whole(), "unsupported scope applied to resource"));
        }
        let named = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if scope_bounds(scope, "pods").is_some() && !named && operator != "Exists" {
            found.push(FieldError::invalid(path.child("operator"), operator, EXISTS_ONLY));
        }
        let empty = one.list_at(&["values"]).is_empty();
        match operator {
            "In" | "NotIn" if empty => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                found.push(FieldError::required(path.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !empty => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                found.push(FieldError::invalid(path.child("values"), BadValue::from(one.get("values")), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => found.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        scopes.push(scope);
    }
    for pair in OPPOSITES {
        if pair.iter().all(|one| scopes.contains(one)) {
            found.push(FieldError::invalid(path, whole(), "conflicting scopes"));
        }
    }
}
