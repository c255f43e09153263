//! `secrets` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Settings that are nobody else's business.
pub(crate) struct Secret(pub(crate) Facts);

impl Kind for Secret {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
