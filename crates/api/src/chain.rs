//! The way of every request, in upstream's order: panic guard, audit id, authenticate,
//! impersonate, authorize, deadline, verb. One screen.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use crate::audit::latency::Layer;
use crate::authn::chain::Credentials;
use crate::authn::{UserInfo, impersonation};
use crate::authz::{self, Attributes, Decision};
use crate::body::{Body, RequestBody};
use crate::errors::{ApiError, ApiResult};
use crate::metrics::Asked;
use crate::request::RequestInfo;
use crate::serve::Peer;
use crate::server::ApiServer;
use crate::trail::Trail;
use crate::{flow_control, respond, routes, traces};

/// Warnings in one answer; what is beyond tells a client nothing new.
const WARNINGS_MAX: usize = 64;
/// Audit annotations of one request: every webhook adds a few.
const AUDIT_ANNOTATIONS_MAX: usize = 256;

/// One request on its way through the server.
pub struct Call {
    /// What the path asks for.
    pub info: Arc<RequestInfo>,
    /// The method.
    pub method: Method,
    /// The headers.
    pub headers: HeaderMap,
    /// The query, undecoded.
    pub query: String,
    /// Who the request counts as.
    pub user: Arc<UserInfo>,
    /// Who really sends it, when that is somebody else.
    pub impersonator: Option<Impersonator>,
    /// The body, until it is read.
    pub body: Option<RequestBody>,
    /// The connection itself, when the client asked to upgrade it.
    pub upgrade: Option<OnUpgrade>,
    /// Where the client connects from, when it is on the network.
    pub remote: Option<std::net::IpAddr>,
    /// What the client should know besides the answer.
    pub warnings: Arc<Mutex<Vec<String>>>,
    /// What admission notes about the request for the audit log; the first note of a key stays.
    pub audit_annotations: Arc<Mutex<BTreeMap<String, String>>>,
    /// What else is noted about it.
    pub trail: Arc<Trail>,
}

/// Who acts as somebody else.
#[derive(Clone, Debug)]
pub struct Impersonator {
    /// Who it really is.
    pub user: Arc<UserInfo>,
    /// The verb that allowed it (KEP-5284); empty for the legacy `impersonate`.
    pub constraint: &'static str,
}

impl Call {
    /// Adds a `Warning` header to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock();
        let text = text.into();
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Notes something about the request for the audit log.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        let mut annotations = self.audit_annotations.lock();
        if annotations.len() < AUDIT_ANNOTATIONS_MAX && !annotations.contains_key(key) {
            annotations.insert(key.to_owned(), value.into());
        }
    }

    /// Reads the body; empty when it has been read before.
    pub async fn read_body(&mut self) -> ApiResult<bytes::Bytes> {
        match self.body.take() {
            Some(body) => {
                let bytes = body.read().await?;
                if let Some(recording) = self.trail.recording.get() {
                    recording.request_body(&bytes, &self.headers);
                }
                Ok(bytes)
            }
            None => Ok(bytes::Bytes::new()),
        }
    }

    /// The `User-Agent`.
    pub fn user_agent(&self) -> &str {
        self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Whether the request may stay open for as long as it likes.
    pub(crate) fn is_long_running(&self) -> bool {
        self.info.verb == "watch"
            || self.info.verb == "proxy"
            || matches!(self.info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

/// Answers one request.
pub async fn handle(server: &Arc<ApiServer>, request: Request<RequestBody>, peer: Peer) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let began = server.clock().instant();
    let query = head.uri.query().unwrap_or("").to_owned();
    let info = RequestInfo::parse(&head.method, head.uri.path(), &query);
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let trail = Arc::<Trail>::default();
    let annotations = Arc::<Mutex<BTreeMap<String, String>>>::default();
    let audit_id = audit_id(server, &head.headers);
    if matches!(peer, Peer::Remote { .. })
        && let Some(mut refusal) = server.closing.refusal(&info.path, &head.headers)
    {
        finish(&mut refusal, &audit_id, &[]);
        return refusal;
    }
    let _ = trail.audit_id.set(audit_id.clone());
    let call = Call {
        info: Arc::new(info),
        method: head.method,
        query,
        user: Arc::clone(&server.nobody),
        impersonator: None,
        body: Some(body),
        upgrade: head.extensions.remove::<OnUpgrade>(),
        remote: peer.ip(),
        warnings: Arc::clone(&warnings),
        audit_annotations: Arc::clone(&annotations),
        trail: Arc::clone(&trail),
        headers: head.headers,
    };
    let encodings = (call.method == Method::GET).then(|| call.headers.get(header::ACCEPT_ENCODING).cloned()).flatten();
    let accepted = respond::ErrorForm::of(&call);
    let asked = Asked::of(&call);
    let _inflight = (!call.is_long_running()).then(|| server.metrics.inflight(asked.is_mutating()));
    let (outcome, panicked) = match AssertUnwindSafe(answer(server, call, peer, began)).catch_unwind().await {
        Ok(outcome) => (outcome, false),
        Err(_) => {
            tracing::error!(path = asked.path(), "request panicked");
            (Err(ApiError::internal("the server could not answer this request")), true)
        }
    };
    let mut response = outcome.unwrap_or_else(|error| respond::error(&error, &accepted));
    finish(&mut response, &audit_id, &warnings.lock());
    trail.mark(&mut response);
    if panicked {
        response = respond::text(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "This request caused apiserver to panic. Look in the logs for details.\n",
        );
        finish(&mut response, &audit_id, &[]);
    }
    if let Some(policy) = &server.transport_security {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, policy.clone());
    }
    if let Some(recording) = trail.recording.get() {
        annotations.lock().iter().for_each(|(key, value)| recording.annotate(key, value));
        for (key, value) in trail.latencies.annotations(server.clock().instant() - began) {
            recording.annotate(key, &value);
        }
        recording.answered(&mut response, panicked).await;
    }
    respond::compress(&mut response, encodings.as_ref());
    if let Some(trace) = trail.trace.get() {
        let attributes = vec![
            ("http.request.method", asked.method().to_owned()),
            ("url.path", asked.path().to_owned()),
            ("http.response.status_code", response.status().as_u16().to_string()),
            ("audit-id", audit_id.to_str().unwrap_or("").to_owned()),
        ];
        server.traces.end(trace, asked.span_name(), attributes, response.status().is_server_error());
    }
    server.metrics.answered(server, &asked, server.clock().instant() - began, &mut response);
    response
}

async fn answer(
    server: &Arc<ApiServer>,
    mut call: Call,
    peer: Peer,
    began: tokio::time::Instant,
) -> ApiResult<Response<Body>> {
    let authenticated = authenticate(server, &mut call, &peer).await;
    call.trail.latencies.spent(Layer::Authentication, server.clock().instant() - began);
    server.metrics.authenticated(authenticated.as_deref().ok());
    server.audit.begin(&call, authenticated.as_deref().ok()).await?;
    call.user = authenticated?;
    let trace = server.traces.begin(&call.headers, &call.user, server.clock().instant() - began);
    if let Some(trace) = &trace {
        let _ = call.trail.trace.set(Arc::clone(trace));
    }
    traces::within(trace, authenticated_answer(server, call)).await
}

/// Answers a request of which it is known who sends it.
async fn authenticated_answer(server: &Arc<ApiServer>, mut call: Call) -> ApiResult<Response<Body>> {
    let clock = server.clock();
    let mut since = clock.instant();
    let mut spent = |trail: &Trail, layer| {
        let now = clock.instant();
        trail.latencies.spent(layer, now - std::mem::replace(&mut since, now));
    };
    impersonate(server, &mut call).await?;
    if call.impersonator.is_some() {
        spent(&call.trail, Layer::Impersonation);
    }
    let longest = server.config.limits.request_timeout;
    let deadline = if call.is_long_running() { longest } else { deadline(&call, longest)? };
    let waiting = traces::span("Priority and fairness");
    let entered = flow_control::enter(server, &call, deadline).await;
    spent(&call.trail, Layer::Queue);
    drop(waiting);
    let seat = match entered {
        Ok(seat) => seat,
        Err(refusal) => return Ok(refusal),
    };
    let authorizing = traces::span("Authorization");
    authorize(server, &call).await?;
    spent(&call.trail, Layer::Authorization);
    drop(authorizing);
    let _serving = traces::span(verb_span(call.info.verb));
    if call.is_long_running() {
        let _seat = seat;
        return routes::route(server, call).await;
    }
    let answer = if matches!(call.info.verb, "create" | "update" | "patch" | "delete" | "deletecollection") {
        tokio::time::timeout(deadline, to_its_end(server, call, seat, deadline + longest)).await
    } else {
        let answer = tokio::time::timeout(deadline, routes::route(server, call)).await;
        // A list that is still being sent keeps its seats.
        answer.map(|answer| answer.map(|response| response.map(|body| body.holding(seat))))
    };
    answer.unwrap_or_else(|_| Err(ApiError::timeout("request did not complete within the allotted timeout")))
}

/// Does a write to its end though nobody may wait for the answer any more: what belongs to it, an
/// address taken before or a quota counted after, is not left half done when a client hangs up.
async fn to_its_end(
    server: &Arc<ApiServer>,
    call: Call,
    seat: flow_control::Entered,
    longest: Duration,
) -> ApiResult<Response<Body>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (trace, owned) = (call.trail.trace.get().cloned(), Arc::clone(server));
    server.config.tasks.spawn_draining("write", async move {
        let _seat = seat;
        let work = tokio::time::timeout(longest, traces::within(trace, routes::route(&owned, call)));
        let _ = sender.send(AssertUnwindSafe(work).catch_unwind().await);
    });
    match receiver.await {
        Ok(Ok(Ok(answer))) => answer,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Ok(Ok(Err(_))) | Err(_) => Err(ApiError::timeout("request did not complete within the allotted timeout")),
    }
}

/// The name of the span around a verb, as upstream has it.
fn verb_span(verb: &str) -> &'static str {
    match verb {
        "get" => "Get",
        "list" => "List",
        "watch" => "Watch",
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" => "Delete",
        "deletecollection" => "DeleteCollection",
        _ => "Handle",
    }
}

fn audit_id(server: &ApiServer, headers: &HeaderMap) -> HeaderValue {
    match headers.get("audit-id") {
        Some(value) if !value.is_empty() && value.len() <= 64 => value.clone(),
        _ => HeaderValue::from_str(&server.random().uuid()).unwrap_or(HeaderValue::from_static("")),
    }
}

async fn authenticate(server: &Arc<ApiServer>, call: &mut Call, peer: &Peer) -> ApiResult<Arc<UserInfo>> {
    let certificate = match peer {
        Peer::Local(user) => return Ok(Arc::clone(user)),
        Peer::Remote { certificate, .. } => certificate.as_deref(),
    };
    let shown = Credentials { headers: &call.headers, path: &call.info.path, certificate };
    match server.authn.authenticate(server, &shown).await {
        Ok(user) => {
            server.authn.forget_credentials(server, &mut call.headers);
            Ok(user)
        }
        Err(error) => {
            tracing::debug!(%error, "unable to authenticate the request");
            Err(ApiError::unauthorized())
        }
    }
}

async fn impersonate(server: &ApiServer, call: &mut Call) -> ApiResult<()> {
    let Some(wanted) = impersonation::requested(&mut call.headers)? else { return Ok(()) };
    let allowed = impersonation::check(server, &wanted, &Attributes::of(&call.user, &call.info)).await?;
    if let Some(recording) = call.trail.recording.get() {
        recording.impersonated(&allowed.user, allowed.constraint);
    }
    let real = std::mem::replace(&mut call.user, Arc::new(allowed.user));
    call.impersonator = Some(Impersonator { user: real, constraint: allowed.constraint });
    Ok(())
}

async fn authorize(server: &ApiServer, call: &Call) -> ApiResult<()> {
    let limited = matches!(call.info.verb, "list" | "watch" | "deletecollection");
    let selectors = limited.then(|| authz::Selectors::of_query(&call.query)).flatten();
    let attributes = Attributes { selectors: selectors.as_ref(), ..Attributes::of(&call.user, &call.info) };
    let decision = decide(server, &attributes).await;
    let word = if matches!(decision, Decision::Allow(_)) { "allow" } else { "forbid" };
    call.trail.annotate("authorization.k8s.io/decision", word);
    call.trail.annotate("authorization.k8s.io/reason", decision.reason());
    outcome(&attributes, &decision)?;
    // What a client opens by reading it can also write to (upstream since 1.35).
    if call.info.verb == "get" && matches!(call.info.subresource.as_str(), "exec" | "attach" | "portforward") {
        permit(server, &Attributes { verb: "create", ..attributes }).await?;
    }
    Ok(())
}

/// Nothing when it is allowed, the 403 when it is not.
pub async fn permit(server: &ApiServer, attributes: &Attributes<'_>) -> ApiResult<()> {
    outcome(attributes, &decide(server, attributes).await)
}

async fn decide(server: &ApiServer, attributes: &Attributes<'_>) -> Decision {
    let decision = authz::decide(server.config.authorizer.as_ref(), attributes).await;
    server.metrics.decided(&decision);
    decision
}

fn outcome(attributes: &Attributes<'_>, decision: &Decision) -> ApiResult<()> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(authz::forbidden(attributes, reason)),
    }
}

fn deadline(call: &Call, longest: Duration) -> ApiResult<Duration> {
    let Some(text) = crate::request::options::first(&call.query, "timeout").filter(|text| !text.is_empty()) else {
        return Ok(longest);
    };
    match skiff_object::time::parse_duration(&text) {
        Ok(nanos) if nanos > 0 => Ok(Duration::from_nanos(nanos.unsigned_abs()).min(longest)),
        Ok(_) => Ok(longest),
        Err(error) => Err(ApiError::bad_request(format!("invalid timeout specified in the request URL - {error}"))),
    }
}

fn finish(response: &mut Response<Body>, audit_id: &HeaderValue, warnings: &[String]) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("audit-id"), audit_id.clone());
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            headers.append(header::WARNING, value);
        }
    }
}
