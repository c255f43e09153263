//! `localsubjectaccessreviews` in `authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// May they do this in this namespace?
pub(crate) struct LocalSubjectAccessReview(pub(crate) Facts);

impl Kind for LocalSubjectAccessReview {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
