//! `pods` in `v1`.

use std::borrow::Cow;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Tree, name, net};

use crate::checks::{self, Found};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::pod_spec::status::Summary;
use crate::pod_spec::{self, update, validate};
use crate::table::Column;
use crate::{cells, rules};

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
        match object.int_at(&["spec", "terminationGracePeriodSeconds"]).unwrap_or(30) {
            // As good as at once.
            ..0 => Some(1),
            seconds => Some(seconds),
        }
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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        validate::pod(&mut found, object);
        validate::new_pod(&mut found, object);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        validate::pod(&mut found, new);
        update::update(&mut found, new, old);
        found
    }

    fn validate_subresource(&self, subresource: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        match subresource {
            "ephemeralcontainers" => {
                let mut found = Vec::new();
                validate::pod(&mut found, new);
                update::ephemeral_containers(&mut found, new, old);
                found
            }
            "resize" => {
                let mut found = Vec::new();
                validate::pod(&mut found, new);
                update::resize(&mut found, new, old);
                found
            }
            "status" => status(new, old),
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

/// What a kubelet may not say of a pod.
fn status(new: &Tree, old: &Tree) -> Found {
    let mut found = Found::new();
    let [new_node, old_node] = [new, old].map(|pod| pod.str_at(&["spec", "nodeName"]));
    if new_node != old_node {
        found.push(FieldError::forbidden("status.nodeName", "may not be changed directly"));
    }
    let status = new.get("status").unwrap_or(&Tree::Null);
    let path = Path::new("status");
    if checks::given(status, "nominatedNodeName").is_some() {
        checks::formed(&mut found, status, "nominatedNodeName", path, name::dns1123_subdomain);
    }
    checks::each(status, "conditions", path, |condition, path| {
        let ty = condition.str_at(&["type"]);
        checks::invalid(&mut found, path.child("type"), ty, name::qualified_name(ty));
    });
    let policy = new.str_at(&["spec", "restartPolicy"]);
    if policy != "Never" {
        restarted(&mut found, new, old, policy);
    }
    addresses(&mut found, status, "podIPs", path);
    addresses(&mut found, status, "hostIPs", path);
    found
}

/// A container that is started again when it ends does not go back from its end to waiting.
fn restarted(found: &mut Found, new: &Tree, old: &Tree, policy: &str) {
    let path = Path::new("status");
    let path = path.child("containerStatuses");
    for before in old.list_at(&["status", "containerStatuses"]) {
        let Some(exit) = before.int_at(&["state", "terminated", "exitCode"]) else { continue };
        let ends_well = policy == "OnFailure" && exit == 0;
        let name = before.str_at(&["name"]);
        let list = new.list_at(&["status", "containerStatuses"]);
        let after = list.iter().position(|one| one.str_at(&["name"]) == name);
        let Some(index) = after.filter(|_| ends_well) else { continue };
        if list[index].at(&["state", "terminated"]).is_none_or(Tree::is_null) {
            let why = "may not be transitioned to non-terminated state";
            found.push(FieldError::forbidden(path.index(index).child("state"), why));
        }
    }
}

/// At most one address of each family, each well written.
fn addresses(found: &mut Found, status: &Tree, field: &str, path: Path<'_>) {
    let list = status.list_at(&[field]);
    checks::each(status, field, path, |address, path| {
        let ip = address.str_at(&["ip"]);
        checks::invalid(found, path, ip, net::ip(ip));
    });
    let pair = list.len() == 2 && net::is_dual_stack(list.iter().map(|one| one.str_at(&["ip"])));
    if list.len() > 1 && !pair {
        let why = "may specify no more than one IP for each IP family";
        found.push(FieldError::invalid(path.child(field), BadValue::from(status.get(field)), why));
    }
}
