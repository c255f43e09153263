//! `controllerrevisions` in `apps/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// A past state of a DaemonSet or StatefulSet.
pub(crate) struct ControllerRevision(pub(crate) Facts);

impl Kind for ControllerRevision {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let owners = object.list_at(&["metadata", "ownerReferences"]);
        let owner = owners.iter().find(|owner| owner.bool_at(&["controller"]) == Some(true));
        let owner = owner.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let kind = owner.str_at(&["kind"]).to_lowercase();
                let group = owner.str_at(&["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{kind}{dot}{group}/{}", owner.str_at(&["name"]))
            },
        );
        vec![cells::name(object), owner.into(), cells::number(object, &["revision"]), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        if checks::given(object, "data").is_none() {
            found.push(FieldError::required("data", "data is mandatory"));
        }
        checks::not_negative(&mut found, object, "revision", Path::root());
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::not_negative(&mut found, new, "revision", Path::root());
        checks::immutable(&mut found, new, old, &["data"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Controller", "string", "Whose revision it is."),
    Column::new("Revision", "string", "Its number."),
    cells::AGE,
];
