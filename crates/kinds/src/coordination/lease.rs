//! `leases` in `coordination.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Who leads, and until when.
pub(crate) struct Lease(pub(crate) Facts);

impl Kind for Lease {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
