//! `poddisruptionbudgets` in `policy/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// How many pods may be down by choice.
pub(crate) struct PodDisruptionBudget(pub(crate) Facts);

impl Kind for PodDisruptionBudget {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let bound = |field: &str| cells::scalar(object.at(&["spec", field])).unwrap_or_else(|| "N/A".to_owned());
        vec![
            cells::name(object),
            bound("minAvailable").into(),
            bound("maxUnavailable").into(),
            cells::number(object, &["status", "disruptionsAllowed"]),
            cells::age(object, now),
        ]
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let bounds = ["minAvailable", "maxUnavailable"];
        if bounds.iter().all(|field| checks::given(spec, field).is_some()) {
            let why = "minAvailable and maxUnavailable cannot be both set";
            found.push(FieldError::invalid(SPEC, BadValue::from(spec), why));
        }
        for field in bounds {
            checks::count_or_percent(&mut found, spec, field, SPEC);
            checks::not_above_all(&mut found, spec, field, SPEC);
        }
        found.extend(label::validate(spec.get("selector"), SPEC.child("selector")));
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        checks::only_if_given(&mut found, spec, "unhealthyPodEvictionPolicy", SPEC, &policies);
        found
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        let path = Path::new("status");
        checks::conditions::conditions(&mut found, status, "conditions", path);
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        checks::counts(&mut found, status, &counts, path);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Min Available", "string", "How many pods must stay available."),
    Column::new("Max Unavailable", "string", "How many pods may be unavailable."),
    Column::new("Allowed Disruptions", "integer", "How many pods may be evicted now."),
    cells::AGE,
];
