//! What a server is told about who may come in.

use std::path::PathBuf;

use super::request_header::RequestHeader;
use super::{jwt, webhook};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The authorities of client certificates, PEM (`--client-ca-file`).
    pub client_ca: String,
    /// The proxies that may speak for others (`--requestheader-*`).
    pub request_header: Option<RequestHeader>,
    /// Whether bootstrap tokens are taken (`--enable-bootstrap-token-auth`).
    pub bootstrap_tokens: bool,
    /// The issuer that the `--oidc-*` flags name.
    pub oidc: jwt::config::Flags,
    /// The structured configuration (`--authentication-config`).
    pub configuration: Option<ConfigurationFile>,
    /// A server that knows tokens (`--authentication-token-webhook-config-file`).
    pub webhook: Option<webhook::Settings>,
    /// Who a token must be for; empty for the issuer (`--api-audiences`).
    pub api_audiences: Vec<String>,
    /// Issuers that service account tokens may have besides the first (`--service-account-issuer`).
    pub other_issuers: Vec<String>,
    /// Keys that verify service account tokens besides the one that signs them, PEM
    /// (`--service-account-key-file`).
    pub verification_keys: Vec<String>,
    /// What the discovery document says about where the keys are (`--service-account-jwks-uri`).
    pub jwks_uri: String,
    /// The longest that a requested token may live, in seconds
    /// (`--service-account-max-token-expiration`).
    pub token_seconds_max: Option<i64>,
    /// Whether tokens of pods end when their request says, instead of living a year
    /// (`--service-account-extend-token-expiration=false`).
    pub exact_token_expiration: bool,
}

/// A configuration file.
#[derive(Clone, Debug, Default)]
pub struct ConfigurationFile {
    /// What it holds.
    pub text: String,
    /// Where it is, to read it again when it changes.
    pub path: Option<PathBuf>,
}
