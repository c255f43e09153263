//! Horizontal pod autoscalers in version 2, which is what the other version is judged as.

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::{Tree, name};

use super::resources::quantity;
use super::{Found, SPEC, counts, each, given, invalid, only, only_if_given, required, spec, within};

/// How long a scale may be held back, and how long a policy may look.
const STABILIZATION_SECONDS_MAX: i64 = 3_600;
const PERIOD_SECONDS_MAX: i64 = 1_800;

/// The kinds of metrics with the field of each.
const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Everything wrong with an autoscaler.
pub(crate) fn autoscaler(object: &Tree) -> Found {
    let mut found = Found::new();
    let spec = spec(object);
    let low = spec.int_at(&["minReplicas"]);
    if let Some(low) = low.filter(|low| *low < 1) {
        let why = "must be greater than or equal to 1";
        found.push(FieldError::invalid(SPEC.child("minReplicas"), low, why));
    }
    let high = spec.int_at(&["maxReplicas"]).unwrap_or(0);
    if high < 1 {
        found.push(FieldError::invalid(SPEC.child("maxReplicas"), high, "must be greater than 0"));
    }
    if low.is_some_and(|low| high < low) {
        let why = "must be greater than or equal to `minReplicas`";
        found.push(FieldError::invalid(SPEC.child("maxReplicas"), high, why));
    }
    reference(&mut found, spec, "scaleTargetRef", SPEC);
    each(spec, "metrics", SPEC, |one, path| metric(&mut found, one, path));
    within(spec, "behavior", SPEC, |behavior, path| {
        for field in ["scaleUp", "scaleDown"] {
            within(behavior, field, path, |rules, path| scaling(&mut found, rules, path));
        }
    });
    found
}

/// The status of an autoscaler.
pub(crate) fn status(object: &Tree) -> Found {
    let mut found = Found::new();
    let status = object.get("status").unwrap_or(&Tree::Null);
    counts(&mut found, status, &["currentReplicas", "desiredReplicas"], Path::new("status"));
    found
}

fn reference(found: &mut Found, object: &Tree, field: &str, path: Path<'_>) {
    let target = object.get(field).unwrap_or(&Tree::Null);
    let path = path.child(field);
    for part in ["kind", "name"] {
        if let Some(text) = required(found, target, part, path) {
            invalid(found, path.child(part), text, name::path_segment(text));
        }
    }
}

fn metric(found: &mut Found, metric: &Tree, path: Path<'_>) {
    let ty = metric.str_at(&["type"]);
    if ty.is_empty() {
        found.push(FieldError::required(path.child("type"), "must specify a metric source type"));
    }
    let known = METRICS.map(|(ty, _)| ty);
    if !known.contains(&ty) {
        found.push(FieldError::not_supported(path.child("type"), ty, &known));
    }
    for (other, field) in METRICS {
        match given(metric, field) {
            None if other == ty => {
                let why = "must populate information for the given metric source";
                found.push(FieldError::required(path.child(field), why));
            }
            Some(source) => {
                self::source(found, other, source, path.child(field));
                if other != ty && known.contains(&ty) {
                    let why = "must populate the given metric source only";
                    found.push(FieldError::forbidden(path.child(field), why));
                }
            }
            None => {}
        }
    }
}

fn source(found: &mut Found, ty: &str, source: &Tree, path: Path<'_>) {
    match ty {
        "Resource" | "ContainerResource" => {
            if source.str_at(&["name"]).is_empty() {
                found.push(FieldError::required(path.child("name"), "must specify a resource name"));
            }
            if ty == "ContainerResource" && source.str_at(&["container"]).is_empty() {
                found.push(FieldError::required(path.child("container"), "must specify a container"));
            }
        }
        _ => {
            let metric = source.get("metric").unwrap_or(&Tree::Null);
            let path = path.child("metric");
            match metric.str_at(&["name"]) {
                "" => found.push(FieldError::required(path.child("name"), "must specify a metric name")),
                text => invalid(found, path.child("name"), text, name::path_segment(text)),
            }
            found.extend(label::validate(metric.get("selector"), path.child("selector")));
        }
    }
    if ty == "Object" {
        reference(found, source, "describedObject", path);
    }
    let target = source.get("target").unwrap_or(&Tree::Null);
    let path = path.child("target");
    self::target(found, target, path);
    let has = |field: &str| given(target, field).is_some();
    let positive = |field: &str| quantity(target.get(field)).is_some_and(|amount| amount.nanos() > 0);
    match ty {
        "Resource" | "ContainerResource" => match (has("averageUtilization"), has("averageValue")) {
            (false, false) => {
                let why = "must set either a target raw value or a target utilization";
                found.push(FieldError::required(path.child("averageUtilization"), why));
            }
            (true, true) => {
                let why = "may not set both a target raw value and a target utilization";
                found.push(FieldError::forbidden(path.child("averageValue"), why));
            }
            _ => {}
        },
        "Pods" if !positive("averageValue") => {
            let why = "must specify a positive target averageValue";
            found.push(FieldError::required(path.child("averageValue"), why));
        }
        "Object" if !has("value") && !has("averageValue") => {
            let why = "must set either a target value or averageValue";
            found.push(FieldError::required(path.child("averageValue"), why));
        }
        "External" => match (has("value"), has("averageValue")) {
            (false, false) => {
                let why = "must set either a target value for metric or a per-pod target";
                found.push(FieldError::required(path.child("averageValue"), why));
            }
            (true, true) => {
                let why = "may not set both a target value for metric and a per-pod target";
                found.push(FieldError::forbidden(path.child("value"), why));
            }
            _ => {}
        },
        _ => {}
    }
}

fn target(found: &mut Found, target: &Tree, path: Path<'_>) {
    if target.str_at(&["type"]).is_empty() {
        found.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    only(found, target, "type", path, &["AverageValue", "Utilization", "Value"]);
    for field in ["value", "averageValue"] {
        if let Some(amount) = quantity(given(target, field)).filter(|amount| amount.nanos() <= 0) {
            found.push(FieldError::invalid(path.child(field), amount.to_string(), "must be positive"));
        }
    }
    if let Some(percent) = target.int_at(&["averageUtilization"]).filter(|percent| *percent < 1) {
        found.push(FieldError::invalid(path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn scaling(found: &mut Found, rules: &Tree, path: Path<'_>) {
    if let Some(seconds) = rules.int_at(&["stabilizationWindowSeconds"]) {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            found.push(FieldError::invalid(path, seconds, "must be greater than or equal to zero"));
        }
        if seconds > STABILIZATION_SECONDS_MAX {
            let why = format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}");
            found.push(FieldError::invalid(path, seconds, why));
        }
    }
    if let Some(amount) = quantity(given(rules, "tolerance")).filter(|amount| amount.is_negative()) {
        let why = "must be greater than or equal to 0";
        found.push(FieldError::invalid(path.child("tolerance"), amount.to_string(), why));
    }
    only_if_given(found, rules, "selectPolicy", path, &["Disabled", "Max", "Min"]);
    if rules.list_at(&["policies"]).is_empty() {
        found.push(FieldError::required(path.child("policies"), "must specify at least one Policy"));
    }
    each(rules, "policies", path, |policy, path| {
        only(found, policy, "type", path, &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = policy.int_at(&[field]).unwrap_or(0);
            if number <= 0 {
                found.push(FieldError::invalid(path.child(field), number, "must be greater than zero"));
            }
            if field == "periodSeconds" && number > PERIOD_SECONDS_MAX {
                let why = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
                found.push(FieldError::invalid(path.child(field), number, why));
            }
        }
    });
}
