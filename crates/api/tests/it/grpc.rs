//! A gRPC server in fifty lines: unary calls as bytes.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use skiff_base::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};

/// Answers a method's message; the error becomes `INTERNAL`.
pub(crate) type Handler = Arc<dyn Fn(&str, &[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

const INTERNAL: &str = "13";

pub(crate) fn serve_unix(path: &std::path::Path, tasks: &Tasks, handler: Handler) {
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let inner = tasks.clone();
    tasks.spawn("grpc", async move {
        while let Ok((stream, _)) = listener.accept().await {
            connection(&inner, stream, Arc::clone(&handler));
        }
    });
}

pub(crate) async fn serve_tcp(tasks: &Tasks, handler: Handler) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = tasks.clone();
    tasks.spawn("grpc", async move {
        while let Ok((stream, _)) = listener.accept().await {
            connection(&inner, stream, Arc::clone(&handler));
        }
    });
    address
}

fn connection(tasks: &Tasks, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Handler) {
    tasks.spawn("grpc-connection", async move {
        let service = service_fn(move |request: Request<Incoming>| {
            let handler = Arc::clone(&handler);
            async move { Ok::<_, std::convert::Infallible>(answer(request, handler).await) }
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    });
}

async fn answer(
    request: Request<Incoming>,
    handler: Handler,
) -> Response<StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = HeaderMap::new();
    let mut frames = Vec::new();
    match handler(&path, &body[5..]) {
        Ok(message) => {
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(message.len() as u32);
            framed.extend_from_slice(&message);
            frames.push(Ok(Frame::data(framed.freeze())));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
        }
        Err(why) => {
            trailers.insert("grpc-status", HeaderValue::from_static(INTERNAL));
            trailers.insert("grpc-message", HeaderValue::from_str(&why).unwrap());
        }
    }
    frames.push(Ok(Frame::trailers(trailers)));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(StreamBody::new(futures::stream::iter(frames)))
        .unwrap()
}
