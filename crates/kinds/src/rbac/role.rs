//! `roles` in `rbac.authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Permissions in a namespace.
pub(crate) struct Role(pub(crate) Facts);

impl Kind for Role {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
