//! Paths below an object.

use std::sync::Arc;

use http::Response;
use skiff_kinds::Verb;

use crate::admission;
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::routes;
use crate::server::ApiServer;
use crate::verbs::{self, Subject};

pub mod binding;
pub mod connect;
pub mod eviction;
pub mod proxy;
pub mod scale;
pub mod token;

/// Answers a request for a subresource.
///
/// # Errors
/// Whatever its verb answers.
pub async fn route(server: &Arc<ApiServer>, mut call: Call, subject: Subject) -> ApiResult<Response<Body>> {
    let kind = Arc::clone(&subject.kind);
    let Some(sub) = kind.facts().subresource(&subject.subresource) else { return Ok(routes::no_such_page()) };
    if sub.name == *"proxy" && (subject.kind.facts().namespaced != subject.namespace.is_empty()) {
        admission::exchanged::connection(server, &mut call, &subject).await?;
        return proxy::proxy(server, call, &subject).await;
    }
    let verb = match call.info.verb {
        "get" => Verb::Get,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "create" => Verb::Create,
        "delete" => Verb::Delete,
        _ => return Err(ApiError::method_not_allowed()),
    };
    if !sub.verbs.contains(verb) || (kind.facts().namespaced && subject.namespace.is_empty()) {
        return Err(ApiError::method_not_allowed());
    }
    if matches!(sub.name.as_str(), "exec" | "attach" | "portforward") {
        admission::exchanged::connection(server, &mut call, &subject).await?;
    }
    if call.info.parts.len() > 3 {
        return Ok(routes::no_such_page());
    }
    match sub.name.as_str() {
        "scale" => scale::answer(server, &mut call, &subject, verb).await,
        "binding" => binding::bind(server, &mut call, &subject).await,
        "eviction" => eviction::evict(server, &mut call, &subject).await,
        "token" => token::issue(server, &mut call, &subject).await,
        "log" | "exec" | "attach" | "portforward" => connect::connect(server, call, &subject).await,
        // The object itself is exchanged, and only a part of it counts.
        _ if sub.ty == Some(kind.facts().ty) => match verb {
            Verb::Get => verbs::get::get(server, &call, &subject).await,
            Verb::Update => verbs::update::update(server, &mut call, &subject).await,
            Verb::Patch => verbs::patch::patch(server, &mut call, &subject).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        name => Err(ApiError::unavailable(format!("subresource {name} is not served"))),
    }
}
