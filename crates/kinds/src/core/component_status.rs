//! `componentstatuses` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// The health of a control-plane component; read only, never stored.
pub(crate) struct ComponentStatus(pub(crate) Facts);

impl Kind for ComponentStatus {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn deprecation(&self) -> Option<&str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }
}
