//! `resourceclaims` in `resource.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A wish for devices.
pub(crate) struct ResourceClaim(pub(crate) Facts);

impl Kind for ResourceClaim {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
