//! One call of one webhook, and the ways in which it can fail.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request};

use super::configuration::{FailurePolicy, Hook};
use super::matching::Invocation;
use super::review::{self, Answer, Half, Objects, Version};
use crate::admission::Attributes;
use crate::audit::latency::Layer;
use crate::errors::ApiError;
use crate::metrics::webhooks::{Cause, Outcome};
use crate::outbound::{self, Limits, Target};
use crate::server::ApiServer;

/// An answer may have this many bytes: a patch may replace the largest object, in base64.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a call did not lead to an answer that lets the write go on.
#[derive(Debug)]
pub enum Failure {
    /// The webhook could not be asked, or answered nonsense; `failurePolicy` decides.
    Calling {
        /// Why.
        reason: String,
        /// The HTTP status that metrics show.
        code: u16,
    },
    /// The webhook said no.
    Refused(ApiError),
    /// The write is refused whatever the policy.
    Refusing(ApiError),
}

impl Failure {
    fn calling(code: u16, reason: impl Into<String>) -> Self {
        Self::Calling { reason: reason.into(), code }
    }
}

/// Asks a webhook; warnings and audit annotations of its answer are passed on.
///
/// # Errors
/// See [`Failure`].
pub async fn call(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    half: Half,
    objects: &Objects<'_>,
) -> Result<Answer, Failure> {
    let hook = invocation.hook.as_ref();
    if attributes.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Refusing(ApiError::bad_request(why)));
    }
    let version = Version::first_of(&hook.review_versions).ok_or_else(|| {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        Failure::calling(400, format!("could not create admission objects: {why}"))
    })?;
    let target = hook.target.as_ref();
    let target = target.map_err(|why| Failure::calling(500, format!("could not get REST client: {why}")))?;
    let uid = server.random().uuid();
    let question = review::question(version, &uid, attributes, invocation, objects);
    let bytes = post(server, target, hook.timeout, question).await?;
    let answer = review::answer(version, half, &uid, &bytes)
        .map_err(|why| Failure::calling(503, format!("received invalid webhook response: {why}")))?;
    for (key, value) in &answer.annotations {
        attributes.annotate(&format!("{}/{key}", hook.name), value.as_str());
    }
    answer.warnings.iter().for_each(|warning| attributes.warn(warning.as_str()));
    if answer.allowed {
        return Ok(answer);
    }
    Err(Failure::Refused(ApiError::given(review::refusal(&hook.name, &answer.status))))
}

async fn post(server: &ApiServer, target: &Target, timeout: Duration, question: Vec<u8>) -> Result<Bytes, Failure> {
    let path = format!("/?timeout={}s", timeout.as_secs());
    let url = format!("{}?timeout={}s", target.url(), timeout.as_secs());
    let failed =
        |why: &dyn std::fmt::Display| Failure::calling(503, format!("failed to call webhook: Post {url:?}: {why}"));
    let mut request = Request::new(Bytes::from(question));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().map_err(|error| failed(&error))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
    let limits = Limits { timeout, answer_bytes_max: ANSWER_BYTES_MAX };
    let users = &server.config.admission.webhook_users;
    let known = (!users.is_empty()).then(|| Target { credentials: users.of(target), ..target.clone() });
    let target = known.as_ref().unwrap_or(target);
    let answer = server.outbound().send(target, request, limits).await.map_err(|error| failed(&error))?;
    if (200..=206).contains(&answer.status().as_u16()) {
        return Ok(answer.into_body());
    }
    let code = answer.status().as_u16();
    Err(Failure::calling(code, format!("failed to call webhook: {}", outbound::refusal(&answer))))
}

/// What a call came to: nothing, or what refuses the write.
///
/// # Errors
/// The refusal.
pub fn settle(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    half: Half,
    took: Duration,
    outcome: Result<Answer, Failure>,
    note_failed_open: impl FnOnce(),
) -> Result<Option<Answer>, ApiError> {
    if let Some(call) = attributes.call {
        let layer = match half {
            Half::Mutating => Layer::MutatingWebhooks,
            Half::Validating => Layer::ValidatingWebhooks,
        };
        call.trail.latencies.spent(layer, took);
    }
    let metrics = &server.metrics.webhooks;
    let observe = |outcome: Outcome, code: u16| {
        metrics.called(&hook.name, half, attributes.operation.as_str(), outcome, code, took);
    };
    match outcome {
        Ok(answer) => {
            observe(Outcome::Allowed, 200);
            Ok(Some(answer))
        }
        Err(Failure::Refused(error)) => {
            observe(Outcome::Rejected(Cause::Nobody), error.code.as_u16());
            Err(error)
        }
        Err(Failure::Refusing(error)) => {
            observe(Outcome::Rejected(Cause::Server), 0);
            Err(error)
        }
        Err(Failure::Calling { reason, code }) if hook.failure_policy == FailurePolicy::Ignore => {
            tracing::warn!(webhook = hook.name, reason, "cannot ask the webhook; going on");
            observe(Outcome::FailedOpen, code);
            note_failed_open();
            Ok(None)
        }
        Err(Failure::Calling { reason, code }) => {
            tracing::warn!(webhook = hook.name, reason, "cannot ask the webhook; refusing");
            observe(Outcome::Rejected(Cause::Calling), code);
            Err(ApiError::internal(format!("failed calling webhook {:?}: {reason}", hook.name)))
        }
    }
}
