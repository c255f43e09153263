//! An API server on the memory store, to try with the real `kubectl`:
//! `cargo run -p skiff-api --example serve -- 127.0.0.1:7443 /tmp/kubeconfig`.

use std::net::SocketAddr;
use std::sync::Arc;

use skiff_api::authn::{MASTERS, StaticToken, UserInfo, jws::SigningKey};
use skiff_api::{ApiServer, Config, bootstrap};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::memory::MemoryStore;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or("127.0.0.1:7443".into()).parse().expect("an address");
    let kubeconfig = arguments.next().unwrap_or("/tmp/skiff-api-kubeconfig".into());
    let (clock, random) = (Clock::system(), Random::system());
    let token = random.uuid();
    let server = ApiServer::new(Config {
        anonymous: true,
        static_tokens: vec![StaticToken { token: token.clone(), user: UserInfo::new("admin", &[MASTERS]) }],
        // Endpoints hold no loopback address.
        advertise: SocketAddr::from(([192, 0, 2, 1], address.port())),
        ..Config::new(
            "example",
            Arc::new(MemoryStore::new(clock.clone())),
            clock,
            random,
            Tasks::new("api", Shutdown::new()),
            SigningKey::generate().expect("a key"),
        )
    })
    .expect("a server");
    bootstrap::run(&server).await.expect("bootstrap");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into(), address.ip().to_string()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    let tls = server.tls(&certificate.pem(), &key.serialize_pem()).expect("tls");
    let listener = tokio::net::TcpListener::bind(address).await.expect("a listener");
    server.listen(listener, tls);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{{name: x, context: {{cluster: x, user: x}}}}]\n\
         clusters: [{{name: x, cluster: {{server: 'https://{address}', insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: x, user: {{token: {token}}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).expect("write the kubeconfig");
    println!("export KUBECONFIG={kubeconfig}");
    std::future::pending::<()>().await;
}
