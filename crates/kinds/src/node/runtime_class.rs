//! `runtimeclasses` in `node.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// How containers are run.
pub(crate) struct RuntimeClass(pub(crate) Facts);

impl Kind for RuntimeClass {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
