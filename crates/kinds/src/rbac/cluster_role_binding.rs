//! `clusterrolebindings` in `rbac.authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Who has a ClusterRole everywhere.
pub(crate) struct ClusterRoleBinding(pub(crate) Facts);

impl Kind for ClusterRoleBinding {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
