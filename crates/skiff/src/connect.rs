//! The way from a command to a cluster's API: over TLS, as `kubectl` goes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine;
use skiff_base::Tasks;
use skiff_client::remote::{Credentials, Target, TlsEndpoint};
use skiff_client::{Client, Endpoint};
use skiff_object::{Tree, yaml};

use crate::commands::Session;
use crate::profile::Profile;

/// How commands call themselves.
const USER_AGENT: &str = concat!("skiff/", env!("CARGO_PKG_VERSION"));

/// The administrator's way into `profile`.
pub fn endpoint(session: &Session, profile: &Profile, tasks: &Tasks) -> Result<Arc<dyn Endpoint>> {
    let entry = crate::commands::kubeconfig_entry(session, profile)?;
    let target = Target {
        server: entry.server,
        ca_pem: entry.authority.into_bytes(),
        server_name: None,
        credentials: Credentials::Certificate {
            chain_pem: entry.identity.certificate.into_bytes(),
            key_pem: entry.identity.key.into_bytes(),
        },
    };
    Ok(Arc::new(TlsEndpoint::new(&target, tasks.clone()).context("use the administrator's certificate")?))
}

/// A client over [`endpoint`].
pub fn client(session: &Session, profile: &Profile, tasks: &Tasks) -> Result<Client> {
    Ok(Client::new(endpoint(session, profile, tasks)?, USER_AGENT))
}

/// The way into the current context of the kubeconfig at `path`.
pub fn endpoint_of_kubeconfig(path: &Path, tasks: &Tasks) -> Result<Arc<dyn Endpoint>> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let config = yaml::decode_untyped(&text)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(|| format!("{} is no valid kubeconfig", path.display()))?;
    let target = target_of(&config).with_context(|| format!("use the current context of {}", path.display()))?;
    Ok(Arc::new(TlsEndpoint::new(&target, tasks.clone()).with_context(|| format!("use {}", path.display()))?))
}

fn target_of(config: &Tree) -> Result<Target> {
    let context = named(config, "contexts", config.str_at(&["current-context"]))?;
    let cluster = named(config, "clusters", context.str_at(&["context", "cluster"]))?;
    let user = named(config, "users", context.str_at(&["context", "user"]))?;
    let ca_pem = material(cluster, "cluster", "certificate-authority")?.unwrap_or_default();
    let certificate = material(user, "user", "client-certificate")?;
    let credentials = match (certificate, material(user, "user", "client-key")?, user.str_at(&["user", "token"])) {
        (Some(chain_pem), Some(key_pem), _) => Credentials::Certificate { chain_pem, key_pem },
        (_, _, token) if !token.is_empty() => Credentials::Token(token.to_owned()),
        _ => bail!(
            "its user has neither a client certificate nor a token; other ways to prove who you are are not read here"
        ),
    };
    let server_name = cluster.str_at(&["cluster", "tls-server-name"]);
    Ok(Target {
        server: cluster.str_at(&["cluster", "server"]).to_owned(),
        ca_pem,
        server_name: (!server_name.is_empty()).then(|| server_name.to_owned()),
        credentials,
    })
}

fn named<'a>(config: &'a Tree, list: &str, name: &str) -> Result<&'a Tree> {
    config
        .list_at(&[list])
        .iter()
        .find(|item| item.str_at(&["name"]) == name)
        .with_context(|| format!("there is no {name:?} in its {list}"))
}

/// The content of `<field>-data`, else of the file that `<field>` names.
fn material(item: &Tree, section: &str, field: &str) -> Result<Option<Vec<u8>>> {
    let data = item.str_at(&[section, &format!("{field}-data")]);
    if !data.is_empty() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(data);
        return Ok(Some(bytes.with_context(|| format!("{field}-data is no base64"))?));
    }
    let file = item.str_at(&[section, field]);
    if file.is_empty() {
        return Ok(None);
    }
    std::fs::read(file).with_context(|| format!("read {file}")).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_leads_to_a_target() {
        let config = yaml::decode_untyped(
            b"current-context: b\ncontexts:\n- {name: a, context: {cluster: x, user: x}}\n- {name: b, context: {cluster: c, user: u}}\n\
              clusters:\n- {name: c, cluster: {server: 'https://h:1', certificate-authority-data: Q0E=}}\nusers:\n- {name: u, user: {token: t}}\n",
        )
        .unwrap();
        let target = target_of(&config).unwrap();
        assert_eq!(target.server, "https://h:1");
        assert_eq!(target.ca_pem, b"CA");
        assert!(matches!(target.credentials, Credentials::Token(token) if token == "t"));
    }
}
