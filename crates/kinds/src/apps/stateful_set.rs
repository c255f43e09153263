//! `statefulsets` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::table::Column;
use crate::{cells, fill, pod_spec, rules};

/// Pods with names and storage of their own.
pub(crate) struct StatefulSet(pub(crate) Facts);

impl Kind for StatefulSet {
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
        fill::text(spec, "podManagementPolicy", "OrderedReady");
        let strategy = fill::within(spec, "updateStrategy");
        fill::text(strategy, "type", "RollingUpdate");
        if strategy.str_at(&["type"]) == "RollingUpdate" {
            let rolling = fill::within(strategy, "rollingUpdate");
            fill::absent(rolling, "partition", 0);
            fill::absent(rolling, "maxUnavailable", 1);
        }
        let retention = fill::within(spec, "persistentVolumeClaimRetentionPolicy");
        fill::text(retention, "whenDeleted", "Retain");
        fill::text(retention, "whenScaled", "Retain");
        fill::absent(spec, "replicas", 1);
        fill::absent(spec, "revisionHistoryLimit", 10);
        for claim in fill::items(spec, &["volumeClaimTemplates"]) {
            fill::put(claim, "apiVersion", "v1");
            fill::put(claim, "kind", "PersistentVolumeClaim");
            pod_spec::volume_claim_spec(fill::within(claim, "spec"));
            fill::text(fill::within(claim, "status"), "phase", "Pending");
        }
        pod_spec::template(fill::within(fill::within(object, "spec"), "template"));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["spec", "template", "spec"]);
        let ready = cells::count(object, &["status", "readyReplicas"]);
        let wanted = cells::count(object, &["spec", "replicas"]);
        vec![cells::name(object), format!("{ready}/{wanted}").into(), cells::age(object, now), containers, images]
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let mut rest = new.get("spec").cloned().unwrap_or_default();
        let before = old.get("spec").unwrap_or(&Tree::Null);
        for field in CHANGEABLE {
            rules::keep(&mut rest, before, &[field]);
        }
        if !rules::same(Some(&rest), Some(before)) {
            found.push(FieldError::forbidden(
                SPEC,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            ));
        }
        found
    }

    fn validate_subresource(&self, subresource: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        if subresource == "status" {
            checks::replica_status(
                &mut found,
                new,
                old,
                &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            );
        }
        found
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        match spec.str_at(&["podManagementPolicy"]) {
            "" => found.push(FieldError::required(SPEC.child("podManagementPolicy"), "")),
            "OrderedReady" | "Parallel" => {}
            other => {
                let why = "must be 'OrderedReady' or 'Parallel'";
                found.push(FieldError::invalid(SPEC.child("podManagementPolicy"), other, why));
            }
        }
        strategy(&mut found, spec.get("updateStrategy").unwrap_or(&Tree::Null), SPEC.child("updateStrategy"));
        checks::within(spec, "persistentVolumeClaimRetentionPolicy", SPEC, |policy, path| {
            for field in ["whenDeleted", "whenScaled"] {
                checks::only(&mut found, policy, field, path, &["Retain", "Delete"]);
            }
        });
        checks::counts(&mut found, spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"], SPEC);
        checks::within(spec, "ordinals", SPEC, |ordinals, path| {
            checks::not_negative(&mut found, ordinals, "start", path);
        });
        checks::workload_selector(&mut found, object, "statefulset");
        pod_spec::validate::running_template(&mut found, object, "StatefulSet");
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Ready", "string", "Ready pods of those wanted."),
    cells::AGE,
    cells::CONTAINERS,
    cells::IMAGES,
];

const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn strategy(found: &mut Found, strategy: &Tree, path: Path<'_>) {
    let rolling = checks::given(strategy, "rollingUpdate");
    match strategy.str_at(&["type"]) {
        "" => found.push(FieldError::required(path, "")),
        "OnDelete" => {
            if rolling.is_some() {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                found.push(FieldError::invalid(path.child("rollingUpdate"), BadValue::from(rolling), why));
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return };
            let path = path.child("rollingUpdate");
            checks::not_negative(found, rolling, "partition", path);
            checks::count_or_percent(found, rolling, "maxUnavailable", path);
            checks::not_above_all(found, rolling, "maxUnavailable", path);
            if checks::given(rolling, "maxUnavailable").is_some_and(|value| checks::is_nothing(Some(value))) {
                let value = BadValue::from(rolling.get("maxUnavailable"));
                found.push(FieldError::invalid(path.child("maxUnavailable"), value, "cannot be 0"));
            }
        }
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            found.push(FieldError::invalid(path, BadValue::from(strategy), why));
        }
    }
}
