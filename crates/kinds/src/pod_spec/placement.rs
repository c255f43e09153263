//! What must hold for where a pod may run: tolerations, affinity, spreading.

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::{Tree, name};

use crate::checks::{Found, each, invalid};

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
    found.extend(label::validate(term.get("labelSelector"), path.child("labelSelector")));
    let key = term.str_at(&["topologyKey"]);
    if key.is_empty() {
        found.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
    } else {
        invalid(found, path.child("topologyKey"), key, name::qualified_name(key));
    }
}

fn node_term(found: &mut Found, term: &Tree, path: Path<'_>) {
    let list = path.child("matchExpressions");
    for (index, one) in term.list_at(&["matchExpressions"]).iter().enumerate() {
        let path = list.index(index);
        let values = one.list_at(&["values"]).len();
        let why = match (one.str_at(&["operator"]), values) {
            ("In" | "NotIn", 0) => Some((true, "must be specified when `operator` is 'In' or 'NotIn'")),
            ("Exists" | "DoesNotExist", 1..) => {
                Some((false, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
            }
            ("Gt" | "Lt", count) if count != 1 => {
                Some((true, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => None,
            (other, _) => {
                found.push(FieldError::invalid(path.child("operator"), other, "not a valid selector operator"));
                None
            }
        };
        match why {
            Some((true, why)) => found.push(FieldError::required(path.child("values"), why)),
            Some((false, why)) => found.push(FieldError::forbidden(path.child("values"), why)),
            None => {}
        }
        let key = one.str_at(&["key"]);
        invalid(found, path.child("key"), key, name::qualified_name(key));
    }
}

pub(super) fn spread_constraints(found: &mut Found, spec: &Tree, path: Path<'_>) {
    for (index, one) in spec.list_at(&["topologySpreadConstraints"]).iter().enumerate() {
        let path = path.index(index);
        let skew = one.int_at(&["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            found.push(FieldError::invalid(path.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = one.str_at(&["topologyKey"]);
        if key.is_empty() {
            found.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let action = one.str_at(&["whenUnsatisfiable"]);
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            let known = ["DoNotSchedule", "ScheduleAnyway"];
            found.push(FieldError::not_supported(path.child("whenUnsatisfiable"), action, &known));
        }
        found.extend(label::validate(one.get("labelSelector"), path.child("labelSelector")));
    }
}
