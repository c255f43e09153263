//! A TLS server of the test's own, as webhooks and aggregated servers have it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use skiff_api::serve::{TlsMaterial, tls_config};
use skiff_base::{Shutdown, Tasks};
use tokio::net::TcpListener;

/// What answers: the request with its whole body.
pub(crate) type Answering = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// A server that runs until the test ends.
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    /// The authority that signed its certificate, PEM.
    pub(crate) authority: String,
    tasks: Tasks,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.tasks.shutdown().signal();
    }
}

impl Remote {
    /// Serves `answering` on a free port, with a certificate for `names`.
    pub(crate) async fn start(names: &[&str], answering: Answering) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let mut leaf =
            rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        Self::serve(authority.pem(), certificate.pem(), key.serialize_pem(), answering).await
    }

    /// Serves with one certificate that is its own authority.
    pub(crate) async fn start_self_signed(names: &[&str], answering: Answering) -> Self {
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::serve(certificate.pem(), certificate.pem(), key.serialize_pem(), answering).await
    }

    async fn serve(authority: String, certificate: String, key: String, answering: Answering) -> Self {
        let tls = tls_config(&TlsMaterial { certificate, key, client_authority: String::new() }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new("remote", Shutdown::new());
        let group = tasks.clone();
        tasks.spawn("listener", async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(tls);
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answering) = (acceptor.clone(), Arc::clone(&answering));
                group.spawn("connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answering = Arc::clone(&answering);
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            Ok::<_, hyper::Error>(answering(Request::from_parts(head, body)).await.map(Full::new))
                        }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, authority, tasks }
    }
}

/// A server that answers what a plain function says.
pub(crate) fn answering(answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Answering {
    Arc::new(move |request| {
        let response = answer(request);
        Box::pin(async move { response })
    })
}
