//! Connections that are asked to go elsewhere, and a server that ends.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use skiff_api::Config;
use skiff_api::limits::Limits;
use skiff_api::shutdown::Settings;

use crate::support::{ADMIN_TOKEN, CONFIG_MAPS, api_of};
use crate::tls::{Pki, connect, listen};

/// How long a server may take to let a connection go.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(Method::GET).uri(format!("https://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.header("authorization", format!("Bearer {ADMIN_TOKEN}")).body(Full::new(Bytes::new())).unwrap()
}

#[tokio::test]
async fn http2_connections_are_told_to_go_by_chance_and_answered_first() {
    let pki = Pki::new();
    let limits = Limits { goaway_chance: 1.0, ..Limits::default() };
    let api = api_of(|config| Config { limits, ..config }).await;
    let address = listen(&api, &pki).await;
    let stream = connect(address, &pki, None, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let asking = async {
        let answer = sender.send_request(request(CONFIG_MAPS, &[])).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap().to_bytes().len()
    };
    let both = async { futures::join!(asking, connection) };
    let (bytes, ended) = tokio::time::timeout(PATIENCE, both).await.expect("the server lets the connection go");
    ended.unwrap();
    assert!(bytes > 0);
    assert!(sender.is_closed());
    // HTTP/1.1 has nothing of the kind: two requests go over one connection.
    let stream = connect(address, &pki, None, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let asking = async {
        for _ in 0..2 {
            sender.ready().await.unwrap();
            let answer = sender.send_request(request(CONFIG_MAPS, &[("host", "localhost")])).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
        }
    };
    tokio::select! { () = asking => {}, _ = connection => panic!("the connection ended") }
}

#[tokio::test]
async fn a_server_that_ends_turns_away_all_but_who_looks_after_it() {
    let pki = Pki::new();
    let shutdown = Settings { send_retry_after: true, ..Settings::default() };
    let api = api_of(|config| Config { shutdown, ..config }).await;
    let address = listen(&api, &pki).await;
    let ask = async |path: &str, headers: &[(&str, &str)]| -> (u16, HeaderMap, String) {
        let stream = connect(address, &pki, None, b"http/1.1").await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let asking = async {
            let headers = [&[("host", "localhost")], headers].concat();
            let (head, body) = sender.send_request(request(path, &headers)).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
        };
        let (answer, _) = futures::join!(asking, connection);
        answer
    };
    api.server.drain().await;
    // The connection ends with the answer: the join above would wait for ever otherwise.
    let (status, headers, body) = tokio::time::timeout(PATIENCE, ask(CONFIG_MAPS, &[])).await.expect("it is closed");
    assert_eq!((status, body.as_str()), (429, "The apiserver is shutting down, please try again later.\n"));
    assert_eq!((headers["retry-after"].as_bytes(), headers["connection"].as_bytes()), (&b"5"[..], &b"close"[..]));
    let closing = [("connection", "close")];
    assert_eq!(ask("/metrics", &closing).await.0, 200);
    assert_eq!(ask("/livez", &closing).await.0, 200);
    let (status, _, body) = ask("/readyz", &closing).await;
    assert_eq!(status, 500, "{body}");
    let own = [("connection", "close"), ("user-agent", "kube-apiserver/v1.36")];
    assert_eq!(ask(CONFIG_MAPS, &own).await.0, 200);
    // Components of the process itself finish what they do.
    assert_eq!(api.get(CONFIG_MAPS).await.line(), "200");
    let stream = connect(address, &pki, None, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let asking = async { sender.send_request(request(CONFIG_MAPS, &[])).await.unwrap().status() };
    let both = async { futures::join!(asking, connection) };
    let (status, _) = tokio::time::timeout(PATIENCE, both).await.expect("HTTP/2 connections are let go, too");
    assert_eq!(status, 429);
}
