//! The authenticators in upstream's order: the first that knows somebody decides, and who shows
//! something that nobody knows is refused.
//!
//! What went wrong on the way is collected: the client sees only `Unauthorized`, the log and
//! `TokenReview` see it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use skiff_base::Clock;

use super::anonymous::Anonymous;
use super::bootstrap_token::BootstrapTokens;
use super::certificate::{Authorities, AuthorityError, ClientCertificate};
use super::jws::JwsError;
use super::jwt::JwtAuthenticator;
use super::jwt::config::{Configuration, ConfigurationError};
use super::service_account::ServiceAccountTokens;
use super::static_token::StaticTokens;
use super::token_cache::TokenCache;
use super::webhook::WebhookTokens;
use super::{UserInfo, request_header};
use crate::outbound::Outbound;
use crate::server::{ApiServer, Config};

/// What a request shows of who sends it.
pub struct Credentials<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The path that is asked for.
    pub path: &'a str,
    /// The certificate of the connection.
    pub certificate: Option<&'a ClientCertificate>,
}

/// Why credentials are not taken. For the log and for `TokenReview`, not for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Who a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The user.
    pub user: UserInfo,
    /// The audiences that token and server have in common.
    pub audiences: Vec<String>,
}

/// One way to know the bearer of a token.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// A name for logs.
    fn name(&self) -> &'static str;

    /// Who the token stands for; nobody when it is not for this authenticator to know.
    async fn identify(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, Refusal>;
}

/// Why the authenticators cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An authority of client certificates or of proxies is unusable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key that verifies tokens is unusable.
    #[error("service account verification key: {0}")]
    Key(#[from] JwsError),
    /// The structured configuration or the `--oidc-*` flags are no good.
    #[error("authentication configuration: {0}")]
    Configuration(#[from] ConfigurationError),
}

/// See the [module](self).
pub struct Authentication {
    authorities: Authorities,
    tokens: Vec<Box<dyn TokenAuthenticator>>,
    /// What a configuration file says, swapped whole when it changes.
    configured: ArcSwap<Configured>,
    /// Tokens of other issuers that were taken lately.
    cache: TokenCache,
    webhook: Option<WebhookTokens>,
    outbound: Arc<Outbound>,
    /// `--anonymous-auth`, for when the file does not say.
    anonymous: Anonymous,
    /// Issuers of this server, which nobody else may be.
    own_issuers: Vec<String>,
}

/// What may change while the server runs.
struct Configured {
    issuers: Vec<JwtAuthenticator>,
    anonymous: Anonymous,
}

/// A token of another issuer is not checked again for so long; upstream's.
const TOKEN_TTL: Duration = Duration::from_secs(10);

/// The audiences in `wanted` that mean the API server itself.
pub(super) fn api_audiences(server: &ApiServer, wanted: &[String]) -> Vec<String> {
    wanted.iter().filter(|one| server.tokens.api_audiences().contains(one)).cloned().collect()
}

impl Authentication {
    /// The authenticators that a configuration asks for.
    ///
    /// # Errors
    /// When an authority or key in it is unusable.
    pub fn new(config: &Config, outbound: &Arc<Outbound>) -> Result<Self, SettingsError> {
        let settings = &config.authn;
        let mut tokens: Vec<Box<dyn TokenAuthenticator>> = vec![Box::new(StaticTokens), Box::new(ServiceAccountTokens)];
        if settings.bootstrap_tokens {
            tokens.push(Box::new(BootstrapTokens));
        }
        let anonymous = if config.anonymous { Anonymous::Always } else { Anonymous::Never };
        let webhook = settings.webhook.clone();
        let this = Self {
            authorities: Authorities::new(settings, config.clock.clone())?,
            tokens,
            configured: ArcSwap::from_pointee(Configured { issuers: Vec::new(), anonymous: anonymous.clone() }),
            cache: TokenCache::new(config.clock.clone()),
            webhook: webhook.map(|one| WebhookTokens::new(one, Arc::clone(outbound), config.clock.clone())),
            outbound: Arc::clone(outbound),
            anonymous,
            own_issuers: std::iter::once(&config.issuer).chain(&settings.other_issuers).cloned().collect(),
        };
        let mut configuration = match &settings.configuration {
            Some(file) => Configuration::read(&file.text, &this.own_issuers)?,
            None => Configuration::default(),
        };
        configuration.issuers.extend(settings.oidc.issuer()?);
        this.configure(configuration, &config.clock);
        Ok(this)
    }

    fn configure(&self, configuration: Configuration, clock: &Clock) {
        let issuers = configuration.issuers.into_iter();
        let issuers = issuers.map(|issuer| JwtAuthenticator::new(issuer, Arc::clone(&self.outbound), clock.clone()));
        let anonymous = configuration.anonymous.unwrap_or_else(|| self.anonymous.clone());
        self.configured.store(Arc::new(Configured { issuers: issuers.collect(), anonymous }));
        self.cache.clear();
    }

    /// Takes over the text of a configuration file that has changed.
    ///
    /// # Errors
    /// When it is no good; what was before stays.
    pub fn reconfigure(&self, text: &str, clock: &Clock) -> Result<(), ConfigurationError> {
        self.configure(Configuration::read(text, &self.own_issuers)?, clock);
        Ok(())
    }

    /// What to ask of clients during the handshake; `None` when no certificate means anything.
    pub(crate) fn handshake(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.authorities.handshake()
    }

    /// What the certificates of a connection are worth, the client's own first.
    pub(crate) fn inspect(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        self.authorities.inspect(chain)
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// When what it shows is known to nobody, or it shows nothing and must.
    pub async fn authenticate(&self, server: &ApiServer, shown: &Credentials<'_>) -> Result<Arc<UserInfo>, Refusal> {
        let mut refusals = Vec::new();
        let by_proxy = server.config.authn.request_header.as_ref();
        for outcome in [
            by_proxy.map_or(Ok(None), |proxies| request_header::authenticate(proxies, server, shown)),
            shown.certificate.map_or(Ok(None), |certificate| certificate.user(server.clock().now())),
        ] {
            match outcome {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        let websocket = super::websocket_token(shown.headers);
        if let Some(token) = super::bearer_token(shown.headers).or(websocket.as_deref()) {
            match self.identify(server, token, server.tokens.api_audiences()).await {
                Ok(identified) => return Ok(Arc::new(identified.user)),
                Err(refusal) => refusals.push(refusal),
            }
        } else if refusals.is_empty() && self.configured.load().anonymous.allows(shown.path) {
            return Ok(Arc::new(UserInfo::anonymous()));
        }
        Err(all(refusals).unwrap_or_else(|| Refusal("no credentials".into())))
    }

    /// Who the bearer of a token is, to those that are asked for one of `audiences`.
    ///
    /// # Errors
    /// When nobody knows the token, in the words of `TokenReview`.
    pub async fn identify(&self, server: &ApiServer, token: &str, audiences: &[String]) -> Result<Identified, Refusal> {
        let unknown = || Refusal("invalid bearer token".into());
        let mut refusals = vec![unknown()];
        for authenticator in &self.tokens {
            match authenticator.identify(server, token, audiences).await {
                Ok(Some(identified)) => return Ok(identified),
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        match self.of_issuers(server, token, audiences).await {
            Ok(Some(identified)) => return Ok(identified),
            Ok(None) => {}
            Err(refusal) => refusals.push(refusal),
        }
        if let Some(webhook) = &self.webhook {
            match webhook.identify(server, token, audiences).await {
                Ok(Some(identified)) => return Ok(identified),
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        Err(all(refusals).unwrap_or_else(unknown))
    }

    /// Who the bearer is to the issuers of the configuration.
    async fn of_issuers(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, Refusal> {
        let configured = self.configured.load_full();
        let audiences = api_audiences(server, audiences);
        if configured.issuers.is_empty() || audiences.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.cache.get(token, &audiences) {
            return Ok(known);
        }
        for issuer in &configured.issuers {
            if let Some(user) = issuer.identify(token, server.clock().now()).await? {
                let identified = Some(Identified { user, audiences: audiences.clone() });
                self.cache.put(token, &audiences, identified.clone(), TOKEN_TTL);
                return Ok(identified);
            }
        }
        Ok(None)
    }

    /// Takes the credentials out of a request: what answers it is not to see them.
    pub fn forget_credentials(&self, server: &ApiServer, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        super::forget_websocket_token(headers);
        request_header::forget(server.config.authn.request_header.as_ref(), headers);
    }
}

/// Several refusals as one, in upstream's form.
fn all(refusals: Vec<Refusal>) -> Option<Refusal> {
    let mut texts: Vec<String> = Vec::new();
    for Refusal(text) in refusals {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [] => None,
        [one] => Some(Refusal(one.clone())),
        many => Some(Refusal(format!("[{}]", many.join(", ")))),
    }
}
