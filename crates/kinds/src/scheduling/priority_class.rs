//! `priorityclasses` in `scheduling.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
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
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Value", "integer", "The priority of its pods."),
    Column::new("Global-Default", "boolean", "Whether pods without a class get it."),
    cells::AGE,
    Column::new("PreemptionPolicy", "string", "Whether its pods push others out."),
];
