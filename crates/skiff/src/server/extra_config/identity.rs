//! Flags about who may come in and what they may do.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use skiff_api::Config;
use skiff_api::authn::settings::ConfigurationFile;
use skiff_api::authn::{request_header::RequestHeader, static_token};
use skiff_api::authz::abac;
use skiff_api::authz::config::{self, Mode};

use super::ExtraConfig;

/// The text of a file.
pub(super) fn file(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {path}"))
}

/// Parts between commas.
pub(super) fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Reads a file of bearer tokens.
pub(super) fn tokens(config: &mut Config, path: &str) -> Result<()> {
    config.static_tokens.extend(static_token::read_file(&file(path)?)?);
    Ok(())
}

/// Reads the structured authentication configuration.
pub(super) fn authentication(config: &mut Config, path: &str) -> Result<()> {
    config.authn.configuration = Some(ConfigurationFile { text: file(path)?, path: Some(Path::new(path).to_owned()) });
    Ok(())
}

/// Adds authorities of clients to those of the cluster.
pub(super) fn client_ca(config: &mut Config, path: &str) -> Result<()> {
    config.authn.client_ca.push('\n');
    config.authn.client_ca.push_str(&file(path)?);
    Ok(())
}

/// What is said about proxies; the standard names hold until others are given.
pub(super) fn proxies(config: &mut Config) -> &mut RequestHeader {
    config.authn.request_header.get_or_insert_default()
}

/// Adds authorities of proxies to those of the cluster.
pub(super) fn proxy_ca(config: &mut Config, path: &str) -> Result<()> {
    let text = file(path)?;
    let proxies = proxies(config);
    proxies.client_ca.push('\n');
    proxies.client_ca.push_str(&text);
    Ok(())
}

/// Names the server that knows bearer tokens.
pub(super) fn token_webhook(config: &mut Config, path: &str) -> Result<()> {
    let target = kubeconfig(path).map_err(|why| anyhow!(why))?;
    config.authn.webhook = Some(skiff_api::authn::webhook::Settings::new(target));
    Ok(())
}

/// Changes what is said about that server, which must have been named before.
pub(super) fn webhook(
    config: &mut Config,
    change: impl FnOnce(&mut skiff_api::authn::webhook::Settings) -> Result<()>,
) -> Result<()> {
    change(config.authn.webhook.as_mut().context("give authentication-token-webhook-config-file before it")?)
}

/// Reads a kubeconfig into the server that it names.
///
/// # Errors
/// What is missing, unreadable or not supported.
pub fn kubeconfig(path: &str) -> Result<skiff_api::outbound::Target, String> {
    let text = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    skiff_api::kubeconfig::target(&text, Path::new(path).parent().unwrap_or(Path::new("/")))
}

/// Remembers `claim=value`.
pub(super) fn required_claim(config: &mut Config, value: &str) -> Result<()> {
    let (claim, wanted) = value.split_once('=').context("write it as CLAIM=VALUE")?;
    config.authn.oidc.required_claims.push((claim.to_owned(), wanted.to_owned()));
    Ok(())
}

/// The first issuer issues, the others are believed too.
pub(super) fn issuer(config: &mut Config, value: &str) -> Result<()> {
    if value.is_empty() {
        bail!("an issuer has a name");
    }
    if config.issuer == skiff_api::server::DEFAULT_ISSUER {
        config.issuer = value.to_owned();
    } else {
        config.authn.other_issuers.push(value.to_owned());
    }
    Ok(())
}

/// The key that signs service account tokens, PEM.
pub(super) fn signing_key(config: &mut Config, path: &str) -> Result<()> {
    let text = file(path)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|error| anyhow!("{path}: {error}"))?;
    config.service_account_key = pem.contents;
    Ok(())
}

/// The file of the structured authorization configuration, which may change while the server runs.
///
/// # Errors
/// When it is given together with the flags that it replaces.
pub fn authorization_file(flags: &ExtraConfig) -> Result<Option<&Path>> {
    let path = flags.value("authorization-config").map(Path::new);
    if path.is_some() && flags.value("authorization-mode").is_some() {
        bail!("authorization-config and authorization-mode exclude each other");
    }
    Ok(path)
}

/// The authorizers that the flags ask for, in order; Node and RBAC when they do not say.
///
/// # Errors
/// When a flag or file is no good.
pub fn authorizers(flags: &ExtraConfig) -> Result<Vec<Mode>> {
    let webhook = flags.value("authorization-webhook-config-file");
    let webhook = webhook.map(|path| webhook_settings(flags, path)).transpose()?;
    let modes = flags.value("authorization-mode").unwrap_or("Node,RBAC");
    let abac = flags
        .value("authorization-policy-file")
        .map(|path| abac::Abac::read(&file(path)?).map_err(|why| anyhow!("authorization-policy-file={path}: {why}")));
    config::modes(modes, webhook, abac.transpose()?).with_context(|| format!("authorization-mode={modes}"))
}

fn webhook_settings(flags: &ExtraConfig, path: &str) -> Result<skiff_api::authz::webhook::Settings> {
    let target = kubeconfig(path).map_err(|why| anyhow!("authorization-webhook-config-file={path}: {why}"))?;
    let mut settings = skiff_api::authz::webhook::Settings::new("", target);
    if let Some(version) = flags.value("authorization-webhook-version") {
        version.clone_into(&mut settings.version);
    }
    if let Some(ttl) = flags.value("authorization-webhook-cache-authorized-ttl") {
        settings.authorized_ttl = super::duration(ttl)?;
    }
    if let Some(ttl) = flags.value("authorization-webhook-cache-unauthorized-ttl") {
        settings.unauthorized_ttl = super::duration(ttl)?;
    }
    Ok(settings)
}
