//! `jobs` in `batch/v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::selector::label::{self, Selector};
use skiff_object::time::{Time, human_duration};
use skiff_object::{Map, Tree, name};

use crate::checks::{self, Found, SPEC, jobs};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill, pod_spec, rules};

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
        let mut found = judge(object);
        let spec = checks::spec(object);
        let completions = spec.int_at(&["completions"]).unwrap_or(0);
        if spec.str_at(&["completionMode"]) == "Indexed" && completions > 0 {
            let name = object.str_at(&["metadata", "name"]);
            let host = format!("{name}-{}", completions - 1);
            if !name::dns1123_label(&host).is_empty() {
                let why = format!("will not able to create pod with invalid DNS hostname: {host}");
                found.push(FieldError::invalid("metadata.name", name, why));
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = judge(new);
        completions_change(&mut found, new, old);
        for field in
            ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            checks::immutable(&mut found, new, old, &["spec", field]);
        }
        // A job that never started may still be told where to run.
        let held = old.bool_at(&["spec", "suspend"]) == Some(true)
            && old.at(&["status", "startTime"]).is_none_or(Tree::is_null);
        let mut wanted = new.clone();
        if held {
            for fields in PLACEMENT {
                rules::keep(&mut wanted, old, fields);
            }
        }
        if !rules::same(wanted.at(&["spec", "template"]), old.at(&["spec", "template"])) {
            checks::immutable(&mut found, new, old, &["spec", "template"]);
        }
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        checks::counts(
            &mut found,
            status,
            &["active", "succeeded", "failed", "ready", "terminating"],
            Path::new("status"),
        );
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

/// What of the template decides where pods run.
const PLACEMENT: [&[&str]; 6] = [
    &["spec", "template", "metadata", "labels"],
    &["spec", "template", "metadata", "annotations"],
    &["spec", "template", "spec", "nodeSelector"],
    &["spec", "template", "spec", "affinity"],
    &["spec", "template", "spec", "tolerations"],
    &["spec", "template", "spec", "schedulingGates"],
];

fn judge(object: &Tree) -> Found {
    let mut found = Found::new();
    let spec = checks::spec(object);
    jobs::job_spec(&mut found, spec, SPEC);
    let Some(selector) = checks::given(spec, "selector") else {
        found.push(FieldError::required(SPEC.child("selector"), ""));
        return found;
    };
    found.extend(label::validate(Some(selector), SPEC.child("selector")));
    if let Ok(selector) = Selector::from_object(Some(selector)) {
        checks::matches_template(&mut found, object, &selector);
    }
    found
}

/// An indexed job grows and shrinks as a whole; any other keeps its completions.
fn completions_change(found: &mut Found, new: &Tree, old: &Tree) {
    let [completions, before] = [new, old].map(|job| job.int_at(&["spec", "completions"]));
    if completions == before {
        return;
    }
    let in_step = |job: &Tree| job.int_at(&["spec", "completions"]) == job.int_at(&["spec", "parallelism"]);
    if new.str_at(&["spec", "completionMode"]) != "Indexed" || completions.is_none() || before.is_none() {
        checks::immutable(found, new, old, &["spec", "completions"]);
    } else if !in_step(new) || !in_step(old) {
        let why = "can only be modified in tandem with spec.parallelism";
        found.push(FieldError::invalid("spec.completions", completions.unwrap_or(0), why));
    }
}
