//! What must hold for where a pod may run: tolerations, affinity, spreading.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::{Tree, name};

use crate::checks::{Found, each, each_text, given, invalid, only, only_if_given};

pub(crate) fn toleration(found: &mut Found, one: &Tree, path: Path<'_>) {
    let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|field| one.str_at(&[field]));
    if !key.is_empty() {
        invalid(found, path.child("key"), key, name::qualified_name(key));
    }
    if key.is_empty() && operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        found.push(FieldError::invalid(path.child("operator"), operator, why));
    }
    if one.int_at(&["tolerationSeconds"]).is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        found.push(FieldError::invalid(path.child("effect"), effect, why));
    }
    match operator {
        "Equal" | "" => invalid(found, path.child("operator"), value, name::label_value(value)),
        "Exists" if !value.is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            found.push(FieldError::invalid(path.child("operator"), BadValue::from(one), why));
        }
        "Exists" => {}
        other => found.push(FieldError::not_supported(path.child("operator"), other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() && !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        found.push(FieldError::not_supported(path.child("effect"), effect, &known));
    }
}

pub(super) fn affinity(found: &mut Found, affinity: &Tree, path: Path<'_>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = path.child("nodeAffinity");
    if let Some(selector) = affinity.at(&["nodeAffinity", REQUIRED]).filter(|selector| !selector.is_null()) {
        node_selector(found, selector, node.child(REQUIRED));
    }
    let preferred = node.child(PREFERRED);
    for (index, one) in affinity.list_at(&["nodeAffinity", PREFERRED]).iter().enumerate() {
        weight(found, one, preferred.index(index));
        node_term(found, one.get("preference").unwrap_or(&Tree::Null), preferred.index(index).child("preference"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = path.child(kind);
        let list = path.child(REQUIRED);
        for (index, term) in affinity.list_at(&[kind, REQUIRED]).iter().enumerate() {
            pod_term(found, term, list.index(index));
        }
        let list = path.child(PREFERRED);
        for (index, one) in affinity.list_at(&[kind, PREFERRED]).iter().enumerate() {
            weight(found, one, list.index(index));
            let path = list.index(index);
            pod_term(found, one.get("podAffinityTerm").unwrap_or(&Tree::Null), path.child("podAffinityTerm"));
        }
    }
}

/// A node has to match at least one of the terms.
pub(crate) fn node_selector(found: &mut Found, selector: &Tree, path: Path<'_>) {
    if selector.list_at(&["nodeSelectorTerms"]).is_empty() {
        let why = "must have at least one node selector term";
        found.push(FieldError::required(path.child("nodeSelectorTerms"), why));
    }
    each(selector, "nodeSelectorTerms", path, |term, path| node_term(found, term, path));
}

fn weight(found: &mut Found, one: &Tree, path: Path<'_>) {
    let weight = one.int_at(&["weight"]).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        found.push(FieldError::invalid(path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn pod_term(found: &mut Found, term: &Tree, path: Path<'_>) {
    for field in ["labelSelector", "namespaceSelector"] {
        found.extend(label::validate(term.get(field), path.child(field)));
    }
    each_text(term, "namespaces", path, |text, path| invalid(found, path, text, name::dns1123_label(text)));
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        match_label_keys(found, term, field, path);
    }
    let key = term.str_at(&["topologyKey"]);
    if key.is_empty() {
        found.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    } else {
        invalid(found, path.child("topologyKey"), key, name::qualified_name(key));
    }
}

fn node_term(found: &mut Found, term: &Tree, path: Path<'_>) {
    each(term, "matchExpressions", path, |one, path| {
        let [key, operator] = ["key", "operator"].map(|field| one.str_at(&[field]));
        let values = path.child("values");
        let count = one.list_at(&["values"]).len();
        match operator {
            "In" | "NotIn" if count == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                found.push(FieldError::required(values, why));
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                found.push(FieldError::forbidden(values, why));
            }
            "Gt" | "Lt" if count != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                found.push(FieldError::required(values, why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => found.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        invalid(found, path.child("key"), key, name::qualified_name(key));
        each_text(one, "values", path, |text, path| invalid(found, path, text, name::label_value(text)));
    });
    each(term, "matchFields", path, |one, path| {
        let [key, operator] = ["key", "operator"].map(|field| one.str_at(&[field]));
        let count = one.list_at(&["values"]).len();
        match operator {
            "In" | "NotIn" if count != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                found.push(FieldError::required(path.child("values"), why));
            }
            "In" | "NotIn" => {}
            other => found.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator")),
        }
        if key == "metadata.name" {
            each_text(one, "values", path, |text, path| invalid(found, path, text, name::dns1123_subdomain(text)));
        } else {
            found.push(FieldError::invalid(path.child("key"), key, "not a valid field selector key"));
        }
    });
}

/// How the pods of an owner are spread over the nodes.
pub(super) fn spread_constraints(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let all = spec.list_at(&["topologySpreadConstraints"]);
    each(spec, "topologySpreadConstraints", path, |one, path| {
        let above_zero = |found: &mut Found, field: &str, value: i64| {
            if value <= 0 {
                found.push(FieldError::invalid(path.child(field), value, "must be greater than zero"));
            }
        };
        above_zero(found, "maxSkew", one.int_at(&["maxSkew"]).unwrap_or(0));
        let [key, action] = ["topologyKey", "whenUnsatisfiable"].map(|field| one.str_at(&[field]));
        if key.is_empty() {
            found.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        } else {
            invalid(found, path.child("topologyKey"), key, name::qualified_name(key));
        }
        only(found, one, "whenUnsatisfiable", path, &["DoNotSchedule", "ScheduleAnyway"]);
        let pair =
            |other: &Tree| (other.str_at(&["topologyKey"]), other.str_at(&["whenUnsatisfiable"])) == (key, action);
        let later = all.iter().skip_while(|other| !std::ptr::eq(*other, one)).skip(1);
        for _ in later.filter(|other| pair(other)).take(1) {
            let value = format!("{{{key}, {action}}}");
            found.push(FieldError::duplicate(path.child("{topologyKey, whenUnsatisfiable}"), value));
        }
        if let Some(domains) = one.int_at(&["minDomains"]) {
            above_zero(found, "minDomains", domains);
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                found.push(FieldError::invalid(path.child("minDomains"), domains, why));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            only_if_given(found, one, field, path, &["Honor", "Ignore"]);
        }
        match_label_keys(found, one, "matchLabelKeys", path);
        found.extend(label::validate(one.get("labelSelector"), path.child("labelSelector")));
    });
}

/// Labels whose values come from the pod itself: not those that the selector names.
fn match_label_keys(found: &mut Found, owner: &Tree, field: &str, path: Path<'_>) {
    if owner.list_at(&[field]).is_empty() {
        return;
    }
    let Some(selector) = given(owner, "labelSelector") else {
        let why = "must not be specified when labelSelector is not set";
        found.push(FieldError::forbidden(path.child(field), why));
        return;
    };
    let named = |key: &str| {
        selector.at(&["matchLabels", key]).is_some()
            || selector.list_at(&["matchExpressions"]).iter().any(|one| one.str_at(&["key"]) == key)
    };
    each_text(owner, field, path, |key, path| {
        invalid(found, path, key, name::qualified_name(key));
        if field == "matchLabelKeys" && path.to_string().contains("topologySpreadConstraints") && named(key) {
            let why = format!("exists in both {field} and labelSelector");
            found.push(FieldError::invalid(path, key, why));
        }
    });
}
