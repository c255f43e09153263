//! `priorityclasses` in `scheduling.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// How important a pod is.
pub(crate) struct PriorityClass(pub(crate) Facts);

impl Kind for PriorityClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn default(&self, object: &mut Tree) {
        fill::absent(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::number(object, &["value"]),
            (object.bool_at(&["globalDefault"]) == Some(true)).into(),
            cells::age(object, now),
            cells::text_or(object, &["preemptionPolicy"], "PreemptLowerPriority"),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let name = object.str_at(&["metadata", "name"]);
        let value = object.int_at(&["value"]).unwrap_or(0);
        let system = matches!(name, "system-node-critical" | "system-cluster-critical");
        if name.starts_with("system-") && !system {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: this name is \
                       reserved";
            found.push(FieldError::forbidden("metadata.name", why));
        } else if !system && value > HIGHEST_USER_PRIORITY {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            found.push(FieldError::forbidden("value", why));
        }
        let policies = ["Never", "PreemptLowerPriority"];
        checks::maybe_one_of(&mut found, object, "preemptionPolicy", Path::root(), &policies);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        if new.int_at(&["value"]) != old.int_at(&["value"]) {
            found.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        checks::immutable(&mut found, new, old, &["preemptionPolicy"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Value", "integer", "The priority of its pods."),
    Column::new("Global-Default", "boolean", "Whether pods without a class get it."),
    cells::AGE,
    Column::new("PreemptionPolicy", "string", "Whether its pods push others out."),
];

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
