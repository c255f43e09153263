//! `subjectaccessreviews` in `authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// May they do this?
pub(crate) struct SubjectAccessReview(pub(crate) Facts);

impl Kind for SubjectAccessReview {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
