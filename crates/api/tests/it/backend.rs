//! Servers to pass requests on to, and the way there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use skiff_api::proxy::{Connection, Destination, NodeDialer};
use tokio::net::{TcpListener, TcpStream};

/// Connects addresses of the cluster and kubelets to listeners of the test.
#[derive(Default)]
pub(crate) struct Network(Mutex<BTreeMap<String, SocketAddr>>);

impl Network {
    /// From now on `place` (`ip:port` or a node's name) is `listener`.
    pub(crate) fn route(&self, place: &str, listener: SocketAddr) {
        self.0.lock().insert(place.to_owned(), listener);
    }
}

#[async_trait]
impl NodeDialer for Network {
    async fn dial(&self, destination: &Destination) -> io::Result<Box<dyn Connection>> {
        let place = match destination {
            Destination::Kubelet { node } => node.clone(),
            Destination::Address(address) => address.to_string(),
        };
        let found = self.0.lock().get(&place).copied();
        let listener = found.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(TcpStream::connect(listener).await?))
    }
}

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A body that is all there.
pub(crate) fn full(text: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(text.into()).boxed_unsync()
}

/// A backend that says what it was asked, or does what the path says.
pub(crate) async fn echo(mut request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let mut answer = Response::new(full(""));
    match path.as_str() {
        "/redirect" => {
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert("location", HeaderValue::from_static("/there/?q=1"));
        }
        "/page" => {
            answer.headers_mut().insert("content-type", HeaderValue::from_static("text/html; charset=utf-8"));
            answer.headers_mut().insert("access-control-allow-origin", HeaderValue::from_static("*"));
            *answer.body_mut() = full("<a href=\"/next\">x</a>");
        }
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            #[allow(clippy::disallowed_methods)]
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer.headers_mut().insert("connection", HeaderValue::from_static("Upgrade"));
            answer.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
        }
        "/stream" => {
            // Each part of the request is answered before the next one comes.
            let parts = http_body_util::BodyDataStream::new(request.into_body());
            let body = StreamBody::new(parts.map(|part| Ok::<_, Infallible>(Frame::data(part.unwrap()))));
            *answer.body_mut() = body.boxed_unsync();
        }
        "/teapot" => *answer.status_mut() = StatusCode::IM_A_TEAPOT,
        _ => {
            let (head, body) = request.into_parts();
            let mut lines = vec![format!("{} {}", head.method, head.uri)];
            let mut names: Vec<String> =
                head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            names.sort();
            lines.extend(names);
            let body = body.collect().await.unwrap().to_bytes();
            lines.push(String::from_utf8_lossy(&body).into_owned());
            *answer.body_mut() = full(lines.join("\n"));
        }
    }
    answer
}

/// Serves `handler` on a port of its own, over TLS when there is a configuration.
#[allow(clippy::disallowed_methods)]
pub(crate) async fn serve<F, A>(tls: Option<Arc<rustls::ServerConfig>>, handler: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (handler, tls) = (handler.clone(), tls.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                match tls {
                    None => builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await.ok(),
                    Some(tls) => {
                        let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await else { return };
                        builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await.ok()
                    }
                };
            });
        }
    });
    address
}
