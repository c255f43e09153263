//! `replicasets` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::pod_spec;
use crate::table::Column;

/// Keeps a number of pods.
pub(crate) struct ReplicaSet(pub(crate) Facts);

impl Kind for ReplicaSet {
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
        fill::absent(fill::within(object, "spec"), "replicas", 1);
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["spec", "template", "spec"]);
        vec![
            cells::name(object),
            cells::number(object, &["spec", "replicas"]),
            cells::number(object, &["status", "replicas"]),
            cells::number(object, &["status", "readyReplicas"]),
            cells::age(object, now),
            containers,
            images,
            cells::selector(object, &["spec", "selector"]),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Desired", "integer", "How many pods there should be."),
    Column::new("Current", "integer", "How many pods there are."),
    Column::new("Ready", "integer", "How many pods are ready."),
    cells::AGE,
    cells::CONTAINERS,
    cells::IMAGES,
    cells::SELECTOR,
];
