//! `resourcequotas` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

/// What a namespace may use in total.
pub(crate) struct ResourceQuota(pub(crate) Facts);

impl Kind for ResourceQuota {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for path in [&["spec", "hard"], &["status", "hard"], &["status", "used"]] {
            fill::round_resources(object, path);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::quota(object, false),
            cells::quota(object, true),
            cells::age(object, now),
        ]
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Request", "string", "What is requested of what may be."),
    Column::new("Limit", "string", "What is limited of what may be."),
    cells::AGE,
];
