//! `configmaps` in `v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Settings that pods read.
pub(crate) struct ConfigMap(pub(crate) Facts);

impl Kind for ConfigMap {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
