//! Claims for devices: requests, constraints, configuration and allocations.

use std::collections::{HashMap, HashSet};

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::{Found, at_most, each, each_text, given, invalid, needed, not_longer, one_of, only, required, within};
use crate::pod_spec;

/// How many requests, constraints, configurations or selectors there may be.
const ITEMS_MAX: usize = 32;
/// How many alternatives a request may have.
const ALTERNATIVES_MAX: usize = 8;
/// How many tolerations or taints.
const TOLERATIONS_MAX: usize = 16;
/// How long an expression or the parameters of a driver may be.
const TEXT_BYTES_MAX: usize = 10 * 1_024;
/// How long the name of a driver may be.
const DRIVER_BYTES_MAX: usize = 63;
/// How long the name of a pool may be.
const POOL_BYTES_MAX: usize = 253;
/// How many conditions binding may wait for.
const BINDING_CONDITIONS_MAX: usize = 4;

/// The requests of a claim, with the alternatives of each.
pub(crate) type Requests<'t> = HashMap<&'t str, HashSet<&'t str>>;

/// Which requests a claim makes.
pub(crate) fn requests(claim: &Tree) -> Requests<'_> {
    let mut requests = Requests::new();
    for request in claim.list_at(&["devices", "requests"]) {
        let alternatives = request.list_at(&["firstAvailable"]).iter().map(|one| one.str_at(&["name"])).collect();
        requests.insert(request.str_at(&["name"]), alternatives);
    }
    requests
}

/// The spec of a claim.
pub(crate) fn claim(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let requests = requests(spec);
    let Some(devices) = given(spec, "devices") else { return };
    let path = path.child("devices");
    unique(found, devices, "requests", ITEMS_MAX, path, "name", request);
    at_most(found, devices, "constraints", path, ITEMS_MAX);
    each(devices, "constraints", path, |one, path| constraint(found, one, &requests, path));
    at_most(found, devices, "config", path, ITEMS_MAX);
    each(devices, "config", path, |config, path| {
        request_names(found, config, &requests, path);
        configuration(found, config, path);
    });
}

/// A list whose items differ in a field and that has at most `max` of them.
pub(crate) fn unique<'t>(
    found: &mut Found,
    object: &'t Tree,
    field: &str,
    max: usize,
    path: Path<'_>,
    key: &str,
    mut judge: impl FnMut(&mut Found, &'t Tree, Path<'_>),
) {
    at_most(found, object, field, path, max);
    let mut keys = HashSet::new();
    each(object, field, path, |item, path| {
        judge(found, item, path);
        let value = if key.is_empty() { item.as_str().unwrap_or("") } else { item.str_at(&[key]) };
        if !keys.insert(value) {
            let shown = BadValue::from(value);
            found.push(FieldError::duplicate(path, shown));
        }
    });
}

fn request(found: &mut Found, request: &Tree, path: Path<'_>) {
    super::shaped(found, request, "name", path, name::dns1123_label);
    let alternatives = !request.list_at(&["firstAvailable"]).is_empty();
    match (given(request, "exactly"), alternatives) {
        (None, false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required";
            found.push(FieldError::required(path, why));
        }
        (Some(_), true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            found.push(FieldError::invalid(path, BadValue::Null, why));
        }
        (None, true) => {
            unique(found, request, "firstAvailable", ALTERNATIVES_MAX, path, "name", |found, one, path| {
                super::shaped(found, one, "name", path, name::dns1123_label);
                wanted(found, one, path);
            });
        }
        (Some(exactly), false) => wanted(found, exactly, path.child("exactly")),
    }
}

/// Which devices a request is for, and how many.
fn wanted(found: &mut Found, request: &Tree, path: Path<'_>) {
    needed(found, request, "deviceClassName", path, name::dns1123_subdomain);
    selectors(found, request, path);
    let mode = request.str_at(&["allocationMode"]);
    let count = request.int_at(&["count"]).unwrap_or(0);
    match mode {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            found.push(FieldError::invalid(path.child("count"), count, why));
        }
        "ExactCount" if count <= 0 => {
            found.push(FieldError::invalid(path.child("count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        _ => only(found, request, "allocationMode", path, &["All", "ExactCount"]),
    }
    at_most(found, request, "tolerations", path, TOLERATIONS_MAX);
    each(request, "tolerations", path, |one, path| toleration(found, one, path));
}

/// The CEL selectors of a request or a class, without compiling them.
pub(crate) fn selectors(found: &mut Found, object: &Tree, path: Path<'_>) {
    at_most(found, object, "selectors", path, ITEMS_MAX);
    each(object, "selectors", path, |selector, path| match given(selector, "cel") {
        None => found.push(FieldError::required(path.child("cel"), "")),
        Some(cel) => not_longer(found, cel, "expression", path.child("cel"), TEXT_BYTES_MAX),
    });
}

fn constraint(found: &mut Found, constraint: &Tree, requests: &Requests<'_>, path: Path<'_>) {
    request_names(found, constraint, requests, path);
    if given(constraint, "matchAttribute").is_some() {
        attribute_name(found, constraint, "matchAttribute", path);
    } else if given(constraint, "distinctAttribute").is_some() {
        attribute_name(found, constraint, "distinctAttribute", path);
    } else {
        let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        found.push(FieldError::required(path, why));
    }
}

/// An attribute with its domain.
fn attribute_name(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let Some(text) = required(found, object, field, path) else { return };
    let path = path.child(field);
    if !text.contains('/') {
        found.push(FieldError::invalid(path, text, "must include a domain"));
    }
    qualified(found, text, path);
}

/// The name of an attribute or a capacity: an identifier, maybe with a domain before it.
pub(crate) fn qualified(found: &mut Found, text: &str, path: Path<'_>) {
    const ID_BYTES_MAX: usize = 32;
    if text.is_empty() {
        found.push(FieldError::required(path, "name required"));
        return;
    }
    let (domain, id) = match text.split_once('/') {
        Some((domain, id)) => (Some(domain), id),
        None => (None, text),
    };
    match domain {
        Some("") => found.push(FieldError::required(path, "the domain must not be empty")),
        Some(domain) => {
            if domain.len() > DRIVER_BYTES_MAX {
                found.push(FieldError::too_long(path, DRIVER_BYTES_MAX));
            }
            invalid(found, path, domain, name::dns1123_subdomain(domain));
        }
        None => {}
    }
    if id.is_empty() {
        found.push(FieldError::required(path, "the name must not be empty"));
        return;
    }
    if id.len() > ID_BYTES_MAX {
        found.push(FieldError::too_long(path, ID_BYTES_MAX));
    }
    invalid(found, path, id, name::c_identifier(id));
}

fn request_names(found: &mut Found, object: &Tree, requests: &Requests<'_>, path: Path<'_>) {
    unique(found, object, "requests", ITEMS_MAX, path, "", |found, one, path| {
        request_name(found, one.as_str().unwrap_or(""), requests, path);
    });
}

/// A request of the claim, or `request/alternative`.
pub(crate) fn request_name(found: &mut Found, text: &str, requests: &Requests<'_>, path: Path<'_>) {
    const WHY: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated \
                       by '/'";
    let parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 2 {
        found.push(FieldError::invalid(path, text, WHY));
        return;
    }
    for part in &parts {
        invalid(found, path, part, name::dns1123_label(part));
    }
    let known = match parts[..] {
        [request] => requests.contains_key(request),
        [request, alternative] => requests.get(request).is_some_and(|names| names.contains(alternative)),
        _ => false,
    };
    if !known {
        found.push(FieldError::invalid(path, text, WHY));
    }
}

/// What a driver is told.
pub(crate) fn configuration(found: &mut Found, config: &Tree, path: Path<'_>) {
    let Some(opaque) = given(config, "opaque") else {
        found.push(FieldError::required(path.child("opaque"), ""));
        return;
    };
    let path = path.child("opaque");
    driver(found, opaque, path);
    match given(opaque, "parameters") {
        None => found.push(FieldError::required(path.child("parameters"), "")),
        Some(value @ Tree::Map(_)) if value.size() > TEXT_BYTES_MAX => {
            found.push(FieldError::too_long(path.child("parameters"), TEXT_BYTES_MAX));
        }
        Some(Tree::Map(_)) => {}
        Some(other) => {
            let why = "parameters must be a valid JSON object";
            found.push(FieldError::invalid(path.child("parameters"), BadValue::from(other), why));
        }
    }
}

/// `driver`: a short subdomain.
pub(crate) fn driver(found: &mut Found, object: &Tree, path: Path<'_>) {
    let Some(text) = required(found, object, "driver", path) else { return };
    if text.len() > DRIVER_BYTES_MAX {
        found.push(FieldError::too_long(path.child("driver"), DRIVER_BYTES_MAX));
    }
    invalid(found, path.child("driver"), text, name::dns1123_subdomain(text));
}

/// The name of a pool: subdomains divided by slashes.
pub(crate) fn pool(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let Some(text) = required(found, object, field, path) else { return };
    not_longer(found, object, field, path, POOL_BYTES_MAX);
    for part in text.split('/') {
        invalid(found, path.child(field), part, name::dns1123_subdomain(part));
    }
}

fn toleration(found: &mut Found, toleration: &Tree, path: Path<'_>) {
    super::formed(found, toleration, "key", path, name::qualified_name);
    match toleration.str_at(&["operator"]) {
        "Exists" => {
            let value = toleration.str_at(&["value"]);
            if !value.is_empty() {
                let why = "must be empty for operator `Exists`";
                found.push(FieldError::invalid(path.child("value"), value, why));
            }
        }
        "Equal" => {
            if toleration.str_at(&["key"]).is_empty() {
                found.push(FieldError::required(path.child("key"), "must not be empty when operator is `Equal`"));
            }
            super::shaped(found, toleration, "value", path, name::label_value);
        }
        "" => found.push(FieldError::required(path.child("operator"), "")),
        _ => only(found, toleration, "operator", path, &["Equal", "Exists"]),
    }
    super::maybe_one_of(found, toleration, "effect", path, &["NoExecute", "NoSchedule", "None"]);
}

/// What keeps claims away from a device.
pub(crate) fn taint(found: &mut Found, taint: &Tree, path: Path<'_>) {
    super::shaped(found, taint, "key", path, name::qualified_name);
    super::formed(found, taint, "value", path, name::label_value);
    one_of(found, taint, "effect", path, &["NoExecute", "NoSchedule", "None"]);
}

/// What binding a pod waits for.
pub(crate) fn binding_conditions(found: &mut Found, object: &Tree, path: Path<'_>) {
    const LISTS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    for list in LISTS {
        unique(found, object, list, BINDING_CONDITIONS_MAX, path, "", |found, one, path| {
            let text = one.as_str().unwrap_or("");
            invalid(found, path, text, name::qualified_name(text));
        });
    }
    let has = LISTS.map(|list| !object.list_at(&[list]).is_empty());
    match has {
        [true, false] => {
            let why = "bindingFailureConditions are required to use bindingConditions";
            found.push(FieldError::invalid(path.child(LISTS[1]), BadValue::from("[]"), why));
        }
        [false, true] => {
            let why = "bindingConditions are required to use bindingFailureConditions";
            found.push(FieldError::invalid(path.child(LISTS[0]), BadValue::from("[]"), why));
        }
        _ => {}
    }
}

/// What a claim was given.
pub(crate) fn allocation(found: &mut Found, allocation: &Tree, requests: &Requests<'_>, path: Path<'_>) {
    within(allocation, "devices", path, |devices, path| {
        at_most(found, devices, "results", path, ITEMS_MAX);
        each(devices, "results", path, |result, path| {
            request_name(found, result.str_at(&["request"]), requests, path.child("request"));
            driver(found, result, path);
            pool(found, result, "pool", path);
            super::shaped(found, result, "device", path, name::dns1123_label);
            binding_conditions(found, result, path);
            each(result, "tolerations", path, |one, path| toleration(found, one, path));
        });
        at_most(found, devices, "config", path, 2 * ITEMS_MAX);
        each(devices, "config", path, |config, path| {
            one_of(found, config, "source", path, &["FromClaim", "FromClass"]);
            request_names(found, config, requests, path);
            configuration(found, config, path);
        });
    });
    within(allocation, "nodeSelector", path, |selector, path| pod_spec::node_selector(found, selector, path));
}

/// Which steps on the node are left out: not the first without the last.
pub(crate) fn node_operations(found: &mut Found, object: &Tree, path: Path<'_>) {
    let mut all = HashSet::new();
    each_text(object, "skipNodeOperations", path, |text, _| {
        all.insert(text);
    });
    let has = |operation| all.contains(operation);
    if has("NodePrepareResources") && !has("NodeUnprepareResources") && !has("*") {
        let why = "NodePrepareResources cannot be skipped unless NodeUnprepareResources is also skipped";
        let value = BadValue::from(object.get("skipNodeOperations"));
        found.push(FieldError::invalid(path.child("skipNodeOperations"), value, why));
    }
}
