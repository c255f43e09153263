//! Servers that run as pods in the end-to-end tests: what users extend a cluster with.
//!
//! `certificates` makes an authority and a serving certificate; `aggregated` is an API server
//! behind an APIService ([`aggregated`]).

// These are programs of their own, not parts of Skiff: they have no clock and no tasks to be given.
#![allow(clippy::disallowed_methods)]

mod aggregated;
mod cluster;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

#[derive(Parser)]
enum Command {
    /// Writes ca.crt, tls.crt and tls.key for a DNS name.
    Certificates {
        /// The name that is served.
        name: String,
        /// Where the files go.
        folder: PathBuf,
    },
    /// An API server of the group wardle.example.com.
    Aggregated {
        /// Where tls.crt and tls.key lie.
        folder: PathBuf,
        /// The port.
        port: u16,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Command::parse() {
        Command::Certificates { name, folder } => certificates(&name, &folder),
        Command::Aggregated { folder, port } => aggregated::run(&folder, port).await,
    }
}

fn certificates(name: &str, folder: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test-servers-ca");
    let key = rcgen::KeyPair::generate()?;
    let authority = params.self_signed(&key)?;
    let issuer = rcgen::Issuer::new(params, key);
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])?;
    let key = rcgen::KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    std::fs::write(folder.join("ca.crt"), authority.pem())?;
    std::fs::write(folder.join("tls.crt"), certificate.pem())?;
    std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

/// TLS with the certificate of `folder` that welcomes clients of `client_authority` (PEM).
fn tls(folder: &std::path::Path, client_authority: &str) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(folder.join("tls.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("tls.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .context("use the client authority")?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}
