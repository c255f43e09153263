//! `resourcequotas` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// What a namespace may use in total.
pub(crate) struct ResourceQuota(pub(crate) Facts);

impl Kind for ResourceQuota {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
