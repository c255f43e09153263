//! `csistoragecapacities` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// How much storage there is to hand out.
pub(crate) struct CSIStorageCapacity(pub(crate) Facts);

impl Kind for CSIStorageCapacity {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, _now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["storageClassName"]),
            cells::text_or(object, &["capacity"], "<unset>"),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("StorageClassName", "string", "Which class it is about."),
    Column::new("Capacity", "string", "How much fits."),
];
