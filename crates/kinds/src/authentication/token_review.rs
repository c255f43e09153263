//! `tokenreviews` in `authentication.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// Whose token is this?
pub(crate) struct TokenReview(pub(crate) Facts);

impl Kind for TokenReview {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
