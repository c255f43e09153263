//! `serviceaccounts` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Who a pod is.
pub(crate) struct ServiceAccount(pub(crate) Facts);

impl Kind for ServiceAccount {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::size(object, &["secrets"]), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Secrets", "string", "How many secrets it refers to."), cells::AGE];
