//! Who sends a request.
//!
//! [`chain`] asks one authenticator after the other; each is a file: [`request_header`] (a proxy
//! that speaks for others), [`certificate`], and those of bearer tokens: [`static_token`],
//! [`service_account`], [`bootstrap_token`], [`jwt`], [`webhook`]. [`impersonation`] comes after them.

use std::collections::BTreeMap;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

pub mod anonymous;
pub mod bootstrap_token;
pub mod certificate;
pub mod chain;
pub mod impersonation;
pub mod jws;
pub mod jwt;
pub mod keys;
pub mod legacy;
pub mod published;
pub(crate) mod reload;
pub mod request_header;
pub mod service_account;
pub mod settings;
pub mod static_token;
mod token_cache;
pub mod webhook;

pub use settings::Settings;
pub use static_token::StaticToken;

/// The group of everybody who has proven who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who has not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// `authentication.k8s.io UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The unique name.
    pub name: String,
    /// The uid, when the name may be used again (service accounts).
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user in these groups and in `system:authenticated`.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if name != ANONYMOUS && !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// The user of requests without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The namespace and name of a service account, when it is one.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let valid = skiff_object::name::dns1123_label(namespace).is_empty()
            && skiff_object::name::dns1123_subdomain(name).is_empty();
        valid.then_some((namespace, name))
    }

    /// In `system:authenticated` too, unless it is nobody.
    pub fn authenticated(mut self) -> Self {
        if self.name != ANONYMOUS && !self.in_group(AUTHENTICATED) && !self.in_group(UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

/// The bearer token of a request.
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

/// The bearer token that a browser's WebSocket carries as a subprotocol.
pub fn websocket_token(headers: &HeaderMap) -> Option<String> {
    use base64::Engine;
    let protocols = headers.get(PROTOCOL)?.to_str().ok()?;
    let encoded = protocols.split(',').find_map(|protocol| protocol.trim().strip_prefix(TOKEN_PROTOCOL))?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok()
}

const PROTOCOL: &str = "sec-websocket-protocol";
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Takes that subprotocol out: what answers the request is not to choose it.
fn forget_websocket_token(headers: &mut HeaderMap) {
    let Some(protocols) = headers.get(PROTOCOL).and_then(|value| value.to_str().ok()) else { return };
    if !protocols.contains(TOKEN_PROTOCOL) {
        return;
    }
    let others: Vec<&str> =
        protocols.split(',').map(str::trim).filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL)).collect();
    match HeaderValue::from_str(&others.join(",")) {
        Ok(value) if !others.is_empty() => _ = headers.insert(PROTOCOL, value),
        _ => _ = headers.remove(PROTOCOL),
    }
}

/// Compares in a time that tells nothing about where two secrets differ.
pub(crate) fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A header's value as text; bytes beyond ASCII are read as UTF-8 or replaced.
fn header_text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The key of an extra, which a header's name carries percent-encoded; malformed ones count as
/// they are.
fn unescape_extra_key(encoded: &str) -> String {
    crate::request::percent_decode(encoded).into_owned()
}

/// Removes every header whose (lower-case) name is `unwanted`.
fn remove_headers(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<_> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
