//! `deployments` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::time::Time;

use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::table::Column;
use crate::{cells, fill, pod_spec, rules};

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
        Some(ScalePaths::new(&["spec", "replicas"], &["status", "replicas"], &["spec", "selector"]))
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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        checks::not_negative(&mut found, spec, "replicas", SPEC);
        checks::workload_selector(&mut found, object, "deployment");
        pod_spec::validate::running_template(&mut found, object, "ReplicaSet");
        strategy(&mut found, spec.get("strategy").unwrap_or(&Tree::Null));
        for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            checks::not_negative(&mut found, spec, field, SPEC);
        }
        if let Some(deadline) = spec.int_at(&["progressDeadlineSeconds"])
            && deadline <= spec.int_at(&["minReadySeconds"]).unwrap_or(0)
        {
            let why = "must be greater than minReadySeconds";
            found.push(FieldError::invalid(SPEC.child("progressDeadlineSeconds"), deadline, why));
        }
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
            checks::replica_status(&mut found, new, old, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
        }
        found
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

fn strategy(found: &mut Vec<FieldError>, strategy: &Tree) {
    let path = SPEC.child("strategy");
    let rolling = strategy.get("rollingUpdate").filter(|rolling| !rolling.is_null());
    match strategy.str_at(&["type"]) {
        "Recreate" if rolling.is_some() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            found.push(FieldError::forbidden(path.child("rollingUpdate"), why));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = rolling else {
                found.push(FieldError::required(path, "this should be defaulted and never be nil"));
                return;
            };
            checks::count_or_percent(found, rolling, "maxUnavailable", path);
            checks::count_or_percent(found, rolling, "maxSurge", path);
            if checks::is_nothing(rolling.get("maxUnavailable")) && checks::is_nothing(rolling.get("maxSurge")) {
                let value = BadValue::from(rolling.get("maxUnavailable"));
                let why = "may not be 0 when `maxSurge` is 0";
                found.push(FieldError::invalid(path.child("maxUnavailable"), value, why));
            }
        }
        other => found.push(FieldError::not_supported(path.child("type"), other, &["Recreate", "RollingUpdate"])),
    }
}
