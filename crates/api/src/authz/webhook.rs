//! Another server decides: it is sent a `SubjectAccessReview` and its answer is remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use skiff_base::Clock;
use skiff_object::selector::label::Operator;
use tokio::time::Instant;

use super::conditions::Conditions;
use super::{Attributes, Authorizer, Decision, Rules, Selectors, Target};
use crate::authn::UserInfo;
use crate::outbound::{self, Limits, Outbound};
use crate::webhook_retry;

/// What a server is told about such a webhook.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the configuration, for logs.
    pub name: String,
    /// Where it is.
    pub target: outbound::Target,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long a yes is remembered.
    pub authorized_ttl: Duration,
    /// How long anything else is remembered.
    pub unauthorized_ttl: Duration,
    /// Whether requests are refused while it cannot be asked; otherwise it has no opinion then.
    pub denies_on_failure: bool,
}

impl Settings {
    /// With the defaults of the `--authorization-webhook-*` flags.
    pub fn new(name: &str, target: outbound::Target) -> Self {
        Self {
            name: name.to_owned(),
            target,
            version: "v1beta1".into(),
            timeout: Duration::from_secs(30),
            authorized_ttl: Duration::from_secs(300),
            unauthorized_ttl: Duration::from_secs(30),
            denies_on_failure: false,
        }
    }
}

/// Answers that are remembered; upstream's number.
const ANSWERS_MAX: usize = 8_192;
/// Reviews with more than so many bytes of what a client chose are not remembered; upstream's.
const CACHED_BYTES_MAX: usize = 10_000;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// See the [module](self).
pub struct WebhookAuthorizer {
    settings: Settings,
    outbound: Arc<Outbound>,
    clock: Clock,
    conditions: Conditions,
    answers: Mutex<HashMap<String, (Instant, Decision)>>,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl WebhookAuthorizer {
    /// Asks the server of `settings` by way of `outbound`.
    pub fn new(settings: Settings, outbound: Arc<Outbound>, clock: Clock) -> Self {
        Self { settings, outbound, clock, conditions: Conditions::default(), answers: Mutex::default() }
    }

    /// Asks only about requests for which `conditions` hold.
    #[must_use]
    pub fn only_for(self, conditions: Conditions) -> Self {
        Self { conditions, ..self }
    }

    async fn decide(&self, attributes: Attributes<'_>) -> Decision {
        let spec = spec(&attributes);
        match self.conditions.hold(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(why) => return self.failed(why),
        }
        let key = spec.to_string();
        let now = self.clock.instant();
        if let Some((until, decision)) = self.answers.lock().get(&key)
            && now < *until
        {
            return decision.clone();
        }
        match self.ask(&spec).await {
            Ok(decision) => {
                self.remember(key, &decision);
                decision
            }
            Err(error) => {
                tracing::error!(webhook = self.settings.name, %error, "could not ask the authorization webhook");
                self.failed(format!("Post {:?}: {error}", self.settings.target.url()))
            }
        }
    }

    fn failed(&self, why: String) -> Decision {
        if self.settings.denies_on_failure { Decision::Deny(why) } else { Decision::NoOpinion(why) }
    }

    async fn ask(&self, spec: &Value) -> Result<Decision, String> {
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.settings.version),
            "metadata": {},
            "spec": spec,
            "status": {"allowed": false},
        });
        let body = Bytes::from(review.to_string());
        let limits = Limits { timeout: self.settings.timeout, answer_bytes_max: ANSWER_BYTES_MAX };
        let answer = webhook_retry::send(&self.clock, || async {
            let mut request = Request::post("/").body(body.clone()).unwrap_or_default();
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
            self.outbound.fetch(&self.settings.target, request, limits).await
        });
        let answer = answer.await.map_err(|error| error.to_string())?;
        let review: Review = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        let Status { allowed, denied, reason } = review.status;
        Ok(match (denied, allowed) {
            (true, true) => {
                Decision::Deny("webhook subject access review returned both allow and deny response".into())
            }
            (true, false) => Decision::Deny(reason),
            (false, true) => Decision::Allow(reason),
            (false, false) => Decision::NoOpinion(reason),
        })
    }

    fn remember(&self, key: String, decision: &Decision) {
        if key.len() > CACHED_BYTES_MAX {
            return;
        }
        let ttl = if decision.is_allowed() { self.settings.authorized_ttl } else { self.settings.unauthorized_ttl };
        let now = self.clock.instant();
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (until, _)| now < *until);
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
        }
        answers.insert(key, (now + ttl, decision.clone()));
    }
}

impl Authorizer for WebhookAuthorizer {
    /// From what it has answered lately.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let key = spec(attributes).to_string();
        let now = self.clock.instant();
        match self.answers.lock().get(&key) {
            Some((until, decision)) if now < *until => decision.clone(),
            _ => Decision::NoOpinion(format!("the webhook {} was not asked", self.settings.name)),
        }
    }

    fn asks(&self, _: &UserInfo) -> bool {
        true
    }

    fn ask<'a>(&'a self, attributes: Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        Some(self.decide(attributes).boxed())
    }

    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        Rules {
            incomplete: true,
            evaluation_error: "webhook authorizer does not support user rule resolution".into(),
            ..Rules::default()
        }
    }
}

/// The `spec` of a `SubjectAccessReview` for a request.
pub(super) fn spec(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = serde_json::Map::new();
    match attributes.target {
        Target::Path(path) => {
            let path = fields(&[("path", path), ("verb", attributes.verb)]);
            spec.insert("nonResourceAttributes".into(), Value::Object(path));
        }
        Target::Resource { group, version, resource, subresource, namespace, name } => {
            let mut about = fields(&[
                ("namespace", namespace),
                ("verb", attributes.verb),
                ("group", group),
                ("version", version),
                ("resource", resource),
                ("subresource", subresource),
                ("name", name),
            ]);
            if let Some(selectors) = attributes.selectors {
                add_selectors(&mut about, selectors);
            }
            spec.insert("resourceAttributes".into(), Value::Object(about));
        }
    }
    spec.extend(fields(&[("user", &user.name), ("uid", &user.uid)]));
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    Value::Object(spec)
}

/// Texts that are not empty.
fn fields(pairs: &[(&str, &str)]) -> serde_json::Map<String, Value> {
    let some = pairs.iter().filter(|(_, value)| !value.is_empty());
    some.map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
}

fn add_selectors(about: &mut serde_json::Map<String, Value>, selectors: &Selectors) {
    if let Some(selector) = &selectors.fields {
        let requirements = selector.terms().iter().map(|term| {
            json!({"key": term.field, "operator": if term.negated { "NotIn" } else { "In" }, "values": [term.value]})
        });
        about.insert("fieldSelector".into(), json!({"requirements": requirements.collect::<Vec<_>>()}));
    }
    if let Some(selector) = &selectors.labels {
        let requirements = selector.requirements().iter().filter_map(|one| {
            let operator = match one.operator {
                Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
                Operator::NotEquals | Operator::NotIn => "NotIn",
                Operator::Exists => return Some(json!({"key": one.key, "operator": "Exists"})),
                Operator::DoesNotExist => return Some(json!({"key": one.key, "operator": "DoesNotExist"})),
                // The review has no words for these; leaving them out asks for more.
                Operator::GreaterThan | Operator::LessThan => return None,
            };
            Some(json!({"key": one.key, "operator": operator, "values": one.values}))
        });
        about.insert("labelSelector".into(), json!({"requirements": requirements.collect::<Vec<_>>()}));
    }
}
