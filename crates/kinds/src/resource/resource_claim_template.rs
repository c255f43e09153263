//! `resourceclaimtemplates` in `resource.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

/// A ResourceClaim to be, one per pod.
pub(crate) struct ResourceClaimTemplate(pub(crate) Facts);

impl Kind for ResourceClaimTemplate {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for request in fill::items(object, &["spec", "spec", "devices", "requests"]) {
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
        vec![cells::name(object), cells::age(object, now)]
    }
}

const COLUMNS: &[Column] = &[Column::name(), cells::AGE];
