//! `resourceclaimtemplates` in `resource.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A ResourceClaim to be, one per pod.
pub(crate) struct ResourceClaimTemplate(pub(crate) Facts);

impl Kind for ResourceClaimTemplate {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
