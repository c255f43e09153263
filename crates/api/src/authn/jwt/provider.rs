//! The keys of an issuer: found through its discovery document, fetched again when a token names
//! one that is not among them.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Request;
use serde::Deserialize;
use skiff_base::Clock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::Issuer;
use super::refuse;
use crate::authn::chain::Refusal;
use crate::authn::jws::{Algorithm, JwsError, PublicKey, Token};
use crate::outbound::{Address, Limits, Outbound, Target, Trust};

/// Upstream's client gives up after this.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), answer_bytes_max: 1024 * 1024 };
/// Between two fetches of keys. Whoever sends tokens with made-up key names must not make us ask
/// the issuer for each.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// Between two looks for an issuer that could not be found; upstream's.
const DISCOVER_EVERY: Duration = Duration::from_secs(10);

/// See the [module](self).
pub struct Provider {
    issuer: String,
    discovery: String,
    trust: Trust,
    outbound: Arc<Outbound>,
    clock: Clock,
    keys: ArcSwapOption<Vec<PublicKey>>,
    looked: Mutex<Looked>,
}

#[derive(Default)]
struct Looked {
    /// Where the keys are, once that is known.
    keys_at: Option<String>,
    at: Option<Instant>,
    failure: Option<String>,
}

#[derive(Deserialize)]
struct Discovery {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
}

impl Provider {
    /// The provider of an issuer. Nothing is asked yet.
    pub fn new(issuer: &Issuer, outbound: Arc<Outbound>, clock: Clock) -> Self {
        let discovery = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        let trust = match issuer.certificate_authority.as_str() {
            "" => Trust::System,
            pem => Trust::Authorities(pem.as_bytes().to_vec()),
        };
        Self {
            issuer: issuer.url.clone(),
            discovery,
            trust,
            outbound,
            clock,
            keys: ArcSwapOption::empty(),
            looked: Mutex::default(),
        }
    }

    /// Checks the signature of a token, with fresh keys if those at hand do not do.
    pub(super) async fn verify(&self, token: &Token<'_>, allowed: &[Algorithm]) -> Result<(), Refusal> {
        let known = self.keys.load_full();
        if let Some(keys) = &known
            && token.verify(keys, allowed).is_ok()
        {
            return Ok(());
        }
        let keys = self.refresh(known.as_ref()).await?;
        match token.verify(&keys, allowed) {
            Ok(()) => Ok(()),
            Err(JwsError::UnknownKey) => {
                refuse("verify token: failed to verify signature: failed to verify id token signature")
            }
            Err(error) => refuse(format!("verify token: failed to verify signature: {error}")),
        }
    }

    /// The keys as of now. `known` are those that did not do.
    async fn refresh(&self, known: Option<&Arc<Vec<PublicKey>>>) -> Result<Arc<Vec<PublicKey>>, Refusal> {
        let mut looked = self.looked.lock().await;
        let now = self.clock.instant();
        let wait = if looked.keys_at.is_some() { REFRESH_EVERY } else { DISCOVER_EVERY };
        let recent = looked.at.is_some_and(|at| now.saturating_duration_since(at) < wait);
        // Somebody else fetched them while this waited, or a moment ago.
        if let Some(keys) = self.keys.load_full()
            && (recent || known.is_none_or(|known| !Arc::ptr_eq(known, &keys)))
        {
            return Ok(keys);
        }
        if recent {
            return refuse(looked.failure.as_deref().unwrap_or("authenticator not initialized"));
        }
        looked.at = Some(now);
        match self.fetch(&mut looked).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.keys.store(Some(Arc::clone(&keys)));
                looked.failure = None;
                Ok(keys)
            }
            Err(why) => {
                tracing::warn!(issuer = self.issuer, why, "could not fetch the keys of an issuer");
                let why = format!("verify token: fetching keys {why}");
                looked.failure = Some(why.clone());
                refuse(why)
            }
        }
    }

    async fn fetch(&self, looked: &mut Looked) -> Result<Vec<PublicKey>, String> {
        if looked.keys_at.is_none() {
            let document = self.get(&self.discovery).await?;
            let found: Discovery = serde_json::from_slice(&document)
                .map_err(|error| format!("oidc: failed to decode provider discovery object: {error}"))?;
            if found.issuer != self.issuer {
                return Err(format!(
                    "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                    self.issuer, found.issuer
                ));
            }
            if found.jwks_uri.is_empty() {
                return Err("provider did not return JWKS URL".into());
            }
            looked.keys_at = Some(found.jwks_uri);
        }
        let keys = self.get(looked.keys_at.as_deref().unwrap_or_default()).await?;
        PublicKey::all_of_jwks(&keys).map_err(|_| "oidc: failed to decode keys".into())
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        let target = Target { trust: self.trust.clone(), ..Target::new(Address::Url(url.to_owned())) };
        let request = Request::get("/").body(Bytes::new()).map_err(|error| error.to_string())?;
        self.outbound.fetch(&target, request, LIMITS).await.map_err(|error| format!("Get {url:?}: {error}"))
    }
}
