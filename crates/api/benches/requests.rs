//! What single requests cost: `cargo bench -p skiff-api` (`--profile fast` builds sooner).
//!
//! First figures of the processor time of a server alone, measured once and printed: its threads have a runtime of
//! their own, and the clients' time is not counted. Then criterion over the parts, without a network.
//! `cargo bench -p skiff-api -- tls` measures only the figures whose name holds `tls`, and no parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use criterion::Criterion;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use skiff_api::authn::{MASTERS, StaticToken, UserInfo, jws::SigningKey};
use skiff_api::authz::rbac::Rbac;
use skiff_api::{ApiServer, Config, Local, bootstrap};
use skiff_base::{Clock, Corked, Random, Shutdown, Tasks};
use skiff_store::Store;
use skiff_store::embedded::{EmbeddedStore, Options};
use skiff_store::memory::MemoryStore;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const POD: &str = include_str!("../../skiff/src/bench/pod.json");
const PODS: &str = "/api/v1/namespaces/default/pods";
const TOKEN: &str = "token-of-the-bench";
/// The threads whose time counts.
const SERVER_THREADS: &str = "server";
/// Requests under way at once.
const CLIENTS: usize = 64;
/// How long one figure is measured.
const MEASURED: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = arguments.iter().find(|argument| !argument.starts_with("--")).cloned().unwrap_or_default();
    if arguments.iter().any(|argument| argument == "--bench") && !arguments.iter().any(|one| one == "--profile-time") {
        figures(&asked);
    }
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    parts(&mut criterion);
    criterion.final_summary();
}

fn threads(name: &'static str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().expect("runtime")
}

/// A server as a cluster has it: RBAC, and a user who is known by a token.
async fn server(store: Arc<dyn Store>) -> Arc<ApiServer> {
    let (clock, random, tasks) = (Clock::system(), Random::system(), Tasks::new("api", Shutdown::new()));
    let authorizer = Rbac::start(Arc::clone(&store), "bench", clock.clone(), &tasks).await.expect("roles");
    let user = UserInfo::new("bench", &[MASTERS]);
    let server = ApiServer::new(Config {
        authorizer,
        static_tokens: vec![StaticToken { token: TOKEN.into(), user: user.clone() }],
        ..Config::new("bench", store, clock, random, tasks, SigningKey::generate().expect("a key"))
    })
    .expect("a server");
    bootstrap::run(&server).await.expect("bootstrap");
    let account = r#"{"metadata":{"name":"default"}}"#.to_owned();
    let local = server.local(user);
    assert_eq!(ask(&local, Method::POST, "/api/v1/namespaces/default/serviceaccounts", account).await, 201);
    server
}

async fn ask(local: &Local, method: Method, path: &str, body: String) -> StatusCode {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let answer = local.call(request.body(Bytes::from(body)).expect("a request")).await;
    let status = answer.status();
    assert!(!answer.into_body().collect().await.expect("a body").is_empty());
    status
}

/// A pod of its own.
fn pod(name: &str) -> String {
    POD.replace("NAME", name)
}

/// One client of a server that listens.
async fn connect(address: std::net::SocketAddr) -> SendRequest<Full<Bytes>> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("handshake");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(Corked::new(tls))).await.expect("h2");
    Tasks::new("client", Shutdown::new()).spawn("connection", async move { drop(connection.await) });
    sender
}

/// The server's certificate is made for the occasion.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn listen(runtime: &Runtime, server: &Arc<ApiServer>) -> std::net::SocketAddr {
    runtime.block_on(async {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        let tls = server.tls(&certificate.pem(), &key.serialize_pem()).expect("tls");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        server.listen(listener, tls);
        address
    })
}

async fn send(sender: &SendRequest<Full<Bytes>>, method: Method, path: &str, body: String) -> usize {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .header("user-agent", "bench/1 (linux/amd64)")
        .body(Full::new(Bytes::from(body)))
        .expect("a request");
    let answer = sender.clone().send_request(request).await.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.into_body().collect().await.expect("a body").to_bytes().len()
}

/// Many clients for a while; prints how often and at what cost for the server.
fn measure<F: Future<Output = usize>>(clients: &Runtime, name: &str, work: impl Fn(usize) -> F) {
    let clock = Clock::system();
    let count = AtomicUsize::new(0);
    let (before, began) = (server_time(), clock.instant());
    let (mut latencies, bytes) = clients.block_on(async {
        let each = (0..CLIENTS).map(|_| async {
            let (mut latencies, mut bytes) = (Vec::new(), 0);
            while began.elapsed() < MEASURED {
                let sent = clock.instant();
                bytes = work(count.fetch_add(1, Ordering::Relaxed)).await;
                latencies.push(sent.elapsed());
            }
            (latencies, bytes)
        });
        let all = futures::future::join_all(each).await;
        let bytes = all.first().map_or(0, |(_, bytes)| *bytes);
        (all.into_iter().flat_map(|(latencies, _)| latencies).collect::<Vec<_>>(), bytes)
    });
    let cpu = server_time() - before;
    latencies.sort_unstable();
    let done = latencies.len();
    let at = |part: f64| latencies[((done - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{name}: {:.1} us server CPU each, {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {bytes} bytes answered",
        cpu.as_secs_f64() * 1e6 / done as f64,
        done as f64 / began.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
    );
}

fn figures(asked: &str) {
    let wanted = |name: &str| name.contains(asked);
    let (clients, serving) = (threads("client"), threads(SERVER_THREADS));
    let directory = TempDir::new_in(".").expect("a directory on a disk");
    let store = {
        let _entered = serving.enter();
        EmbeddedStore::open(directory.path(), Options::new(Clock::system(), Random::system())).expect("open")
    };
    let server = serving.block_on(server(Arc::new(store)));
    let address = listen(&serving, &server);
    let sender = clients.block_on(connect(address));
    clients.block_on(send(&sender, Method::POST, PODS, pod("one")));
    for (name, path) in [("tls get pod", format!("{PODS}/one")), ("tls get /livez", "/livez/ping".to_owned())] {
        if wanted(name) {
            measure(&clients, name, |_| send(&sender, Method::GET, &path, String::new()));
        }
    }
    if wanted("tls create pod") {
        let sender = &sender;
        measure(&clients, "tls create pod", |number| async move {
            send(sender, Method::POST, PODS, pod(&format!("web-{number}"))).await
        });
    }
}

/// Processor time of the server's threads so far.
fn server_time() -> Duration {
    let mut nanos = 0;
    for thread in std::fs::read_dir("/proc/self/task").expect("threads").flatten() {
        let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        if read("comm").trim() == SERVER_THREADS {
            nanos += read("schedstat").split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanos)
}

fn parts(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
    let server = runtime.block_on(server(Arc::new(MemoryStore::new(Clock::system()))));
    let local = server.local(UserInfo::new("bench", &[MASTERS]));
    let name = AtomicUsize::new(0);
    assert_eq!(runtime.block_on(ask(&local, Method::POST, PODS, pod("one"))), 201);
    criterion.bench_function("get pod, in process", |bencher| {
        let path = format!("{PODS}/one");
        bencher.iter(|| runtime.block_on(ask(&local, Method::GET, &path, String::new())));
    });
    criterion.bench_function("create pod, in process", |bencher| {
        bencher.iter(|| {
            let body = pod(&format!("web-{}", name.fetch_add(1, Ordering::Relaxed)));
            assert_eq!(runtime.block_on(ask(&local, Method::POST, PODS, body)), 201);
        });
    });
    criterion.bench_function("update pod, in process", |bencher| {
        let path = format!("{PODS}/one");
        bencher.iter(|| {
            let count = name.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"metadata":{{"annotations":{{"count":"{count}"}}}}}}"#);
            let request = Request::patch(&path).header("content-type", "application/merge-patch+json");
            let request = request.body(Bytes::from(body)).expect("a request");
            assert_eq!(runtime.block_on(local.call(request)).status(), 200);
        });
    });
}
