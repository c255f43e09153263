//! `jobs` in `batch/v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::selector::label::{self, Selector};
use skiff_object::time::{Time, human_duration};
use skiff_object::{Map, Tree};

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::pod_spec;
use crate::rules;
use crate::table::Column;

/// Runs pods until enough of them succeed.
pub(crate) struct Job(pub(crate) Facts);

impl Kind for Job {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let labels = object.at(&["spec", "template", "metadata", "labels"]).cloned().unwrap_or_default();
        let none = |labels: Option<&Tree>| labels.and_then(Tree::as_map).is_none_or(Map::is_empty);
        if !none(Some(&labels)) && none(object.at(&["metadata", "labels"])) {
            object.set(&["metadata", "labels"], labels);
        }
        let spec = fill::within(object, "spec");
        let given = |spec: &Tree, field: &str| spec.get(field).is_some_and(|value| !value.is_null());
        if !given(spec, "parallelism") {
            if !given(spec, "completions") {
                fill::put(spec, "completions", 1);
            }
            fill::put(spec, "parallelism", 1);
        }
        let backoff = if given(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        fill::absent(spec, "backoffLimit", backoff);
        fill::absent(spec, "completionMode", "NonIndexed");
        fill::absent(spec, "suspend", false);
        fill::absent(spec, "manualSelector", false);
        let replacement = if given(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        fill::absent(spec, "podReplacementPolicy", replacement);
        for rule in fill::items(spec, &["podFailurePolicy", "rules"]) {
            for pattern in fill::items(rule, &["onPodConditions"]) {
                fill::text(pattern, "status", "True");
            }
        }
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        if object.bool_at(&["spec", "manualSelector"]) != Some(true) {
            select_own_pods(object);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["spec", "template", "spec"]);
        let seconds = |path: &[&str]| Time::parse(object.str_at(path)).ok().map(Time::to_nanos);
        let started = seconds(&["status", "startTime"]);
        let ended = seconds(&["status", "completionTime"]).unwrap_or(now.to_nanos());
        let duration = started.map_or_else(String::new, |started| human_duration(ended.saturating_sub(started)));
        vec![
            cells::name(object),
            status(object).into(),
            completions(object).into(),
            duration.into(),
            cells::age(object, now),
            containers,
            images,
            cells::selector(object, &["spec", "selector"]),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        job_spec(&mut found, spec, SPEC);
        let selector = spec.get("selector");
        if selector.is_none_or(Tree::is_null) {
            found.push(FieldError::required(SPEC.child("selector"), ""));
        } else {
            found.extend(label::validate(selector, SPEC.child("selector")));
            if let Ok(selector) = Selector::from_object(selector) {
                checks::matches_template(&mut found, object, &selector);
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let indexed = new.str_at(&["spec", "completionMode"]) == "Indexed";
        if !indexed {
            checks::immutable(&mut found, new, old, &["spec", "completions"]);
        }
        checks::immutable(&mut found, new, old, &["spec", "selector"]);
        checks::immutable(&mut found, new, old, &["spec", "completionMode"]);
        checks::immutable(&mut found, new, old, &["spec", "podFailurePolicy"]);
        checks::immutable(&mut found, new, old, &["spec", "backoffLimitPerIndex"]);
        // A job that never started may still be told where to run.
        let held = old.bool_at(&["spec", "suspend"]) == Some(true)
            && old.at(&["status", "startTime"]).is_none_or(Tree::is_null);
        if !held {
            checks::immutable(&mut found, new, old, &["spec", "template"]);
        }
        found
    }
}

/// A job selects its pods by its own uid, which the template carries to them.
fn select_own_pods(object: &mut Tree) {
    let uid = object.str_at(&["metadata", "uid"]).to_owned();
    let name = object.str_at(&["metadata", "name"]).to_owned();
    let template = fill::within(fill::within(object, "spec"), "template");
    let labels = fill::within(fill::within(template, "metadata"), "labels");
    for key in ["job-name", "batch.kubernetes.io/job-name"] {
        fill::text(labels, key, &name);
    }
    for key in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
        fill::text(labels, key, &uid);
    }
    let selector = fill::within(fill::within(object, "spec"), "selector");
    fill::text(fill::within(selector, "matchLabels"), "batch.kubernetes.io/controller-uid", &uid);
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Status", "string", "How the job is, in a word."),
    Column::new("Completions", "string", "Successful pods of those wanted."),
    Column::new("Duration", "string", "How long it ran."),
    cells::AGE,
    cells::CONTAINERS,
    cells::IMAGES,
    cells::SELECTOR,
];

fn status(object: &Tree) -> &'static str {
    match () {
        () if cells::has_condition(object, "Complete") => "Complete",
        () if cells::has_condition(object, "Failed") => "Failed",
        () if cells::is_deleting(object) => "Terminating",
        () if cells::has_condition(object, "Suspended") => "Suspended",
        () if cells::has_condition(object, "FailureTarget") => "FailureTarget",
        () if cells::has_condition(object, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(object: &Tree) -> String {
    let done = cells::count(object, &["status", "succeeded"]);
    match (object.int_at(&["spec", "completions"]), cells::count(object, &["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
        (None, _) => format!("{done}/1"),
    }
}

/// Everything wrong with the spec of a job, wherever it stands.
pub(crate) fn job_spec(found: &mut Vec<FieldError>, spec: &Tree, path: Path<'_>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ] {
        checks::not_negative(found, spec, field, path);
    }
    checks::maybe_one_of(found, spec, "completionMode", path, &["Indexed", "NonIndexed"]);
    if spec.str_at(&["completionMode"]) == "Indexed" && spec.int_at(&["completions"]).is_none() {
        found.push(FieldError::required(path.child("completions"), "when completion mode is Indexed"));
    }
    checks::maybe_one_of(found, spec, "podReplacementPolicy", path, &["Failed", "TerminatingOrFailed"]);
    let path = path.child("template");
    pod_spec::validate::template(found, spec.get("template").unwrap_or(&Tree::Null), path);
    let path = path.child("spec");
    match spec.str_at(&["template", "spec", "restartPolicy"]) {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            let why = r#"valid values: "OnFailure", "Never""#;
            found.push(FieldError::required(path.child("restartPolicy"), why));
        }
        other => {
            found.push(FieldError::not_supported(path.child("restartPolicy"), other, &["OnFailure", "Never"]));
        }
    }
}
