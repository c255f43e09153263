//! `csinodes` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Storage drivers on a node.
pub(crate) struct CSINode(pub(crate) Facts);

impl Kind for CSINode {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::size(object, &["spec", "drivers"]), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Drivers", "integer", "How many drivers run there."), cells::AGE];
