//! `servicecidrs` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Where Service addresses come from.
pub(crate) struct ServiceCIDR(pub(crate) Facts);

impl Kind for ServiceCIDR {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let blocks: Vec<&str> = object.list_at(&["spec", "cidrs"]).iter().filter_map(Tree::as_str).collect();
        vec![cells::name(object), blocks.join(",").into(), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("CIDRs", "string", "The blocks of addresses."), cells::AGE];
