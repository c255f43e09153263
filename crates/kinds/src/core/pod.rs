//! `pods` in `v1`.

use crate::rules;
use crate::pod_spec;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

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
