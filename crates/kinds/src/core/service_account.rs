//! `serviceaccounts` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Who a pod is.
pub(crate) struct ServiceAccount(pub(crate) Facts);

impl Kind for ServiceAccount {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
