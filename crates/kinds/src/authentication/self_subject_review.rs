//! `selfsubjectreviews` in `authentication.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Who am I?
pub(crate) struct SelfSubjectReview(pub(crate) Facts);

impl Kind for SelfSubjectReview {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
