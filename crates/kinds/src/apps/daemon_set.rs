//! `daemonsets` in `apps/v1`.

use crate::rules;
use crate::pod_spec;
use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

/// One pod on every node.
pub(crate) struct DaemonSet(pub(crate) Facts);

impl Kind for DaemonSet {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        let strategy = fill::within(spec, "updateStrategy");
        fill::text(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            let rolling = fill::within(strategy, "rollingUpdate");
            fill::absent(rolling, "maxUnavailable", 1);
            fill::absent(rolling, "maxSurge", 0);
        }
        fill::absent(spec, "revisionHistoryLimit", 10);
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        set_template_generation(object, 1);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        rules::prepare_update(self.facts(), self.generation(), new, old);
        let template = &["spec", "template"];
        let changed = !rules::same(new.at(template), old.at(template));
        let before = template_generation(old);
        set_template_generation(new, if changed { before.saturating_add(1) } else { before });
    }
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &Tree) -> i64 {
    object.str_at(&["metadata", "annotations", TEMPLATE_GENERATION]).parse().unwrap_or(0)
}

/// The field that counted templates is an annotation since `apps/v1`.
fn set_template_generation(object: &mut Tree, generation: i64) {
    object.set(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}
