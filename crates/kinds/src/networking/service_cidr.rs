//! `servicecidrs` in `networking.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Where Service addresses come from.
pub(crate) struct ServiceCIDR(pub(crate) Facts);

impl Kind for ServiceCIDR {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
