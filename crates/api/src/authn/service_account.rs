//! Service account tokens: what they claim, how they are issued, when they are taken.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skiff_base::{Clock, Random, Timestamp};

use super::UserInfo;
use super::chain::{Identified, Refusal, TokenAuthenticator};
use super::jws::{Algorithm, JwsError, PublicKey, SigningKey, Token};
use super::settings::Settings;
use crate::server::ApiServer;

/// Clocks may differ by this much, and what is deleted counts as there for so long.
pub(crate) const LEEWAY_SECONDS: i64 = 60;

/// See the [module](self).
pub(super) struct ServiceAccountTokens;

#[async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    fn name(&self) -> &'static str {
        "service account"
    }

    async fn identify(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, Refusal> {
        if !server.tokens.is_ours(token) {
            return Ok(None);
        }
        match server.token_user(token, audiences).await {
            Ok((user, audiences)) => Ok(Some(Identified { user, audiences })),
            Err(error) => Err(Refusal(error.to_string())),
        }
    }
}

/// The claims of a service account token, as upstream writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who may take the token.
    #[serde(default)]
    pub aud: Vec<String>,
    /// Seconds since the epoch after which it is no longer taken.
    pub exp: i64,
    /// Seconds since the epoch at which it was issued.
    pub iat: i64,
    /// The issuer.
    pub iss: String,
    /// The token's identity.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    /// Seconds since the epoch before which it is not yet taken.
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`
    pub sub: String,
}

/// The `kubernetes.io` claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace of the service account and of what the token is bound to.
    pub namespace: String,
    /// The node of the pod, or the node the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    /// The pod that the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    /// The secret that the token dies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    /// The service account.
    pub serviceaccount: ObjectRef,
    /// Seconds since the epoch after which using the token is worth a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its name.
    pub name: String,
    /// Its uid; without it the name alone counts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// A token that has just been signed.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
    /// Its `jti`.
    pub id: String,
}

/// Issues and reads tokens.
pub struct Tokens {
    key: SigningKey,
    /// Every key that a token may be signed with, that of this server first.
    keys: Vec<PublicKey>,
    /// The first issues, all are taken.
    issuers: Vec<String>,
    audiences: Vec<String>,
    clock: Clock,
    random: Random,
    /// Tokens whose signature has been checked, by their digest: a client shows the same one with
    /// every request, and a check costs more than most requests.
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

/// So many tokens are remembered before all are forgotten.
const VERIFIED_MAX: usize = 8_192;

/// Why a token is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not a token of ours at all: another authenticator may know it.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Ours by its signature, but not by its claims.
    #[error("{0}")]
    Claims(String),
}

impl Tokens {
    /// Tokens signed by `key` in the name of `issuer`, and taken as `settings` say.
    ///
    /// # Errors
    /// When a key of the settings cannot be used.
    pub fn new(
        key: SigningKey,
        issuer: String,
        settings: &Settings,
        clock: Clock,
        random: Random,
    ) -> Result<Self, JwsError> {
        let mut keys = vec![key.public().clone()];
        for pem in &settings.verification_keys {
            keys.extend(PublicKey::all_of_pem(pem)?);
        }
        let mut seen = std::collections::HashSet::new();
        keys.retain(|key| seen.insert(key.id.clone()));
        let audiences =
            if settings.api_audiences.is_empty() { vec![issuer.clone()] } else { settings.api_audiences.clone() };
        let issuers = std::iter::once(issuer).chain(settings.other_issuers.iter().cloned()).collect();
        Ok(Self { key, keys, issuers, audiences, clock, random, verified: Mutex::default() })
    }

    /// The public keys, for whoever verifies tokens elsewhere.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Who issues.
    pub fn issuer(&self) -> &str {
        &self.issuers[0]
    }

    /// Who a token must be for to be taken by the API server.
    pub fn api_audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Whether a token says that it was issued here. Everything else is for others to know.
    pub fn is_ours(&self, token: &str) -> bool {
        Token::parse(token).is_ok_and(|token| self.issuers.contains(&token.unverified_issuer()))
    }

    /// Signs a token for `audiences` that lives `seconds`.
    ///
    /// # Errors
    /// [`TokenError`] when signing fails.
    pub fn issue(&self, bound: Bound, audiences: Vec<String>, seconds: i64) -> Result<Issued, TokenError> {
        let now = self.clock.now().as_secs();
        let claims = Claims {
            aud: if audiences.is_empty() { self.audiences.clone() } else { audiences },
            exp: now.saturating_add(seconds),
            iat: now,
            nbf: now,
            iss: self.issuer().to_owned(),
            jti: self.random.uuid(),
            sub: format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name),
            kubernetes: bound,
        };
        let json = serde_json::to_vec(&claims).map_err(|error| TokenError::Claims(error.to_string()))?;
        Ok(Issued { token: self.key.sign(&json)?, expires: Timestamp::from_secs(claims.exp), id: claims.jti })
    }

    /// Checks signature, issuer, audience and times. Whether what the token is bound to still
    /// exists is for the caller to check.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong.
    pub fn read(&self, token: &str, audiences: &[String]) -> Result<(Arc<Claims>, Vec<String>), TokenError> {
        let claims = self.verify(token)?;
        let taken = self.check(&claims, audiences)?;
        Ok((claims, taken))
    }

    fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
        if let Some(claims) = self.verified.lock().get(&digest) {
            return Ok(Arc::clone(claims));
        }
        let parsed = Token::parse(token)?;
        parsed.verify(&self.keys, &Algorithm::ALL)?;
        let claims: Claims = serde_json::from_slice(&parsed.claims)
            .map_err(|error| TokenError::Claims(format!("token claims: {error}")))?;
        let claims = Arc::new(claims);
        let mut verified = self.verified.lock();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }

    /// Checks the claims as of now; gives the audiences that both sides name.
    ///
    /// # Errors
    /// [`TokenError::Claims`] says which claim fails.
    pub fn check(&self, claims: &Claims, audiences: &[String]) -> Result<Vec<String>, TokenError> {
        let now = self.clock.now().as_secs();
        let refuse = |why: String| Err(TokenError::Claims(why));
        if !self.issuers.contains(&claims.iss) {
            return refuse(format!("token is issued by {:?}", claims.iss));
        }
        if now > claims.exp.saturating_add(LEEWAY_SECONDS) {
            return refuse("service account token has expired".into());
        }
        if now < claims.nbf.saturating_sub(LEEWAY_SECONDS) {
            return refuse("service account token is not valid yet".into());
        }
        let wanted = if audiences.is_empty() { &self.audiences[..] } else { audiences };
        let taken: Vec<String> = wanted.iter().filter(|one| claims.aud.contains(one)).cloned().collect();
        if taken.is_empty() {
            let quoted = |list: &[String]| {
                let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
                format!("[{}]", quoted.join(" "))
            };
            return refuse(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(&claims.aud),
                quoted(wanted)
            ));
        }
        Ok(taken)
    }
}

impl Claims {
    /// The user that the token stands for.
    pub fn user(&self) -> UserInfo {
        let bound = &self.kubernetes;
        let mut user = UserInfo {
            name: self.sub.clone(),
            uid: bound.serviceaccount.uid.clone(),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{}", bound.namespace),
                super::AUTHENTICATED.into(),
            ],
            extra: std::collections::BTreeMap::new(),
        };
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", self.jti));
        }
        if let Some(pod) = &bound.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let key = SigningKey::from_der(&SigningKey::generate().unwrap()).unwrap();
        let (settings, clock) = (Settings::default(), Clock::system());
        Tokens::new(key, "https://issuer".into(), &settings, clock, Random::system()).unwrap()
    }

    fn bound() -> Bound {
        Bound {
            namespace: "default".into(),
            serviceaccount: ObjectRef { name: "web".into(), uid: "1".into() },
            pod: Some(ObjectRef { name: "web-0".into(), uid: "2".into() }),
            ..Bound::default()
        }
    }

    #[test]
    fn a_token_names_its_account_groups_and_pod() {
        let tokens = tokens();
        let token = tokens.issue(bound(), vec![], 3_600).unwrap().token;
        let (claims, audiences) = tokens.read(&token, &[]).unwrap();
        let user = claims.user();
        assert_eq!(audiences, ["https://issuer"]);
        assert_eq!(user.name, "system:serviceaccount:default:web");
        assert!(user.in_group("system:serviceaccounts:default"));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web-0"]);
    }

    #[test]
    fn other_audiences_and_old_tokens_are_refused() {
        let tokens = tokens();
        let token = tokens.issue(bound(), vec!["vault".into()], 3_600).unwrap().token;
        assert!(tokens.read(&token, &[]).is_err());
        assert!(tokens.read(&token, &["vault".into()]).is_ok());
        let old = tokens.issue(bound(), vec![], -3_600).unwrap().token;
        assert_eq!(tokens.read(&old, &[]), Err(TokenError::Claims("service account token has expired".into())));
    }
}
