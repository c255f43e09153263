//! `deployments` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::pod_spec;
use crate::rules;
use crate::table::Column;

/// A number of pods and how they are replaced by newer ones.
pub(crate) struct Deployment(pub(crate) Facts);

impl Kind for Deployment {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(ScalePaths {
            spec_replicas: &["spec", "replicas"],
            status_replicas: &["status", "replicas"],
            selector: &["spec", "selector"],
        })
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "replicas", 1);
        let strategy = fill::within(spec, "strategy");
        fill::text(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            let rolling = fill::within(strategy, "rollingUpdate");
            fill::absent(rolling, "maxUnavailable", "25%");
            fill::absent(rolling, "maxSurge", "25%");
        }
        fill::absent(spec, "revisionHistoryLimit", 10);
        fill::absent(spec, "progressDeadlineSeconds", 600);
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        rules::prepare_update(self.facts(), self.generation(), new, old);
        // The controller copies annotations to its ReplicaSets, so they count as intent.
        let annotations = |object: &Tree| object.at(&["metadata", "annotations"]).cloned();
        if !rules::same(annotations(new).as_ref(), annotations(old).as_ref()) {
            let next = old.int_at(&["metadata", "generation"]).unwrap_or(0).saturating_add(1);
            new.set(&["metadata", "generation"], next);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["spec", "template", "spec"]);
        let ready = cells::count(object, &["status", "readyReplicas"]);
        let wanted = cells::count(object, &["spec", "replicas"]);
        vec![
            cells::name(object),
            format!("{ready}/{wanted}").into(),
            cells::number(object, &["status", "updatedReplicas"]),
            cells::number(object, &["status", "availableReplicas"]),
            cells::age(object, now),
            containers,
            images,
            cells::selector(object, &["spec", "selector"]),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Ready", "string", "Ready pods of those wanted."),
    Column::new("Up-to-date", "integer", "How many pods follow the current template."),
    Column::new("Available", "integer", "How many pods are available."),
    cells::AGE,
    cells::CONTAINERS,
    cells::IMAGES,
    cells::SELECTOR,
];
