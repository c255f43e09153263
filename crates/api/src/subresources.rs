//! Paths below an object.

use std::sync::Arc;

use http::Response;
use skiff_kinds::Verb;

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::routes;
use crate::server::ApiServer;
use crate::verbs::{self, Subject};

/// Answers a request for a subresource.
///
/// # Errors
/// Whatever its verb answers.
pub async fn route(server: &Arc<ApiServer>, mut call: Call, subject: Subject) -> ApiResult<Response<Body>> {
    let kind = Arc::clone(&subject.kind);
    let Some(sub) = kind.facts().subresource(&subject.subresource) else { return Ok(routes::no_such_page()) };
    let verb = match call.info.verb {
        "get" => Verb::Get,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "create" => Verb::Create,
        "delete" => Verb::Delete,
        _ => return Err(ApiError::method_not_allowed()),
    };
    if !sub.verbs.contains(verb) {
        return Err(ApiError::method_not_allowed());
    }
    if sub.ty == Some(kind.facts().ty) {
        // The object itself is exchanged, and only a part of it counts.
        return match verb {
            Verb::Get => verbs::get::get(server, &call, &subject).await,
            Verb::Update => verbs::update::update(server, &mut call, &subject).await,
            Verb::Patch => verbs::patch::patch(server, &mut call, &subject).await,
            _ => Err(ApiError::method_not_allowed()),
        };
    }
    Err(ApiError::unavailable(format!("subresource {} is not served yet", subject.subresource)))
}
