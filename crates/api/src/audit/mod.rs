//! The audit log: who asked for what, when, and what became of it.
//!
//! A [`Policy`] says how much of which requests is written; each request that it wants has a
//! [`Recording`] in its trail, from which an [`event`](event::Event) is made at each stage and given to the back
//! ends. Without a policy there is none of it, and a request pays for one look at an empty option.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;
use skiff_base::{Clock, Tasks};
use skiff_object::time::Time;

pub mod backend;
mod event;
pub(crate) mod latency;
pub mod log;
pub mod policy;

use backend::{Backend, Batching, Errors, LogWriter, Mode, Truncation, WebhookWriter};
use event::{AuthenticationMetadata, Event, ObjectRef, ResponseStatus, User};
use log::{Log, LogSettings};
use policy::{Level, Policy, Stage};

use crate::authn::UserInfo;
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::outbound::{Outbound, Target};

/// Bodies above this are not parsed for the log: they would be held three times.
pub(crate) const OBJECT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Annotations of one event.
const ANNOTATIONS_MAX: usize = 128;

/// What the server's flags say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is written (`--audit-policy-file`); nothing is without one.
    pub policy: Option<Policy>,
    /// The log (`--audit-log-*`); none without a path.
    pub log: LogSettings,
    /// When requests wait for the log, how its events are collected, and which are cut.
    pub log_delivery: Delivery,
    /// The webhook (`--audit-webhook-config-file`).
    pub webhook: Option<Target>,
    /// How long to wait after the first failure of the webhook.
    pub webhook_initial_backoff: Duration,
    /// As `log_delivery`, of the webhook.
    pub webhook_delivery: Delivery,
}

/// How events get to a back end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delivery {
    /// When the request waits.
    pub mode: Mode,
    /// How events are collected when it does not.
    pub batching: Batching,
    /// Which events are cut; none without.
    pub truncate: bool,
    /// What is too large.
    pub truncation: Truncation,
}

impl Default for Settings {
    /// Upstream's defaults (v1.36): the log blocks, the webhook collects.
    fn default() -> Self {
        let truncation = Truncation::default();
        let log = Batching { buffer: 10_000, size_max: 1, wait_max: Duration::ZERO, throttle: None };
        let webhook =
            Batching { buffer: 10_000, size_max: 400, wait_max: Duration::from_secs(30), throttle: Some((10.0, 15)) };
        Self {
            policy: None,
            log: LogSettings::default(),
            log_delivery: Delivery { mode: Mode::Blocking, batching: log, truncate: false, truncation },
            webhook: None,
            webhook_initial_backoff: Duration::from_secs(10),
            webhook_delivery: Delivery { mode: Mode::Batch, batching: webhook, truncate: false, truncation },
        }
    }
}

/// The audit of one server.
#[derive(Default)]
pub(crate) struct Audit(Option<Arc<Active>>);

struct Active {
    policy: Policy,
    backends: Vec<Backend>,
    clock: Clock,
    tasks: Tasks,
    counts: Counts,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) events: AtomicU64,
    pub(crate) levels: [AtomicU64; 4],
    pub(crate) rejected: AtomicU64,
    pub(crate) errors: Arc<Errors>,
}

impl Audit {
    /// Opens what the settings name.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub(crate) fn start(
        settings: &Settings,
        outbound: &Arc<Outbound>,
        clock: &Clock,
        tasks: Tasks,
    ) -> std::io::Result<Self> {
        let Some(policy) = &settings.policy else { return Ok(Self(None)) };
        let counts = Counts::default();
        let mut backends = Vec::new();
        let mut add = |writer, delivery: Delivery| {
            let truncation = delivery.truncate.then_some(delivery.truncation);
            let errors = Arc::clone(&counts.errors);
            let around = (clock, &tasks);
            backends.push(Backend::start(writer, delivery.mode, delivery.batching, truncation, errors, around));
        };
        if !settings.log.path.is_empty() {
            let log = Log::open(settings.log.clone(), clock.clone())?;
            add(Arc::new(LogWriter(log)) as Arc<dyn backend::Writer>, settings.log_delivery);
        }
        if let Some(target) = &settings.webhook {
            let writer = WebhookWriter {
                outbound: Arc::clone(outbound),
                target: target.clone(),
                clock: clock.clone(),
                initial_backoff: settings.webhook_initial_backoff,
            };
            add(Arc::new(writer), settings.webhook_delivery);
        }
        if backends.is_empty() {
            return Ok(Self(None));
        }
        let active = Active { policy: policy.clone(), backends, clock: clock.clone(), tasks, counts };
        Ok(Self(Some(Arc::new(active))))
    }

    /// What was counted, when anything is.
    pub(crate) fn counts(&self) -> Option<&Counts> {
        self.0.as_deref().map(|active| &active.counts)
    }

    /// Begins to record a request that the policy wants; `user` is nobody when authentication failed.
    ///
    /// # Errors
    /// 500 when a strict back end could not store the first event.
    pub(crate) async fn begin(&self, call: &Call, user: Option<&UserInfo>) -> ApiResult<()> {
        let Some(active) = &self.0 else { return Ok(()) };
        let verdict = active.policy.evaluate(&call.info, user);
        active.counts.levels[verdict.level as usize].fetch_add(1, Ordering::Relaxed);
        if verdict.level == Level::None {
            return Ok(());
        }
        let event = first(active, call, user, verdict.level);
        let recording = Recording {
            active: Arc::clone(active),
            level: verdict.level,
            omit_stages: verdict.omit_stages,
            omit_managed_fields: verdict.omit_managed_fields,
            is_long_running: call.is_long_running(),
            is_delete: matches!(call.info.verb, "delete" | "deletecollection"),
            attempted: user.is_none().then(|| attempted(&call.headers)),
            event: Mutex::new(event),
        };
        let recording = Arc::new(recording);
        let _ = call.trail.recording.set(Arc::clone(&recording));
        if user.is_some() && !recording.emit(Stage::RequestReceived).await {
            active.counts.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::internal("failed to store audit event"));
        }
        Ok(())
    }
}

fn first(active: &Active, call: &Call, user: Option<&UserInfo>, level: Level) -> Event {
    let info = &call.info;
    let mut event = Event::new(level, call.trail.audit_id.get().map(header_text).unwrap_or_default());
    event.request_received_timestamp = active.time();
    event.request_uri = if call.query.is_empty() { info.path.clone() } else { format!("{}?{}", info.path, call.query) };
    event.verb = info.verb;
    event.user = user.map(User::of).unwrap_or_default();
    event.source_ips = event::source_ips(&call.headers, call.remote);
    event.user_agent = event::user_agent(call.user_agent());
    event.object_ref = info.is_resource.then(|| ObjectRef {
        resource: info.resource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        api_group: info.group.clone(),
        api_version: info.version.clone(),
        subresource: info.subresource.clone(),
        ..ObjectRef::default()
    });
    event
}

/// The kind of credentials that were shown.
fn attempted(headers: &HeaderMap) -> &'static str {
    let header = headers.get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
    match header.map(|text| text.split(|byte| *byte == b' ').next().unwrap_or(b"").to_ascii_lowercase()).as_deref() {
        Some(b"basic") => "basic",
        Some(b"bearer") => "bearer",
        _ => "x509",
    }
}

fn header_text(value: &http::HeaderValue) -> String {
    value.to_str().unwrap_or("").to_owned()
}

impl Active {
    fn time(&self) -> String {
        Time::from_nanos(self.clock.now().as_nanos()).rfc3339_micro()
    }
}

/// The record of one request in the making.
pub(crate) struct Recording {
    active: Arc<Active>,
    level: Level,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    is_long_running: bool,
    is_delete: bool,
    /// How somebody tried to say who they are, when it did not work.
    attempted: Option<&'static str>,
    event: Mutex<Event>,
}

impl Recording {
    /// Whether it is told what was answered.
    pub(crate) fn wants_response(&self) -> bool {
        self.level >= Level::RequestResponse
    }

    /// Notes that the request counts as somebody else's.
    pub(crate) fn impersonated(&self, user: &UserInfo, constraint: &str) {
        let mut event = self.event.lock();
        event.impersonated_user = Some(User::of(user));
        event.authentication_metadata = (!constraint.is_empty())
            .then(|| AuthenticationMetadata { impersonation_constraint: constraint.to_owned() });
    }

    /// Adds an annotation; the first value of a key stays.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        if event.annotations.len() < ANNOTATIONS_MAX && !event.annotations.contains_key(key) {
            event.annotations.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Notes the body of the request.
    pub(crate) fn request_body(&self, body: &Bytes, headers: &HeaderMap) {
        if body.len() > OBJECT_BYTES_MAX {
            return;
        }
        let Some(mut object) = event::object(body, headers) else { return };
        let mut event = self.event.lock();
        event.refer(&object);
        if self.level >= Level::Request {
            if self.omit_managed_fields {
                event::omit_managed_fields(&mut object);
            }
            event.request_object = event::raw(&object);
        }
    }

    /// Notes the answer, and writes the events that come with it. A stream writes its last event
    /// when it ends.
    pub(crate) async fn answered(self: &Arc<Self>, response: &mut Response<Body>, panicked: bool) {
        self.response(response);
        if let Some(attempted) = self.attempted {
            if let Some(status) = &mut self.event.lock().response_status {
                status.set_message(format!("Authentication failed, attempted: {attempted}"));
            }
            self.emit(Stage::ResponseStarted).await;
            return;
        }
        if panicked {
            self.event.lock().response_status = Some(ResponseStatus::failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "APIServer panic'd: this request could not be answered",
            ));
            self.emit(Stage::Panic).await;
            return;
        }
        if self.is_long_running {
            self.emit(Stage::ResponseStarted).await;
        }
        match std::mem::replace(response.body_mut(), Body::empty()) {
            Body::Stream(stream) => {
                let end = End(Some(Arc::clone(self)));
                let followed = stream.map(move |chunk| {
                    let _end = &end;
                    chunk
                });
                *response.body_mut() = Body::Stream(followed.boxed());
            }
            whole => {
                *response.body_mut() = whole;
                self.emit(Stage::ResponseComplete).await;
            }
        }
    }

    fn response(&self, response: &Response<Body>) {
        let code = response.status();
        let mut status = ResponseStatus::of(code);
        let wants_object = self.level >= Level::RequestResponse;
        let looks = wants_object || self.is_delete || !code.is_success();
        if let Body::Whole(Some(body)) = response.body()
            && looks
            && body.len() <= OBJECT_BYTES_MAX
            && let Some(mut object) = event::object(body, response.headers())
        {
            status = ResponseStatus::of_object(code, &object);
            if wants_object {
                if self.omit_managed_fields {
                    event::omit_managed_fields(&mut object);
                }
                self.event.lock().response_object = event::raw(&object);
            }
        }
        self.event.lock().response_status = Some(status);
    }

    /// Gives the event of a stage to every back end; whether the request may go on.
    async fn emit(&self, stage: Stage) -> bool {
        if self.omit_stages.contains(&stage) {
            return true;
        }
        let event = Arc::new(self.event.lock().at(stage, self.active.time()));
        self.active.counts.events.fetch_add(1, Ordering::Relaxed);
        let mut goes_on = true;
        for backend in &self.active.backends {
            goes_on &= backend.process(&event).await;
        }
        goes_on
    }
}

/// Writes the last event of a stream when it is dropped: at its end, or when the client goes.
struct End(Option<Arc<Recording>>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(recording) = self.0.take() {
            let tasks = recording.active.tasks.clone();
            tasks.spawn_draining("audit-end", async move {
                recording.emit(Stage::ResponseComplete).await;
            });
        }
    }
}
