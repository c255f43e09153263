//! Requests that are answered and not stored: who am I, may I.

use http::Response;
use skiff_kinds::Kind;

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;
use crate::verbs::Subject;

/// Whether a resource is a review.
pub fn handles(kind: &dyn Kind) -> bool {
    let facts = kind.facts();
    matches!(facts.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io") && !facts.is_stored()
}

/// Answers a review.
///
/// # Errors
/// As any create.
pub async fn answer(_server: &ApiServer, _call: &mut Call, _subject: &Subject) -> ApiResult<Response<Body>> {
    Err(ApiError::method_not_allowed())
}
