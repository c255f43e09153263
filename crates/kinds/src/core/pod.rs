//! `pods` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::SPEC;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::pod_spec;
use crate::pod_spec::status::Summary;
use crate::rules;
use crate::table::Column;

/// Containers that run together on one node.
pub(crate) struct Pod(pub(crate) Facts);

impl Kind for Pod {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        pod_spec::pod(object);
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        let class = object.get("spec").map_or("BestEffort", pod_spec::resources::qos_class);
        object.set(&["status", "phase"], "Pending");
        object.set(&["status", "qosClass"], class);
        if !object.list_at(&["spec", "schedulingGates"]).is_empty() {
            gate(object);
        }
    }

    fn grace_period_seconds(&self, object: &Tree) -> Option<i64> {
        // Nobody would take care of it: no kubelet has it, or it has nothing left to stop.
        let unbound = object.str_at(&["spec", "nodeName"]).is_empty();
        if unbound || matches!(object.str_at(&["status", "phase"]), "Succeeded" | "Failed") {
            return Some(0);
        }
        Some(object.int_at(&["spec", "terminationGracePeriodSeconds"]).unwrap_or(30))
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let summary = Summary::of(object);
        let restarts = match summary.restarted {
            Some(time) if summary.restarts > 0 => {
                format!("{} ({} ago)", summary.restarts, cells::since(&time.rfc3339(), now))
            }
            _ => summary.restarts.to_string(),
        };
        let ip = object.list_at(&["status", "podIPs"]).first().map_or("", |ip| ip.str_at(&["ip"]));
        vec![
            cells::name(object),
            format!("{}/{}", summary.ready, summary.total).into(),
            summary.status.into(),
            restarts.into(),
            cells::age(object, now),
            if ip.is_empty() { "<none>" } else { ip }.into(),
            cells::text_or(object, &["spec", "nodeName"], "<none>"),
            cells::text_or(object, &["status", "nominatedNodeName"], "<none>"),
            readiness_gates(object).into(),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        pod_spec::validate::spec(&mut found, object.get("spec").unwrap_or(&Tree::Null), SPEC);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let count = |object: &Tree, list: &str| object.list_at(&["spec", list]).len();
        for list in ["containers", "initContainers"] {
            if count(new, list) != count(old, list) {
                let path = format!("spec.{list}");
                found.push(FieldError::forbidden(path, "pod updates may not add or remove containers"));
                return found;
            }
        }
        let mut allowed = new.get("spec").cloned().unwrap_or_default();
        restore_changeable(&mut allowed, old.get("spec").unwrap_or(&Tree::Null));
        let rest = old.get("spec").cloned().unwrap_or_default();
        if !rules::same(Some(&allowed), Some(&rest)) {
            found.push(FieldError::forbidden("spec", format!("{ONLY_THESE_CHANGE}\n{}", differing(&allowed, &rest))));
        }
        tolerations_only_grow(&mut found, new, old);
        found
    }

    fn prepare_subresource(&self, subresource: &str, new: &mut Tree, old: &Tree) {
        match subresource {
            "ephemeralcontainers" => {
                let wanted = new.at(&["spec", "ephemeralContainers"]).cloned();
                start_from(new, old);
                if let Some(wanted) = wanted {
                    new.set(&["spec", "ephemeralContainers"], wanted);
                }
                count_generation(new, old);
            }
            "resize" => {
                let wanted = new.get("spec").cloned().unwrap_or_default();
                start_from(new, old);
                resize(new, &wanted);
                count_generation(new, old);
            }
            _ => {
                rules::prepare_subresource(subresource, new, old);
                if subresource == "status" {
                    rules::keep(new, old, &["status", "qosClass"]);
                }
            }
        }
    }

    fn validate_subresource(&self, subresource: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        match subresource {
            "ephemeralcontainers" => {
                let mut found = self.validate_create(new);
                let list = |object: &Tree| object.list_at(&["spec", "ephemeralContainers"]).to_vec();
                let kept = list(new);
                for one in list(old) {
                    let name = one.str_at(&["name"]);
                    let path = "spec.ephemeralContainers";
                    match kept.iter().find(|other| other.str_at(&["name"]) == name) {
                        Some(same) if rules::same(Some(same), Some(&one)) => {}
                        Some(_) => {
                            let why = format!("existing ephemeral containers \"{name}\" may not be changed");
                            found.push(FieldError::forbidden(path, why));
                        }
                        None => {
                            let why = format!("existing ephemeral containers \"{name}\" may not be removed");
                            found.push(FieldError::forbidden(path, why));
                        }
                    }
                }
                found
            }
            "resize" => self.validate_create(new),
            _ => Vec::new(),
        }
    }
}

/// A gated pod says from the start why it is not scheduled.
fn gate(object: &mut Tree) {
    let mut condition = Tree::map();
    for (field, value) in [
        ("type", "PodScheduled"),
        ("status", "False"),
        ("reason", "SchedulingGated"),
        ("message", "Scheduling is blocked due to non-empty scheduling gates"),
    ] {
        condition.set(&[field], value);
    }
    object.set(&["status", "conditions"], vec![condition]);
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Ready", "string", "Ready containers of all."),
    Column::new("Status", "string", "How the pod is, in a word."),
    Column::new("Restarts", "string", "How often containers were restarted."),
    cells::AGE,
    Column::wide("IP", "string", "The address of the pod."),
    Column::wide("Node", "string", "The node it runs on."),
    Column::wide("Nominated Node", "string", "The node that is being cleared for it."),
    Column::wide("Readiness Gates", "string", "Gates that are open of all."),
];

fn readiness_gates(object: &Tree) -> String {
    let gates = object.list_at(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| cells::has_condition(object, gate.str_at(&["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}

const ONLY_THESE_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Gives what an update may change its old value, so that only what it may not is left to differ.
fn restore_changeable(spec: &mut Tree, old: &Tree) {
    for list in ["containers", "initContainers"] {
        let old_list = old.list_at(&[list]);
        let Some(items) = spec.get_mut(list).and_then(Tree::as_list_mut) else { continue };
        for (new, old) in items.iter_mut().zip(old_list) {
            rules::keep(new, old, &["image"]);
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        rules::keep(spec, old, &[field]);
    }
    if old.int_at(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0)
        && spec.int_at(&["terminationGracePeriodSeconds"]) == Some(1)
    {
        rules::keep(spec, old, &["terminationGracePeriodSeconds"]);
    }
    // While a pod is gated, nobody has looked at it yet.
    let gates = |spec: &Tree| spec.list_at(&["schedulingGates"]).to_vec();
    let (new_gates, old_gates) = (gates(spec), gates(old));
    if !old_gates.is_empty() && new_gates.iter().all(|gate| old_gates.contains(gate)) {
        for field in ["schedulingGates", "nodeSelector", "affinity"] {
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

fn tolerations_only_grow(found: &mut Vec<FieldError>, new: &Tree, old: &Tree) {
    let list = |object: &Tree| object.list_at(&["spec", "tolerations"]).to_vec();
    let new = list(new);
    // Only how long an existing toleration lasts may change.
    let alike = |a: &Tree, b: &Tree| {
        ["key", "operator", "value", "effect"].iter().all(|field| a.str_at(&[field]) == b.str_at(&[field]))
    };
    if list(old).iter().any(|one| !new.iter().any(|other| alike(one, other))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        found.push(FieldError::forbidden("spec.tolerations", why));
    }
}

/// A write through a subresource changes only its part: everything else is as it was. What the
/// server has put into the metadata by now stays.
fn start_from(new: &mut Tree, old: &Tree) {
    rules::keep(new, old, &["spec"]);
    rules::keep(new, old, &["status"]);
    rules::keep(new, old, &["metadata", "generation"]);
}

fn count_generation(new: &mut Tree, old: &Tree) {
    if !rules::same(new.get("spec"), old.get("spec")) {
        let next = old.int_at(&["metadata", "generation"]).unwrap_or(0).saturating_add(1);
        new.set(&["metadata", "generation"], next);
    }
}

/// Takes over what a container may use, container by container.
fn resize(object: &mut Tree, wanted: &Tree) {
    for list in ["containers", "initContainers"] {
        let sources = wanted.list_at(&[list]);
        let Some(items) = object.at_mut(&["spec", list]).and_then(Tree::as_list_mut) else { continue };
        for container in items {
            let source = sources.iter().find(|one| one.str_at(&["name"]) == container.str_at(&["name"]));
            if let Some(source) = source {
                rules::keep(container, source, &["resources"]);
                rules::keep(container, source, &["resizePolicy"]);
            }
        }
    }
    if let Some(spec) = object.get_mut("spec") {
        rules::keep(spec, wanted, &["resources"]);
    }
}
