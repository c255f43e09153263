//! What is the same for most kinds: the default bodies of the hooks.

use skiff_object::Tree;

use crate::facts::Facts;
use crate::kind::Generation;

/// Drops `status` where it has a path of its own and starts counting generations.
pub fn prepare_create(facts: &Facts, generation: Generation, object: &mut Tree) {
    if facts.has_status() {
        object.unset(&["status"]);
    }
    match generation {
        Generation::None => {
            object.unset(&["metadata", "generation"]);
        }
        Generation::Spec | Generation::Body => object.set(&["metadata", "generation"], 1),
    }
}

/// Keeps `status` where it has a path of its own and counts a generation when `new` differs.
pub fn prepare_update(facts: &Facts, generation: Generation, new: &mut Tree, old: &Tree) {
    if facts.has_status() {
        keep(new, old, &["status"]);
    }
    keep(new, old, &["metadata", "generation"]);
    let changed = match generation {
        Generation::None => false,
        Generation::Spec => !same(new.get("spec"), old.get("spec")),
        Generation::Body => body_changed(new, old),
    };
    if changed {
        let next = old.int_at(&["metadata", "generation"]).unwrap_or(0).saturating_add(1);
        new.set(&["metadata", "generation"], next);
    }
}

/// A write to `status` keeps everything else; any other subresource that exchanges the object
/// keeps `status`.
pub fn prepare_subresource(subresource: &str, new: &mut Tree, old: &Tree) {
    keep(new, old, &["metadata", "generation"]);
    match subresource {
        "status" => {
            keep_body(new, old);
            for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers"] {
                keep_in(new, old, "metadata", field);
            }
        }
        _ => keep(new, old, &["status"]),
    }
}

/// The labels that upstream's field selectors know beyond name and namespace
/// (`AddFieldLabelConversionFunc` of each API group).
pub fn selectable_fields(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["spec.nodeName", "spec.driver"],
        ("" | "events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

/// The string, number or truth value at a dotted path, as text. What an absent field stands for
/// and what labels call otherwise than the object does is as upstream has it.
pub fn field_value(object: &Tree, label: &str) -> String {
    match label {
        // Accepted, and never equal to anything.
        "status.podIPs" => return String::new(),
        "status.successful" => return object.int_at(&["status", "succeeded"]).unwrap_or(0).to_string(),
        "status.replicas" => return object.int_at(&["status", "replicas"]).unwrap_or(0).to_string(),
        "spec.unschedulable" | "spec.hostNetwork" => {
            let path: Vec<&str> = label.split('.').collect();
            return object.bool_at(&path).unwrap_or(false).to_string();
        }
        "source" => {
            let component = object.str_at(&["source", "component"]);
            let component = if component.is_empty() { object.str_at(&["reportingComponent"]) } else { component };
            return component.to_owned();
        }
        _ => {}
    }
    let found = label.split('.').try_fold(object, |tree, key| tree.get(key));
    match found {
        Some(Tree::Str(text)) => text.to_string(),
        Some(Tree::Int(number)) => number.to_string(),
        Some(Tree::Bool(value)) => value.to_string(),
        _ => String::new(),
    }
}

/// The paths that [`field_value`] looks at for a label.
pub fn field_paths(label: &str) -> Vec<Vec<&str>> {
    match label {
        "status.podIPs" => Vec::new(),
        "status.successful" => vec![vec!["status", "succeeded"]],
        "source" => vec![vec!["source", "component"], vec!["reportingComponent"]],
        _ => vec![label.split('.').collect()],
    }
}

/// Puts the value of `old` at `path` into `new`, or takes it away when `old` has none.
pub fn keep(new: &mut Tree, old: &Tree, path: &[&'static str]) {
    match old.at(path) {
        Some(value) => new.set(path, value.clone()),
        None => {
            new.unset(path);
        }
    }
}

/// As [`keep`] for one field below `parent`.
fn keep_in(new: &mut Tree, old: &Tree, parent: &'static str, field: &'static str) {
    keep(new, old, &[parent, field]);
}

/// Everything but `metadata` and `status` comes from `old`.
fn keep_body(new: &mut Tree, old: &Tree) {
    let (Some(target), Some(source)) = (new.as_map_mut(), old.as_map()) else { return };
    target.retain(|key, _| matches!(key.as_str(), "metadata" | "status"));
    for (key, value) in source.iter() {
        if !matches!(key.as_str(), "metadata" | "status") {
            target.insert(key.clone(), value.clone());
        }
    }
}

/// Whether anything outside `metadata` and `status` differs.
fn body_changed(new: &Tree, old: &Tree) -> bool {
    let (Some(new), Some(old)) = (new.as_map(), old.as_map()) else { return true };
    let counts = |key: &str| !matches!(key, "metadata" | "status" | "apiVersion" | "kind");
    let differs = |a: &skiff_object::Map, b: &skiff_object::Map| {
        a.iter().any(|(key, value)| counts(key.as_str()) && !same(Some(value), b.get(key.as_str())))
    };
    differs(new, old) || differs(old, new)
}

/// Equality as Go's semantic comparison sees it: absent, null and empty are one.
pub fn same(a: Option<&Tree>, b: Option<&Tree>) -> bool {
    match (a.filter(|tree| !is_empty(tree)), b.filter(|tree| !is_empty(tree))) {
        (None, None) => true,
        (Some(Tree::Map(a)), Some(Tree::Map(b))) => {
            a.iter().all(|(key, value)| same(Some(value), b.get(key.as_str())))
                && b.iter().all(|(key, value)| a.contains_key(key.as_str()) || is_empty(value))
        }
        (Some(Tree::List(a)), Some(Tree::List(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn is_empty(tree: &Tree) -> bool {
    match tree {
        Tree::Null => true,
        Tree::List(items) => items.is_empty(),
        Tree::Map(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_null_and_empty_are_the_same() {
        let mut a = Tree::map();
        a.set(&["spec", "list"], Tree::list());
        a.set(&["spec", "name"], "x");
        let mut b = Tree::map();
        b.set(&["spec", "name"], "x");
        b.set(&["spec", "gone"], Tree::Null);
        assert!(same(Some(&a), Some(&b)));
        b.set(&["spec", "name"], "y");
        assert!(!same(Some(&a), Some(&b)));
    }
}
