//! `replicasets` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::table::Column;
use crate::{cells, fill, pod_spec};

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
        Some(ScalePaths::new(&["spec", "replicas"], &["status", "replicas"], &["spec", "selector"]))
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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        checks::not_negative(&mut found, spec, "replicas", SPEC);
        checks::not_negative(&mut found, spec, "minReadySeconds", SPEC);
        checks::workload_selector(&mut found, object, "deployment");
        pod_spec::validate::running_template(&mut found, object, "ReplicaSet");
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec", "selector"]);
        found
    }

    fn validate_subresource(&self, subresource: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        if subresource == "status" {
            checks::replica_status(
                &mut found,
                new,
                old,
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            );
        }
        found
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
