//! `flowschemas` in `flowcontrol.apiserver.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Which requests belong to which priority level.
pub(crate) struct FlowSchema(pub(crate) Facts);

impl Kind for FlowSchema {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        fill::number(fill::within(object, "spec"), "matchingPrecedence", 1_000);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let conditions = object.list_at(&["status", "conditions"]);
        let dangling =
            conditions.iter().find(|one| one.str_at(&["type"]) == "Dangling").map(|one| one.str_at(&["status"]));
        vec![
            cells::name(object),
            cells::text(object, &["spec", "priorityLevelConfiguration", "name"]),
            cells::number(object, &["spec", "matchingPrecedence"]),
            cells::text_or(object, &["spec", "distinguisherMethod", "type"], "<none>"),
            cells::age(object, now),
            dangling.unwrap_or("?").into(),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("PriorityLevel", "string", "Where its requests wait."),
    Column::new("MatchingPrecedence", "integer", "When it is asked."),
    Column::new("DistinguisherMethod", "string", "What tells flows apart."),
    cells::AGE,
    Column::new("MissingPL", "string", "Whether the priority level is missing."),
];
