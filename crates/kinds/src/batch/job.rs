//! `jobs` in `batch/v1`.

use crate::rules;
use crate::pod_spec;
use crate::fill;
use skiff_object::{Map, Tree};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};

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
