//! HTTP requests to registries: TLS or not, redirects, credentials, retries.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::store::ImageError;
use crate::cri::AuthConfig;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the head of an answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Without a byte of a body.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: u32 = 5;
const ATTEMPTS_MAX: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Error texts and tokens are short.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A conversation about one repository.
pub(super) struct Registry {
    client: Client<Connector, Empty<Bytes>>,
    /// `https://registry-1.docker.io/v2/library/nginx`
    base: String,
    scope: String,
    credentials: Option<(String, String)>,
    /// What goes into `Authorization`, once known.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    pub(super) fn new(
        registry: &str,
        repository: &str,
        insecure: bool,
        auth: Option<&AuthConfig>,
    ) -> Result<Self, ImageError> {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let scheme = if insecure { "http" } else { "https" };
        let fixed =
            auth.filter(|auth| !auth.registry_token.is_empty()).map(|auth| format!("Bearer {}", auth.registry_token));
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(Connector::new(insecure)?),
            base: format!("{scheme}://{host}/v2/{repository}"),
            scope: format!("repository:{repository}:pull"),
            credentials: auth.map(credentials).transpose()?.flatten(),
            authorization: Mutex::new(fixed),
        })
    }

    /// Gets `path` below the repository.
    pub(super) async fn get(&self, path: &str, accept: &'static str) -> Result<Response<Incoming>, ImageError> {
        let url = format!("{}/{path}", self.base);
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let outcome = self.get_once(&url, accept).await;
            let again = match &outcome {
                Ok(response) => {
                    response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS
                }
                Err(ImageError::Registry(_)) => true,
                Err(_) => false,
            };
            if !again || attempt == ATTEMPTS_MAX {
                return self.judge(&url, outcome?).await;
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn get_once(&self, url: &str, accept: &'static str) -> Result<Response<Incoming>, ImageError> {
        let known = self.authorization.lock().clone();
        let response = self.follow(url, accept, known.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().cloned().collect();
        let Some(authorization) = self.answer(&challenges).await? else { return Ok(response) };
        if known.as_deref() == Some(authorization.as_str()) {
            return Ok(response);
        }
        *self.authorization.lock() = Some(authorization.clone());
        self.follow(url, accept, Some(&authorization)).await
    }

    /// Requests, following redirects. Credentials stay with the host they are for.
    async fn follow(
        &self,
        url: &str,
        accept: &'static str,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut uri: Uri = url.parse().map_err(|error| ImageError::invalid(url, error))?;
        let home = uri.authority().cloned();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::builder().method(Method::GET).uri(&uri).header(ACCEPT, accept);
            request = request.header("User-Agent", concat!("skiff/", env!("CARGO_PKG_VERSION")));
            if let Some(authorization) = authorization.filter(|_| uri.authority() == home.as_ref()) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let request = request.body(Empty::new()).map_err(|error| ImageError::invalid(&uri, error))?;
            let failed = |error: &dyn std::fmt::Display| ImageError::Registry(format!("get {uri}: {error}"));
            let response = tokio::time::timeout(HEAD_TIMEOUT, self.client.request(request))
                .await
                .map_err(|_| failed(&"no answer within 60 seconds"))?
                .map_err(|error| failed(&chain(&error)))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            let target = target.ok_or_else(|| failed(&"a redirect to nowhere"))?;
            uri = resolve(&uri, target).ok_or_else(|| failed(&format!("a redirect to {target:?}")))?;
        }
        Err(ImageError::Registry(format!("get {url}: more than {REDIRECTS_MAX} redirects")))
    }

    /// The `Authorization` that a challenge asks for; `None` when we have nothing to offer.
    async fn answer(&self, challenges: &[http::HeaderValue]) -> Result<Option<String>, ImageError> {
        for challenge in challenges.iter().filter_map(|challenge| challenge.to_str().ok()) {
            let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
            let basic = self.credentials.as_ref().map(|(user, password)| {
                let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                format!("Basic {text}")
            });
            if scheme.eq_ignore_ascii_case("basic") {
                return Ok(basic);
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                return self.token(&parameters(rest), basic.as_deref()).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn token(&self, parameters: &BTreeMap<String, String>, basic: Option<&str>) -> Result<String, ImageError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm =
            parameters.get("realm").ok_or_else(|| ImageError::Registry("a token challenge without realm".into()))?;
        let scope = parameters.get("scope").unwrap_or(&self.scope);
        let mut url = format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, encoded(scope));
        if let Some(service) = parameters.get("service") {
            url.push_str(&format!("&service={}", encoded(service)));
        }
        let response = self.follow(&url, "application/json", basic).await?;
        let status = response.status();
        let bytes = text(response).await;
        if !status.is_success() {
            return Err(ImageError::Denied(format!("fetch a token from {realm}: {status}")));
        }
        let token: Token = super::store::parse(&bytes, realm)?;
        let token = token.token.or(token.access_token);
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| ImageError::Registry(format!("{realm} gave no token")))
    }

    async fn judge(&self, url: &str, response: Response<Incoming>) -> Result<Response<Incoming>, ImageError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = text(response).await;
        let reason = String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned();
        let text = format!("get {url}: {status} {reason}");
        Err(match status {
            StatusCode::NOT_FOUND => ImageError::NotFound(text),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ImageError::Denied(format!(
                "pull access denied, repository does not exist or may require authorization: {text}"
            )),
            _ => ImageError::Registry(text),
        })
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

async fn text(response: Response<Incoming>) -> Vec<u8> {
    let limited = http_body_util::Limited::new(response.into_body(), TEXT_BYTES_MAX);
    let collected = tokio::time::timeout(IDLE_TIMEOUT, limited.collect()).await;
    collected.ok().and_then(Result::ok).map(|body| body.to_bytes().to_vec()).unwrap_or_default()
}

fn resolve(base: &Uri, target: &str) -> Option<Uri> {
    if target.starts_with('/') {
        return format!("{}://{}{target}", base.scheme_str()?, base.authority()?).parse().ok();
    }
    let uri: Uri = target.parse().ok()?;
    // Never from TLS to none.
    let downgrade = base.scheme_str() == Some("https") && uri.scheme_str() != Some("https");
    (uri.authority().is_some() && !downgrade).then_some(uri)
}

/// User and password, given apart or as base64 of both.
fn credentials(auth: &AuthConfig) -> Result<Option<(String, String)>, ImageError> {
    if !auth.username.is_empty() {
        return Ok(Some((auth.username.clone(), auth.password.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let invalid = || ImageError::Invalid("the registry credentials are not base64 of user:password".into());
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).map_err(|_| invalid())?;
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    let (user, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(Some((user.to_owned(), password.trim_end_matches('\0').to_owned())))
}

/// `key="value",…`
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(key.trim_matches([' ', ',']).to_ascii_lowercase(), value.to_owned());
        rest = next.trim_start_matches([',', ' ']);
    }
    found
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Connects, with TLS for https.
#[derive(Clone)]
struct Connector(Option<Arc<rustls::ClientConfig>>);

impl Connector {
    /// The machine's certificates are only loaded when there is something to verify.
    fn new(insecure: bool) -> Result<Self, ImageError> {
        if insecure {
            return Ok(Self(None));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ImageError::Registry(format!("set up TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(Arc::new(config))))
    }
}

impl tonic::codegen::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = futures::future::BoxFuture<'static, io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let secure = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            let connect = async {
                let tcp = TcpStream::connect((host.as_str(), port)).await?;
                match (secure, tls) {
                    (false, _) => Ok(Stream::Plain(TokioIo::new(tcp))),
                    (true, None) => Err(io::Error::other("an insecure registry led to https")),
                    (true, Some(tls)) => {
                        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
                        Ok(Stream::Tls(Box::new(TokioIo::new(stream))))
                    }
                }
            };
            tokio::time::timeout(CONNECT_TIMEOUT, connect).await?
        })
    }
}

/// A connection of either kind.
enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let found = parameters(r#"realm="https://auth.io/token",service="reg, istry",scope="repository:a/b:pull""#);
        assert_eq!(found["realm"], "https://auth.io/token");
        assert_eq!(found["service"], "reg, istry");
        assert_eq!(found["scope"], "repository:a/b:pull");
        assert_eq!(encoded("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }

    #[test]
    fn redirects_keep_tls() {
        let base: Uri = "https://a.io/v2/x".parse().unwrap();
        assert_eq!(resolve(&base, "/y?z").unwrap().to_string(), "https://a.io/y?z");
        assert_eq!(resolve(&base, "https://cdn.io/blob").unwrap().to_string(), "https://cdn.io/blob");
        assert!(resolve(&base, "http://cdn.io/blob").is_none());
    }

    #[test]
    fn credentials_come_in_two_forms() {
        let both = AuthConfig { auth: "dXNlcjpwYXNz".into(), ..AuthConfig::default() };
        assert_eq!(credentials(&both).unwrap(), Some(("user".into(), "pass".into())));
        assert!(credentials(&AuthConfig { auth: "???".into(), ..AuthConfig::default() }).is_err());
    }
}
