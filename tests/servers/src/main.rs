//! Servers that run as pods in the end-to-end tests: what users extend a cluster with.
//!
//! `certificates` makes an authority and a serving certificate; `aggregated` is an API server behind an APIService
//! ([`aggregated`]), `admission` are webhooks ([`admission`]), `conversion` converts a custom resource
//! ([`conversion`]).

// These are programs of their own, not parts of Skiff: they have no clock and no tasks to be given.
#![allow(clippy::disallowed_methods)]

mod admission;
mod aggregated;
mod cluster;
mod conversion;
mod serve;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

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
    /// Admission webhooks.
    Admission {
        /// Where tls.crt and tls.key lie.
        folder: PathBuf,
        /// The port.
        port: u16,
    },
    /// A conversion webhook.
    Conversion {
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
        Command::Admission { folder, port } => admission::run(&folder, port).await,
        Command::Conversion { folder, port } => conversion::run(&folder, port).await,
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
