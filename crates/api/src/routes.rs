//! From a parsed request to the function that answers it.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use skiff_kinds::{Kind, Verb};

use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::health::Question;
use crate::server::ApiServer;
use crate::verbs::{self, Subject};
use crate::{aggregation, component_statuses, discovery, openapi, resource_metrics, respond, reviews, subresources};

/// Answers a request that is authenticated and authorized.
pub async fn route(server: &Arc<ApiServer>, mut call: Call) -> ApiResult<Response<Body>> {
    if let Some(service) = server.aggregator.serving(&call.info.path) {
        return Box::pin(aggregation::pass::pass(server, call, &service)).await;
    }
    if !call.info.is_resource {
        if let Some(service) = openapi::remote(server, &call) {
            return Box::pin(aggregation::pass::pass(server, call, &service)).await;
        }
        return Box::pin(path(server, &call)).await;
    }
    let registry = server.registry();
    let info = &call.info;
    if resource_metrics::handles(server, &info.group, &info.version) {
        return Box::pin(resource_metrics::answer(server, &call)).await;
    }
    let Some(kind) = registry.resource(&info.group, &info.version, &info.resource) else {
        return Ok(no_such_page());
    };
    if info.verb.is_empty() && info.subresource != "proxy" {
        return Err(ApiError::method_not_allowed());
    }
    if let Some(warning) = kind.deprecation() {
        call.warn(warning);
        call.annotate("k8s.io/deprecated", "true");
    }
    let subject = subject(server, Arc::clone(kind), &call)?;
    if !subject.subresource.is_empty() {
        return Box::pin(subresources::route(server, call, subject)).await;
    }
    if call.info.parts.len() > 2 {
        return Ok(no_such_page());
    }
    if reviews::handles(subject.kind.as_ref()) {
        return Box::pin(reviews::answer(server, &mut call, &subject)).await;
    }
    if component_statuses::handles(subject.kind.as_ref()) {
        return component_statuses::answer(server, &call, &subject).await;
    }
    verb(server, call, subject).await
}

async fn verb(server: &Arc<ApiServer>, mut call: Call, mut subject: Subject) -> ApiResult<Response<Body>> {
    let verb = allowed(&call, &subject)?;
    match verb {
        // A future is as large as the largest it may hold, and is moved about: what is large stands apart.
        Verb::Get => verbs::get::get(server, &call, &subject).await,
        Verb::List => Box::pin(verbs::list::list(server, &call, &subject)).await,
        Verb::Watch => Box::pin(verbs::watch::watch(server, &call, subject)).await,
        Verb::Create => Box::pin(verbs::create::create(server, &mut call, &mut subject)).await,
        Verb::Update => Box::pin(verbs::update::update(server, &mut call, &subject)).await,
        Verb::Patch => Box::pin(verbs::patch::patch(server, &mut call, &subject)).await,
        Verb::Delete => Box::pin(verbs::delete::delete(server, &mut call, &subject)).await,
        Verb::DeleteCollection => {
            Box::pin(verbs::delete_collection::delete_collection(server, &mut call, &subject)).await
        }
    }
}

/// The verb, if the resource has it and the path is one for it.
fn allowed(call: &Call, subject: &Subject) -> ApiResult<Verb> {
    let facts = subject.kind.facts();
    let named = call.info.path_names_object();
    let verb = match (call.info.verb, named) {
        ("get", true) => Verb::Get,
        ("watch", _) => Verb::Watch,
        ("list", false) => Verb::List,
        ("create", false) => Verb::Create,
        ("update", true) => Verb::Update,
        ("patch", true) => Verb::Patch,
        ("delete", true) => Verb::Delete,
        ("deletecollection", false) => Verb::DeleteCollection,
        _ => return Err(ApiError::method_not_allowed()),
    };
    // Objects of all namespaces together can be read, not written.
    let across = facts.namespaced && subject.namespace.is_empty();
    if !facts.verbs.contains(verb) || (across && !matches!(verb, Verb::List | Verb::Watch)) {
        return Err(ApiError::method_not_allowed());
    }
    Ok(verb)
}

fn subject(server: &Arc<ApiServer>, kind: Arc<dyn Kind>, call: &Call) -> ApiResult<Subject> {
    let info = &call.info;
    let namespaced = kind.facts().namespaced;
    let in_namespace = info.parts.len() > 1 || !info.namespace.is_empty();
    let is_namespaces = kind.facts().plural == *"namespaces" && kind.facts().group == *"";
    if (namespaced && in_namespace && info.namespace.is_empty())
        || (!namespaced && !info.namespace.is_empty() && !is_namespaces)
        || info.parts.iter().any(String::is_empty)
    {
        return Err(ApiError::no_such_path());
    }
    Ok(Subject {
        collection: server.collections.of(kind.as_ref()),
        namespace: if namespaced { info.namespace.clone() } else { String::new() },
        name: if info.path_names_object() { info.name.clone() } else { String::new() },
        subresource: info.subresource.clone(),
        kind,
    })
}

/// What a path that leads nowhere gets: upstream's mux, not a `Status`.
pub fn no_such_page() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn path(server: &Arc<ApiServer>, call: &Call) -> ApiResult<Response<Body>> {
    let path = call.info.path.as_str();
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    if let Some(response) = health(server, call).await {
        return Ok(response);
    }
    match path.trim_end_matches('/') {
        "" => Ok(discovery::root(server)),
        "/version" => Ok(respond::json_bytes(discovery::version(&server.config.build))),
        "/metrics" => Ok(crate::metrics::answer(server)),
        "/metrics/slis" => Ok(crate::metrics::slis(server)),
        "/.well-known/openid-configuration" => {
            Ok(discovery::issuer_answer(discovery::openid_configuration(server), "application/json"))
        }
        "/openid/v1/jwks" => Ok(discovery::issuer_answer(discovery::jwks(server), "application/jwk-set+json")),
        trimmed if trimmed.starts_with("/openapi/") => openapi::answer(server, call, trimmed).await,
        trimmed
            if trimmed == "/api"
                || trimmed.starts_with("/api/")
                || trimmed == "/apis"
                || trimmed.starts_with("/apis/") =>
        {
            discovery::answer(server, call, trimmed)
        }
        _ => Ok(dump(server, path).unwrap_or_else(no_such_page)),
    }
}

fn dump(server: &ApiServer, path: &str) -> Option<Response<Body>> {
    let dump = path.strip_prefix("/debug/api_priority_and_fairness/")?;
    if !server.flow_control.is_enabled() {
        return None;
    }
    crate::flow_control::debug::answer(&server.flow_control, dump)
}

async fn health(server: &ApiServer, call: &Call) -> Option<Response<Body>> {
    let question = Question::parse(&call.info.path, &call.query)?;
    if server.config.tasks.shutdown().is_signalled() {
        server.health.set_stopping();
    }
    server.health.answer(question, server.config.store.as_ref()).await
}
