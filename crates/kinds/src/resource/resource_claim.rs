//! `resourceclaims` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

/// A wish for devices.
pub(crate) struct ResourceClaim(pub(crate) Facts);

impl Kind for ResourceClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for request in fill::items(object, &["spec", "devices", "requests"]) {
            fill::each(request, &["exactly"], fill::device_request);
            for alternative in fill::items(request, &["firstAvailable"]) {
                fill::device_request(alternative);
            }
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let mut states = Vec::new();
        if cells::is_deleting(object) {
            states.push("deleted");
        }
        if object.at(&["status", "allocation"]).is_none_or(Tree::is_null) {
            if !cells::is_deleting(object) {
                states.push("pending");
            }
        } else {
            states.push("allocated");
        }
        if !object.list_at(&["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
        vec![cells::name(object), states.join(",").into(), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("State", "string", "Whether it is allocated and in use."), cells::AGE];
