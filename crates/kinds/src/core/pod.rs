//! `pods` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::pod_spec::status::Summary;
use crate::pod_spec;
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
