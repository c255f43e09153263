//! Resource names, amounts, and lists of them.

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::quantity::Quantity;
use skiff_object::{Tree, name};

use super::{Found, entries, invalid};

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// The amount, if it is one.
pub(crate) fn quantity(value: Option<&Tree>) -> Option<Quantity> {
    match value? {
        Tree::Str(text) => text.parse().ok(),
        Tree::Int(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Pages of their own size.
pub(crate) fn is_hugepages(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// A resource that Kubernetes itself knows.
pub(crate) fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

/// A resource of somebody else, like `example.com/gpu`.
pub(crate) fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && name::qualified_name(&format!("requests.{resource}")).is_empty()
}

/// Whether requests and limits may differ.
pub(crate) fn allows_overcommit(resource: &str) -> bool {
    is_native(resource) && !is_hugepages(resource)
}

const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

const QUOTA_COMPUTE: [&str; 7] = [
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.storage",
];

/// A resource that a quota knows by name.
pub(crate) fn is_quota(resource: &str) -> bool {
    COUNTED.contains(&resource)
        || COMPUTE.contains(&resource)
        || QUOTA_COMPUTE.contains(&resource)
        || is_hugepages(resource)
        || resource.starts_with("requests.hugepages-")
}

/// A resource name as such.
pub(crate) fn resource_name(found: &mut Found, resource: &str, path: Path<'_>) {
    let wrong = name::qualified_name(resource);
    if !wrong.is_empty() {
        return invalid(found, path, resource, wrong);
    }
    if !resource.contains('/') && !is_quota(resource) && resource != "storage" {
        let why = "must be a standard resource type or fully qualified";
        found.push(FieldError::invalid(path, resource, why));
    }
}

/// A resource name that a container can ask for.
pub(crate) fn container_resource_name(found: &mut Found, resource: &str, path: Path<'_>) {
    resource_name(found, resource, path);
    if !resource.contains('/') {
        if !COMPUTE.contains(&resource) && !is_hugepages(resource) {
            let why = "must be a standard resource for containers";
            found.push(FieldError::invalid(path, resource, why));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        let why = "doesn't follow extended resource name standard";
        found.push(FieldError::invalid(path, resource, why));
    }
}

/// A resource name that a quota can bound.
pub(crate) fn quota_resource_name(found: &mut Found, resource: &str, path: Path<'_>) {
    resource_name(found, resource, path);
    if !resource.contains('/') && !is_quota(resource) {
        found.push(FieldError::invalid(path, resource, "must be a standard resource for quota"));
    }
}

/// An amount is not below zero.
pub(crate) fn not_negative(found: &mut Found, amount: Quantity, path: Path<'_>) {
    if amount.is_negative() {
        found.push(FieldError::invalid(path, amount.to_string(), NOT_NEGATIVE));
    }
}

/// An amount of a resource: not below zero, and whole when it is counted.
pub(crate) fn amount(found: &mut Found, resource: &str, amount: Quantity, path: Path<'_>) {
    not_negative(found, amount, path);
    if (COUNTED.contains(&resource) || is_extended(resource)) && !amount.is_whole() {
        found.push(FieldError::invalid(path, amount.to_string(), "must be an integer"));
    }
}

/// How strict [`requirements`] is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Strictness {
    /// Huge pages need not come in whole pages: objects from before the rule have them.
    pub(crate) broken_pages: bool,
}

/// Limits and requests of a container: known names, no negative amounts, requests within limits.
pub(crate) fn requirements(found: &mut Found, resources: &Tree, strictness: Strictness, path: Path<'_>) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let mut pages = false;
    for list in ["limits", "requests"] {
        entries(resources, list, path, |resource, value, path| {
            container_resource_name(found, resource, path);
            let Some(value) = quantity(Some(value)) else { return };
            amount(found, resource, value, path);
            if is_hugepages(resource) {
                pages = true;
                if !strictness.broken_pages && !whole_pages(resource, value) {
                    let why = format!("{value} is not positive integer multiple of {resource}");
                    found.push(FieldError::invalid(path, value.to_string(), why));
                }
            }
            if list == "requests" {
                against_limit(found, resource, value, resources, requests, limits);
            }
        });
    }
    let has = |resource: &str| ["limits", "requests"].iter().any(|list| resources.at(&[list, resource]).is_some());
    if pages && !has("cpu") && !has("memory") {
        found.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn against_limit(
    found: &mut Found,
    resource: &str,
    request: Quantity,
    resources: &Tree,
    path: Path<'_>,
    limits: Path<'_>,
) {
    match quantity(resources.at(&["limits", resource])) {
        Some(limit) if request != limit && !allows_overcommit(resource) => {
            let why = format!("must be equal to {resource} limit of {limit}");
            found.push(FieldError::invalid(path, request.to_string(), why));
        }
        Some(limit) if request > limit => {
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            found.push(FieldError::invalid(path, request.to_string(), why));
        }
        Some(_) => {}
        None if !allows_overcommit(resource) => {
            found.push(FieldError::required(limits, "Limit must be set for non overcommitable resources"));
        }
        None => {}
    }
}

/// Whether huge pages come in whole pages; a name that says no size is judged elsewhere.
pub(crate) fn whole_pages(resource: &str, amount: Quantity) -> bool {
    let size = resource.strip_prefix("hugepages-").and_then(|size| size.parse::<Quantity>().ok());
    size.filter(|size| size.nanos() > 0).is_none_or(|size| amount.nanos() >= 0 && amount.nanos() % size.nanos() == 0)
}
