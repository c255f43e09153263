//! Tokens of other issuers (OpenID Connect), by structured authentication configuration or by the
//! `--oidc-*` flags, which say a part of the same.
//!
//! [`config`] is what an administrator writes, [`provider`] finds the issuer's keys, [`claims`]
//! makes a user of what the issuer says. Words are upstream's, which `TokenReview` shows.

use std::sync::Arc;

use serde_json::Value;
use skiff_base::Timestamp;

use super::UserInfo;
use super::chain::Refusal;
use super::jws::Token;
use crate::outbound::Outbound;

pub mod claims;
pub mod config;
pub mod expression;
pub mod provider;

use config::Issuer;
use provider::Provider;

/// A token that becomes valid this much later is taken: go-oidc's tolerance.
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 300.0;

/// One issuer whose tokens are taken.
pub struct JwtAuthenticator {
    issuer: Issuer,
    provider: Provider,
}

fn refuse<T>(why: impl std::fmt::Display) -> Result<T, Refusal> {
    Err(Refusal(format!("oidc: {why}")))
}

impl JwtAuthenticator {
    /// Takes tokens of `issuer`; its keys are looked for when the first one comes.
    pub fn new(issuer: Issuer, outbound: Arc<Outbound>, clock: skiff_base::Clock) -> Self {
        Self { provider: Provider::new(&issuer, outbound, clock), issuer }
    }

    /// Who the token stands for; nobody when it is of another issuer.
    ///
    /// # Errors
    /// When it is of this issuer and not to be taken.
    pub async fn identify(&self, text: &str, now: Timestamp) -> Result<Option<UserInfo>, Refusal> {
        let Ok(token) = Token::parse(text) else { return Ok(None) };
        if !self.issuer.is_named(&token.unverified_issuer()) {
            return Ok(None);
        }
        self.provider.verify(&token, &self.issuer.algorithms).await?;
        let claims: Value = match serde_json::from_slice(&token.claims) {
            Ok(claims) => claims,
            Err(error) => return refuse(format!("parse claims: {error}")),
        };
        self.check(&claims, now)?;
        claims::user(&self.issuer, &claims).map(|user| Some(user.authenticated()))
    }

    /// Audience and times.
    fn check(&self, claims: &Value, now: Timestamp) -> Result<(), Refusal> {
        let audiences = claims::strings(claims.get("aud").unwrap_or(&Value::Null)).unwrap_or_default();
        let wanted = &self.issuer.audiences;
        if !audiences.iter().any(|one| wanted.contains(one)) {
            return match wanted.as_slice() {
                [one] => {
                    refuse(format!("verify token: oidc: expected audience {one:?} got {}", claims::go_list(&audiences)))
                }
                many => refuse(format!(
                    "verify token: oidc: expected audience in {} got {}",
                    claims::go_list(many),
                    claims::go_list(&audiences)
                )),
            };
        }
        let seconds = |claim: &str| claims.get(claim).and_then(Value::as_f64);
        let now_seconds = now.as_secs() as f64;
        match seconds("exp") {
            Some(end) if now_seconds <= end => {}
            end => {
                let end = crate::meta::time(Timestamp::from_secs(end.unwrap_or(0.0) as i64));
                return refuse(format!("verify token: oidc: token is expired (Token Expiry: {end})"));
            }
        }
        match seconds("nbf") {
            Some(start) if now_seconds + NOT_BEFORE_LEEWAY_SECONDS < start => {
                let (now, start) = (crate::meta::time(now), crate::meta::time(Timestamp::from_secs(start as i64)));
                refuse(format!("verify token: oidc: current time {now} before the nbf (not before) time: {start}"))
            }
            _ => Ok(()),
        }
    }
}
