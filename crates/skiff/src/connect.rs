//! The way from a command to a cluster's API: over TLS, as `kubectl` goes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use skiff_base::Tasks;
use skiff_client::remote::{Credentials, Target, TlsEndpoint};
use skiff_client::{Client, Endpoint};

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
    let target = skiff_client::kubeconfig::load(path, None)?;
    Ok(Arc::new(TlsEndpoint::new(&target, tasks.clone()).with_context(|| format!("use {}", path.display()))?))
}
