//! HTTPS, as every server here speaks it: one handler, ended by the signal that ends a pod.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What a handler answers with.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request and the common name of the client's certificate, where it showed one.
pub(crate) struct Call {
    pub(crate) request: Request<Incoming>,
    pub(crate) client: Option<String>,
}

/// The folder with tls.crt and tls.key, and whose clients are welcome.
pub(crate) struct Identity {
    folder: PathBuf,
    client_authority: String,
}

impl Identity {
    /// A server that asks nobody for a certificate.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), client_authority: String::new() }
    }

    /// Checks the certificates of clients that show one against an authority (PEM).
    pub(crate) fn believing(self, client_authority: String) -> Self {
        Self { client_authority, ..self }
    }

    /// Read for each connection: a Secret that is mounted changes under a server that runs.
    fn tls(&self) -> Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_file_iter(self.folder.join("tls.crt"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.folder.join("tls.key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.client_authority.as_bytes()) {
            roots.add(certificate?)?;
        }
        let builder = if roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(
                verifier.allow_unauthenticated().build().context("use the client authority")?,
            )
        };
        Ok(Arc::new(builder.with_single_cert(chain, key)?))
    }
}

/// Answers until the pod is told to end.
pub(crate) async fn serve<H, F>(port: u16, identity: Identity, handler: H) -> Result<()>
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send,
{
    // The first process of a container is spared by signals it has no handler for.
    let mut end = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    loop {
        let (stream, _) = tokio::select! {
            biased;
            _ = end.recv() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(identity.tls()?);
        let handler = handler.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let client = chain.first().and_then(|certificate| common_name(certificate));
            let service = service_fn(move |request| {
                let (handler, client) = (handler.clone(), client.clone());
                async move { Ok::<_, Infallible>(handler(Call { request, client }).await) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

/// An answer of JSON.
pub(crate) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    answer(status, "application/json", value.to_string())
}

/// An answer of any content.
pub(crate) fn answer(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::new(text.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static(content_type));
    answer
}

/// The object that a request carries.
pub(crate) async fn body(request: Request<Incoming>) -> Option<Value> {
    let bytes = request.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}
