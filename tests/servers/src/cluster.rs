//! The API server of the cluster that a pod runs in.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Reads an object with the pod's service account.
pub(crate) async fn get(path: &str) -> Result<Value> {
    let read =
        |name: &str| std::fs::read_to_string(format!("{ACCOUNT}/{name}")).with_context(|| format!("read {name}"));
    let (token, authority) = (read("token")?, read("ca.crt")?);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let host = std::env::var("KUBERNETES_SERVICE_HOST").context("KUBERNETES_SERVICE_HOST is not set")?;
    let stream = TcpStream::connect((host.as_str(), 443)).await.context("connect to the API server")?;
    let name = ServerName::try_from("kubernetes.default.svc")?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    let request = Request::get(path)
        .header("host", "kubernetes.default.svc")
        .header("authorization", format!("Bearer {}", token.trim()))
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body)?)
}
