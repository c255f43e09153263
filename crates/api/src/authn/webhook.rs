//! Tokens that another server knows (`--authentication-token-webhook-config-file`): it is sent a
//! `TokenReview` and its answer is remembered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request};
use serde::Deserialize;
use skiff_base::Clock;

use super::UserInfo;
use super::chain::{Identified, Refusal, TokenAuthenticator, api_audiences};
use super::token_cache::TokenCache;
use crate::outbound::{Limits, Outbound, Target};
use crate::server::ApiServer;
use crate::webhook_retry;

/// What a server is told about such a webhook.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub target: Target,
    /// The version of the reviews that it is sent: `v1` or `v1beta1`
    /// (`--authentication-token-webhook-version`).
    pub version: String,
    /// How long its answers are remembered (`--authentication-token-webhook-cache-ttl`).
    pub cache_ttl: Duration,
}

impl Settings {
    /// With upstream's defaults.
    pub fn new(target: Target) -> Self {
        Self { target, version: "v1beta1".into(), cache_ttl: Duration::from_secs(120) }
    }
}

/// Upstream gives one review so long.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), answer_bytes_max: 1024 * 1024 };

/// See the [module](self).
pub(super) struct WebhookTokens {
    settings: Settings,
    outbound: Arc<Outbound>,
    cache: TokenCache,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Option<Vec<String>>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

impl WebhookTokens {
    pub(super) fn new(settings: Settings, outbound: Arc<Outbound>, clock: Clock) -> Self {
        Self { settings, outbound, cache: TokenCache::new(clock) }
    }

    async fn ask(&self, clock: &Clock, token: &str, audiences: &[String]) -> Result<Status, Refusal> {
        let body = serde_json::json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.settings.version),
            "metadata": {},
            "spec": {"token": token, "audiences": audiences},
            "status": {"user": {}},
        });
        let body = Bytes::from(body.to_string());
        let answer = webhook_retry::send(clock, || async {
            let mut request = Request::post("/").body(body.clone()).unwrap_or_default();
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
            self.outbound.fetch(&self.settings.target, request, LIMITS).await
        });
        let answer =
            answer.await.map_err(|error| Refusal(format!("Post {:?}: {error}", self.settings.target.url())))?;
        let review: Review = serde_json::from_slice(&answer).map_err(|error| Refusal(error.to_string()))?;
        Ok(review.status)
    }
}

#[async_trait]
impl TokenAuthenticator for WebhookTokens {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn identify(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, Refusal> {
        if let Some(known) = self.cache.get(token, audiences) {
            return Ok(known);
        }
        let status = self.ask(server.clock(), token, audiences).await?;
        // One that says nothing about audiences means this server.
        let taken = match &status.audiences {
            Some(named) if !named.is_empty() => audiences.iter().filter(|one| named.contains(one)).cloned().collect(),
            _ => api_audiences(server, audiences),
        };
        let identified = if status.authenticated && !taken.is_empty() {
            let user = UserInfo {
                name: status.user.username,
                uid: status.user.uid,
                groups: status.user.groups.unwrap_or_default(),
                extra: status.user.extra.unwrap_or_default(),
            };
            Some(Identified { user: user.authenticated(), audiences: taken })
        } else if !status.error.is_empty() {
            return Err(Refusal(status.error));
        } else {
            None
        };
        self.cache.put(token, audiences, identified.clone(), self.settings.cache_ttl);
        Ok(identified)
    }
}
