//! `selfsubjectrulesreviews` in `authorization.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// What may I do?
pub(crate) struct SelfSubjectRulesReview(pub(crate) Facts);

impl Kind for SelfSubjectRulesReview {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
