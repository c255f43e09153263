//! The demo application: what its image runs, and the objects that make it a Deployment.
//!
//! Its image is made of this very binary, so a cluster without any network has something to run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use skiff_base::{Shutdown, Tasks};

/// The demo's image.
pub const IMAGE: &str = "skiff.local/demo:latest";
/// The node port of the demo.
pub const NODE_PORT: u16 = 30_080;
/// The objects of the demo.
pub const MANIFEST: &str = include_str!("../../../examples/demo.yaml");

const CONFIG_FILE: &str = "/etc/demo/config/greeting";
const SECRET_FILE: &str = "/etc/demo/secret/token";
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers longer than this are cut off with an error: this is a demo, not a download tool.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Serves until SIGTERM.
pub async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("listen for SIGTERM")?;
    let tasks = Tasks::new("demo", Shutdown::new());
    println!("serving on http://{listen}");
    loop {
        let connection = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            connection = listener.accept() => connection,
        };
        let (stream, peer) = match connection {
            Ok(connection) => connection,
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        tasks.spawn("connection", async move {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, peer)) });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
    println!("terminating");
    tasks.stop().await;
    Ok(())
}

fn answer(request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    println!("{} {} from {peer}", request.method(), request.uri());
    let (status, body) = match request.uri().path() {
        "/" => (200, page()),
        "/ready" => match (std::fs::read(CONFIG_FILE), std::fs::read(SECRET_FILE)) {
            (Ok(_), Ok(_)) => (200, "ready\n".to_owned()),
            (config, secret) => (503, format!("config: {:?}, secret: {:?}\n", config.err(), secret.err())),
        },
        path => (404, format!("{path} is not here\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn page() -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    let greeting = std::fs::read_to_string(CONFIG_FILE).unwrap_or_else(|error| format!("no greeting: {error}"));
    let secret = match std::fs::read(SECRET_FILE) {
        Ok(secret) => format!("{} bytes", secret.len()),
        Err(error) => format!("none: {error}"),
    };
    format!(
        "{}\npod:    {}\nnode:   {}\nsecret: {secret}\n",
        greeting.trim_end(),
        variable("POD_NAME"),
        variable("NODE_NAME"),
    )
}

/// Prints what an `http://` URL answers; fails when the answer is no success.
pub async fn get(url: &str) -> Result<()> {
    let answer = fetch(url).await?;
    print!("{answer}");
    Ok(())
}

/// What an `http://` URL answers.
pub async fn fetch(url: &str) -> Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("read the URL {url}"))?;
    let host = uri.host().with_context(|| format!("{url} names no host"))?;
    if uri.scheme_str() != Some("http") {
        bail!("{url} is no http:// URL");
    }
    let port = uri.port_u16().unwrap_or(80);
    let stream =
        tokio::net::TcpStream::connect((host, port)).await.with_context(|| format!("connect to {host}:{port}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(|| format!("speak HTTP with {host}"))?;
    let tasks = Tasks::new("get", Shutdown::new());
    tasks.spawn("connection", async move {
        if let Err(error) = connection.await {
            eprintln!("{error}");
        }
    });
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(http::header::HOST, host)
        .body(Full::<Bytes>::default())
        .context("make the request")?;
    let response = sender.send_request(request).await.with_context(|| format!("GET {url}"))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("read the answer of {url}: {error}"))?
        .to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if !status.is_success() {
        bail!("{url} answered {status}: {}", body.trim_end());
    }
    Ok(body)
}
