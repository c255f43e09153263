//! Over the network: TLS, HTTP/1.1 and HTTP/2, certificates and tokens, stopping.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use skiff_api::Config;
use skiff_api::authn::Settings;
use skiff_api::authn::request_header::RequestHeader;
use skiff_object::{Tree, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::support::{ADMIN_TOKEN, Api, api_of};

/// An authority, a server certificate and a client certificate.
pub(crate) struct Pki {
    pub(crate) authority: rcgen::Certificate,
    pub(crate) issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        Self { authority, issuer: rcgen::Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, name: &str, groups: &[&str]) -> (rcgen::Certificate, rcgen::KeyPair) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A server that believes certificates of `pki`.
async fn trusting(pki: &Pki) -> Api {
    let client_ca = pki.authority.pem();
    api_of(|config| Config { authn: Settings { client_ca, ..Settings::default() }, ..config }).await
}

pub(crate) async fn listen(api: &Api, pki: &Pki) -> SocketAddr {
    let (certificate, key) = pki.issue("localhost", &[]);
    let tls = api.server.tls(&certificate.pem(), &key.serialize_pem()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    api.server.listen(listener, tls);
    address
}

pub(crate) async fn connect(
    address: SocketAddr,
    pki: &Pki,
    client: Option<(&str, &[&str])>,
    alpn: &[u8],
) -> TlsStream<TcpStream> {
    connect_as(address, pki, client.map(|(name, groups)| pki.issue(name, groups)), alpn).await
}

async fn connect_as(
    address: SocketAddr,
    pki: &Pki,
    client: Option<(rcgen::Certificate, rcgen::KeyPair)>,
    alpn: &[u8],
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}

async fn get(stream: TlsStream<TcpStream>, version: Version, path: &str, token: Option<&str>) -> (u16, Tree) {
    let token = token.map(|token| ("authorization", format!("Bearer {token}")));
    send(stream, version, Method::GET, path, &token.into_iter().collect::<Vec<_>>()).await
}

/// Who the server says we are: status code, user name and groups.
async fn who(stream: TlsStream<TcpStream>, headers: &[(&str, String)]) -> (u16, String) {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (status, review) = send(stream, Version::HTTP_11, Method::POST, path, headers).await;
    if status != 201 {
        return (status, review.str_at(&["message"]).to_owned());
    }
    let user = review.at(&["status", "userInfo"]).cloned().unwrap_or_default();
    let groups: Vec<_> = user.list_at(&["groups"]).iter().filter_map(Tree::as_str).collect();
    (status, format!("{} {} [{}]", user.str_at(&["username"]), user.str_at(&["uid"]), groups.join(" ")))
}

async fn send(
    stream: TlsStream<TcpStream>,
    version: Version,
    method: Method,
    path: &str,
    headers: &[(&str, String)],
) -> (u16, Tree) {
    let mut request = Request::builder().uri(format!("https://localhost{path}")).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let body = if method == Method::POST { Bytes::from_static(b"{}") } else { Bytes::new() };
    let request = request.header("content-type", "application/json").method(method);
    let request = request.version(version).body(Full::new(body)).unwrap();
    let response = if version == Version::HTTP_2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let driver = Box::pin(connection);
        let sent = sender.send_request(request);
        tokio::select! { response = sent => response.unwrap(), _ = driver => panic!("the connection ended") }
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = Box::pin(connection);
        let mut sent = Box::pin(sender.send_request(request));
        let response = tokio::select! { response = &mut sent => response.unwrap(), _ = &mut driver => panic!("the connection ended") };
        let status = response.status().as_u16();
        let collect = Box::pin(response.into_body().collect());
        let body = futures::future::select(collect, driver).await;
        let futures::future::Either::Left((body, _)) = body else { panic!("the connection ended") };
        return (status, json::decode_untyped(&body.unwrap().to_bytes()).unwrap_or_default());
    };
    (response.status().as_u16(), Tree::Null)
}

#[tokio::test]
async fn certificates_tokens_and_nobody() {
    let pki = Pki::new();
    let api = trusting(&pki).await;
    let address = listen(&api, &pki).await;
    let whoami = "/api/v1/namespaces/default";
    let with_certificate = connect(address, &pki, Some(("jane", &["devs"])), b"http/1.1").await;
    assert_eq!(get(with_certificate, Version::HTTP_11, whoami, None).await.0, 200);
    let with_token = connect(address, &pki, None, b"http/1.1").await;
    assert_eq!(get(with_token, Version::HTTP_11, whoami, Some(ADMIN_TOKEN)).await.0, 200);
    let with_wrong_token = connect(address, &pki, None, b"http/1.1").await;
    let (status, body) = get(with_wrong_token, Version::HTTP_11, whoami, Some("wrong")).await;
    assert_eq!((status, body.str_at(&["message"])), (401, "Unauthorized"));
    let nobody = connect(address, &pki, None, b"http/1.1").await;
    assert_eq!(get(nobody, Version::HTTP_11, "/version", None).await.0, 200);
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered() {
    let pki = Pki::new();
    let api = trusting(&pki).await;
    let address = listen(&api, &pki).await;
    let stream = connect(address, &pki, None, b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    assert_eq!(get(stream, Version::HTTP_2, "/version", None).await.0, 200);
}

#[tokio::test]
async fn a_certificate_of_a_strangers_authority_is_unauthorized() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let api = trusting(&pki).await;
    let address = listen(&api, &pki).await;
    let own = || Some(stranger.issue("admin", &["system:masters"]));
    let refused = connect_as(address, &pki, own(), b"http/1.1").await;
    assert_eq!(who(refused, &[]).await, (401, "Unauthorized".into()));
    // Another credential still counts.
    let with_token = connect_as(address, &pki, own(), b"http/1.1").await;
    let token = [("authorization", format!("Bearer {ADMIN_TOKEN}"))];
    assert_eq!(who(with_token, &token).await.0, 201);
    let known = connect(address, &pki, Some(("jane", &["devs"])), b"http/1.1").await;
    assert_eq!(who(known, &[]).await, (201, "jane  [devs system:authenticated]".into()));
}

#[tokio::test]
async fn a_proxy_speaks_for_others_and_nobody_else_does() {
    let (pki, proxies) = (Pki::new(), Pki::new());
    let request_header = RequestHeader {
        client_ca: proxies.authority.pem(),
        allowed_names: vec!["front-proxy".into()],
        ..RequestHeader::default()
    };
    let client_ca = pki.authority.pem();
    let authn = Settings { client_ca, request_header: Some(request_header), ..Settings::default() };
    let api = api_of(|config| Config { authn, ..config }).await;
    let address = listen(&api, &pki).await;
    let headers = [
        ("X-Remote-User", "jane".to_owned()),
        ("X-Remote-Uid", "7".to_owned()),
        ("X-Remote-Group", "a".to_owned()),
        ("X-Remote-Group", "b".to_owned()),
    ];
    let proxy = connect_as(address, &pki, Some(proxies.issue("front-proxy", &[])), b"http/1.1").await;
    assert_eq!(who(proxy, &headers).await, (201, "jane 7 [a b system:authenticated]".into()));
    let other_name = connect_as(address, &pki, Some(proxies.issue("other", &[])), b"http/1.1").await;
    assert_eq!(who(other_name, &headers).await.0, 401);
    let a_client = connect(address, &pki, Some(("bob", &[])), b"http/1.1").await;
    assert_eq!(who(a_client, &headers).await, (201, "bob  [system:authenticated]".into()));
    let nobody = connect(address, &pki, None, b"http/1.1").await;
    assert_eq!(who(nobody, &headers).await.1, "system:anonymous  [system:unauthenticated]");
}
