//! `resourceclaims` in `resource.k8s.io/v1`.

use crate::fill;
use skiff_object::Tree;
use crate::facts::Facts;
use crate::kind::Kind;

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
}
