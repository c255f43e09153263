//! `rolebindings` in `rbac.authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Who has a role in a namespace.
pub(crate) struct RoleBinding(pub(crate) Facts);

impl Kind for RoleBinding {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
