//! `resourceslices` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Devices that a driver offers.
pub(crate) struct ResourceSlice(pub(crate) Facts);

impl Kind for ResourceSlice {
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
        let node = match object.str_at(&["spec", "nodeName"]) {
            "" if object.bool_at(&["spec", "allNodes"]) == Some(true) => "<all>",
            "" => "<unset>",
            node => node,
        };
        vec![
            cells::name(object),
            node.into(),
            cells::text(object, &["spec", "driver"]),
            cells::text(object, &["spec", "pool", "name"]),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Node", "string", "Where the devices are."),
    Column::new("Driver", "string", "Who manages them."),
    Column::new("Pool", "string", "The pool they belong to."),
    cells::AGE,
];
