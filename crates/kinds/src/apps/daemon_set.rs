//! `daemonsets` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill, pod_spec, rules};

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

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["spec", "template", "spec"]);
        vec![
            cells::name(object),
            cells::number(object, &["status", "desiredNumberScheduled"]),
            cells::number(object, &["status", "currentNumberScheduled"]),
            cells::number(object, &["status", "numberReady"]),
            cells::number(object, &["status", "updatedNumberScheduled"]),
            cells::number(object, &["status", "numberAvailable"]),
            cells::labels(object, &["spec", "template", "spec", "nodeSelector"]),
            cells::age(object, now),
            containers,
            images,
            cells::selector(object, &["spec", "selector"]),
        ]
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec", "selector"]);
        found
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        checks::workload_selector(&mut found, object, "daemonset");
        pod_spec::validate::running_template(&mut found, object, "DaemonSet");
        checks::counts(&mut found, spec, &["minReadySeconds", "revisionHistoryLimit"], SPEC);
        let strategy = spec.get("updateStrategy").unwrap_or(&Tree::Null);
        let path = SPEC.child("updateStrategy");
        match (strategy.str_at(&["type"]), checks::given(strategy, "rollingUpdate")) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => found.push(FieldError::required(path.child("rollingUpdate"), "")),
            ("RollingUpdate", Some(rolling)) => self::rolling(&mut found, rolling, path.child("rollingUpdate")),
            _ => checks::only(&mut found, strategy, "type", path, &["RollingUpdate", "OnDelete"]),
        }
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        checks::counts(&mut found, status, &COUNTS, Path::new("status"));
        checks::not_decremented(&mut found, new, old, "collisionCount");
        found
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

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Desired", "integer", "How many nodes should run a pod."),
    Column::new("Current", "integer", "How many nodes run a pod."),
    Column::new("Ready", "integer", "How many nodes have a ready pod."),
    Column::new("Up-to-date", "integer", "How many nodes run the current template."),
    Column::new("Available", "integer", "How many nodes have an available pod."),
    Column::new("Node Selector", "string", "The nodes that are meant."),
    cells::AGE,
    cells::CONTAINERS,
    cells::IMAGES,
    cells::SELECTOR,
];

/// What the status counts.
const COUNTS: [&str; 9] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

/// Either pods go first or pods come first.
fn rolling(found: &mut Found, rolling: &Tree, path: Path<'_>) {
    for field in ["maxUnavailable", "maxSurge"] {
        checks::count_or_percent(found, rolling, field, path);
        checks::not_above_all(found, rolling, field, path);
    }
    let nothing = |field: &str| checks::given(rolling, field).is_none_or(|value| checks::is_nothing(Some(value)));
    if nothing("maxUnavailable") && nothing("maxSurge") {
        let why = "cannot be 0 when maxSurge is 0";
        found.push(FieldError::required(path.child("maxUnavailable"), why));
    }
    if !nothing("maxUnavailable") && !nothing("maxSurge") {
        let why = "may not be set when maxUnavailable is non-zero";
        found.push(FieldError::invalid(
            path.child("maxSurge"),
            skiff_object::errors::BadValue::from(rolling.get("maxSurge")),
            why,
        ));
    }
}
