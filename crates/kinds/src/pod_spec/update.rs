//! What may change of a pod once it is there.

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;

use crate::checks::{Found, SPEC, each, given};
use crate::rules;

const ONLY_THESE_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Everything that a change of the pod itself may not do.
pub(crate) fn update(found: &mut Found, new: &Tree, old: &Tree) {
    let count = |object: &Tree, list: &str| object.list_at(&["spec", list]).len();
    for list in ["containers", "initContainers"] {
        if count(new, list) != count(old, list) {
            let why = "pod updates may not add or remove containers";
            found.push(FieldError::forbidden(SPEC.child(list), why));
            return;
        }
    }
    let [new_spec, old_spec] = [new, old].map(|pod| pod.get("spec").unwrap_or(&Tree::Null));
    deadline(found, new_spec, old_spec);
    tolerations_only_grow(found, new_spec, old_spec);
    gates_only_go(found, new_spec, old_spec);
    let mut allowed = new_spec.clone();
    restore_changeable(&mut allowed, old_spec);
    if !rules::same(Some(&allowed), Some(old_spec)) {
        let why = format!("{ONLY_THESE_CHANGE}\n{}", differing(&allowed, old_spec));
        found.push(FieldError::forbidden("spec", why));
    }
}

/// A deadline may come nearer, not go.
fn deadline(found: &mut Found, new: &Tree, old: &Tree) {
    let path = SPEC.child("activeDeadlineSeconds");
    match [new, old].map(|spec| spec.int_at(&["activeDeadlineSeconds"])) {
        [Some(new), Some(old)] if new > old => {
            found.push(FieldError::invalid(path, new, "must be less than or equal to previous value"));
        }
        [None, Some(_)] => {
            let why = "must not update from a positive integer to nil value";
            found.push(FieldError::invalid(path, BadValue::Null, why));
        }
        _ => {}
    }
}

/// Only how long an existing toleration lasts may change.
fn tolerations_only_grow(found: &mut Found, new: &Tree, old: &Tree) {
    let alike = |a: &Tree, b: &Tree| {
        ["key", "operator", "value", "effect"].iter().all(|field| a.str_at(&[field]) == b.str_at(&[field]))
    };
    let new = new.list_at(&["tolerations"]);
    if old.list_at(&["tolerations"]).iter().any(|one| !new.iter().any(|other| alike(one, other))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        found.push(FieldError::forbidden(SPEC.child("tolerations"), why));
    }
}

fn gates_only_go(found: &mut Found, new: &Tree, old: &Tree) {
    let had = old.list_at(&["schedulingGates"]);
    for gate in new.list_at(&["schedulingGates"]) {
        let text = gate.str_at(&["name"]);
        if !had.iter().any(|one| one.str_at(&["name"]) == text) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{text}'");
            found.push(FieldError::forbidden(SPEC.child("schedulingGates"), why));
        }
    }
    if had.is_empty() {
        return;
    }
    let wanted = new.get("nodeSelector").and_then(Tree::as_map);
    let before = old.get("nodeSelector").and_then(Tree::as_map);
    let kept = before.is_none_or(|before| {
        before.iter().all(|(key, value)| wanted.and_then(|wanted| wanted.get(key.as_str())) == Some(value))
    });
    if !kept {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let value = BadValue::from(new.get("nodeSelector"));
        found.push(FieldError::invalid(SPEC.child("nodeSelector"), value, why));
    }
}

/// Gives what an update may change its old value, so that only what it may not is left to differ.
fn restore_changeable(spec: &mut Tree, old: &Tree) {
    for list in ["containers", "initContainers"] {
        let old_list = old.list_at(&[list]);
        let Some(items) = spec.get_mut(list).and_then(Tree::as_list_mut) else { continue };
        for (new, old) in items.iter_mut().zip(old_list) {
            rules::keep(new, old, &["image"]);
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        rules::keep(spec, old, &[field]);
    }
    if old.int_at(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0)
        && spec.int_at(&["terminationGracePeriodSeconds"]) == Some(1)
    {
        rules::keep(spec, old, &["terminationGracePeriodSeconds"]);
    }
    // While a pod is gated, nobody has looked at it yet.
    if !old.list_at(&["schedulingGates"]).is_empty() {
        for field in ["nodeSelector", "affinity"] {
            rules::keep(spec, old, &[field]);
        }
    }
}

/// The fields of two specs that differ, for people.
fn differing(new: &Tree, old: &Tree) -> String {
    let (Some(new), Some(old)) = (new.as_map(), old.as_map()) else { return String::new() };
    let mut fields: Vec<&str> = new.keys().chain(old.keys()).map(skiff_object::Key::as_str).collect();
    fields.sort_unstable();
    fields.dedup();
    fields.retain(|field| !rules::same(new.get(field), old.get(field)));
    format!("differing: {}", fields.join(", "))
}

/// Debugging containers come and stay as they are.
pub(crate) fn ephemeral_containers(found: &mut Found, new: &Tree, old: &Tree) {
    let kept = new.list_at(&["spec", "ephemeralContainers"]);
    let path = SPEC.child("ephemeralContainers");
    for one in old.list_at(&["spec", "ephemeralContainers"]) {
        let name = one.str_at(&["name"]);
        match kept.iter().find(|other| other.str_at(&["name"]) == name) {
            Some(same) if rules::same(Some(same), Some(one)) => {}
            Some(_) => {
                let why = format!("existing ephemeral containers \"{name}\" may not be changed\n");
                found.push(FieldError::forbidden(path, why.trim_end().to_owned()));
            }
            None => {
                let why = format!("existing ephemeral containers \"{name}\" may not be removed\n");
                found.push(FieldError::forbidden(path, why.trim_end().to_owned()));
            }
        }
    }
}

/// A pod keeps its class of service when it is resized, and its memory does not shrink below what it was promised.
pub(crate) fn resize(found: &mut Found, new: &Tree, old: &Tree) {
    let class = |pod: &Tree| pod.get("spec").map_or("BestEffort", super::resources::qos_class);
    let before = match old.str_at(&["status", "qosClass"]) {
        "" => class(old),
        class => class,
    };
    let after = class(new);
    if after != before {
        let why = "Pod QOS Class may not change as a result of resizing";
        found.push(FieldError::invalid("spec", after, why));
    }
    if old.str_at(&["spec", "os", "name"]) == "windows" {
        found.push(FieldError::forbidden("spec", "windows pods cannot be resized"));
    }
    let old_lists = |list: &'static str| old.list_at(&["spec", list]);
    for list in ["containers", "initContainers"] {
        each(new.get("spec").unwrap_or(&Tree::Null), list, SPEC, |container, path| {
            let name = container.str_at(&["name"]);
            let Some(before) = old_lists(list).iter().find(|one| one.str_at(&["name"]) == name) else { return };
            let sidecar = container.str_at(&["restartPolicy"]) == "Always";
            let (wanted, had) = (container.get("resources"), before.get("resources"));
            if list == "initContainers" && !sidecar && !rules::same(wanted, had) {
                let why = "resources for non-sidecar init containers are immutable";
                found.push(FieldError::forbidden(path.child("resources"), why));
            }
            changed_resources(found, wanted, had, path.child("resources"));
        });
    }
}

fn changed_resources(found: &mut Found, new: Option<&Tree>, old: Option<&Tree>, path: Path<'_>) {
    let (Some(new), Some(old)) = (new, old) else { return };
    for list in ["limits", "requests"] {
        let [wanted, had] = [new, old].map(|resources| given(resources, list));
        let keys = |tree: Option<&Tree>| -> Vec<String> {
            let map = tree.and_then(Tree::as_map).into_iter().flat_map(skiff_object::Map::keys);
            map.map(|key| key.as_str().to_owned()).collect()
        };
        for key in keys(had) {
            if matches!(key.as_str(), "cpu" | "memory") && wanted.and_then(|wanted| wanted.get(&key)).is_none() {
                let why = format!("resource {list} cannot be removed");
                found.push(FieldError::forbidden(path.child(list), why));
            }
        }
        let mut all = keys(wanted);
        all.extend(keys(had));
        all.sort_unstable();
        all.dedup();
        let others_change = all.iter().any(|key| {
            let value = |tree: Option<&Tree>| tree.and_then(|tree| tree.get(key).cloned());
            !matches!(key.as_str(), "cpu" | "memory") && value(wanted) != value(had)
        });
        if others_change {
            found.push(FieldError::forbidden(path.child(list), "only cpu and memory resources are mutable"));
        }
    }
}
