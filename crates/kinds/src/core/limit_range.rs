//! `limitranges` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Defaults and bounds for what one object in a namespace may ask for.
pub(crate) struct LimitRange(pub(crate) Facts);

impl Kind for LimitRange {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
