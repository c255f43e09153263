//! `selfsubjectaccessreviews` in `authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// May I do this?
pub(crate) struct SelfSubjectAccessReview(pub(crate) Facts);

impl Kind for SelfSubjectAccessReview {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
