//! `ipaddresses` in `networking.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// An address that is taken, and by whom.
pub(crate) struct IPAddress(pub(crate) Facts);

impl Kind for IPAddress {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
