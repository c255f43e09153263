//! `clusterroles` in `rbac.authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Permissions without a namespace.
pub(crate) struct ClusterRole(pub(crate) Facts);

impl Kind for ClusterRole {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
