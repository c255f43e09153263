//! `replicationcontrollers` in `v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::selector::label::Selector;
use skiff_object::time::Time;
use skiff_object::{Map, Tree};

use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::table::Column;
use crate::{cells, fill, pod_spec};

/// Keeps a number of pods, in the old form.
pub(crate) struct ReplicationController(pub(crate) Facts);

impl Kind for ReplicationController {
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
        let spec = fill::within(object, "spec");
        fill::absent(spec, "replicas", 1);
        if spec.get("template").is_none_or(Tree::is_null) {
            return;
        }
        pod_spec::template(fill::within(spec, "template"));
        let labels = spec.at(&["template", "metadata", "labels"]).cloned().unwrap_or_default();
        if labels.as_map().is_none_or(Map::is_empty) {
            return;
        }
        if spec.get("selector").and_then(Tree::as_map).is_none_or(Map::is_empty) {
            fill::put(spec, "selector", labels.clone());
        }
        if object.at(&["metadata", "labels"]).and_then(Tree::as_map).is_none_or(Map::is_empty) {
            object.set(&["metadata", "labels"], labels);
        }
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
            cells::labels(object, &["spec", "selector"]),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        checks::not_negative(&mut found, spec, "replicas", SPEC);
        checks::not_negative(&mut found, spec, "minReadySeconds", SPEC);
        if spec.get("selector").and_then(Tree::as_map).is_none_or(Map::is_empty) {
            found.push(FieldError::required(SPEC.child("selector"), ""));
        }
        checks::matches_template(&mut found, object, &Selector::from_set(spec.get("selector")));
        pod_spec::validate::running_template(&mut found, object, "ReplicationController");
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

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
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
