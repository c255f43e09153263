//! `proxy` of nodes, pods and services.

use std::sync::Arc;

use bytes::Bytes;
use expect_test::expect;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use skiff_api::Config;
use skiff_api::serve::{TlsMaterial, tls_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::{self, Network, echo};
use crate::support::{ADMIN_TOKEN, Api, api_of};
use crate::tls::{self, Pki};

const POD: &str = "/api/v1/namespaces/default/pods/web/proxy";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A server with a node, a pod at 10.244.0.5 with port 8080 and a Service in front of it.
pub(crate) async fn world() -> (Api, Arc<Network>) {
    let network = Arc::new(Network::default());
    let dialer = network.clone();
    let api = api_of(|config| Config { dialer: Some(dialer), ..config }).await;
    let pod = r#"{"metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"i",
        "ports":[{"name":"http","containerPort":8080},{"name":"https","containerPort":8443}]}]}}"#;
    assert_eq!(api.post("/api/v1/namespaces/default/pods", pod).await.line(), "201");
    let status = r#"{"status":{"podIP":"10.244.0.5","podIPs":[{"ip":"10.244.0.5"}]}}"#;
    assert_eq!(api.patch("merge", "/api/v1/namespaces/default/pods/web/status", status).await.line(), "200");
    let service = r#"{"metadata":{"name":"web"},"spec":{"ports":[{"name":"plain","port":80,"targetPort":8080},
        {"name":"tls","port":443,"targetPort":8443}]}}"#;
    assert_eq!(api.post(SERVICES, service).await.line(), "201");
    assert_eq!(
        api.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice("web")).await.line(),
        "201"
    );
    let node = r#"{"metadata":{"name":"n1"},"status":{"addresses":[{"type":"InternalIP","address":"10.89.0.2"}]}}"#;
    assert_eq!(api.post("/api/v1/nodes", node).await.line(), "201");
    (api, network)
}

fn slice(pod: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"web-1","labels":{{"kubernetes.io/service-name":"web"}}}},"addressType":"IPv4",
        "endpoints":[{{"addresses":["10.244.0.5"],"conditions":{{"ready":true}},
            "targetRef":{{"kind":"Pod","namespace":"default","name":"{pod}"}}}}],
        "ports":[{{"name":"plain","port":8080}},{{"name":"tls","port":8443}}]}}"#
    )
}

#[tokio::test]
async fn every_method_goes_through_with_its_body() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let method: Method = method.parse().unwrap();
        let path = format!("{POD}/a%2Fb/c/?q=1&p=%20");
        let answer = api.send(method.clone(), &path, &[("content-type", "text/x")], b"body").await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first().copied(), Some(format!("{method} /a%2Fb/c/?q=1&p=%20").as_str()));
        assert_eq!(lines.last().copied(), Some("body"));
        assert!(lines.contains(&"content-type: text/x"), "{text}");
    }
    let head = api.send(Method::HEAD, &format!("{POD}/x"), &[], b"").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(api.get(&format!("{POD}/teapot")).await.status.as_u16(), 418);
}

#[tokio::test]
async fn headers_are_those_of_a_reverse_proxy() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    let headers = [
        ("host", "kube:6443"),
        ("authorization", "Bearer secret"),
        ("impersonate-user", "jane"),
        ("x-remote-user", "root"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-mine", "2"),
    ];
    let answer = api.send(Method::GET, &format!("{POD}/x"), &headers, b"").await;
    expect![[r#"
        GET /x
        host: kube:6443
        x-forwarded-uri: /api/v1/namespaces/default/pods/web/proxy/x
        x-mine: 2
    "#]]
    .assert_eq(&String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn redirects_and_links_lead_back_through_the_proxy() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    let answer = api.get(&format!("{SERVICES}/web:plain/proxy/redirect")).await;
    assert_eq!(answer.status.as_u16(), 302);
    assert_eq!(answer.headers["location"], format!("{SERVICES}/web:plain/proxy/there/?q=1"));
    let answer = api.get(&format!("{POD}/page")).await;
    assert_eq!(answer.body, format!("<a href=\"{POD}/next\">x</a>"));
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let answer = api.get(&format!("{POD}?a=b")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["location"].to_str().unwrap()),
        (301, format!("{POD}/?a=b").as_str())
    );
    let answer = api.send(Method::POST, POD, &[], b"").await;
    assert!(answer.body.starts_with(b"POST /\n"), "{answer:?}");
}

#[tokio::test]
async fn services_are_found_by_port_name_and_number() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    for name in ["web:plain", "web:80", "http:web:80"] {
        let answer = api.get(&format!("{SERVICES}/{name}/proxy/x")).await;
        assert!(answer.body.starts_with(b"GET /x"), "{name}: {answer:?}");
    }
    let line = async |path: &str| api.get(path).await.line();
    let lines = [
        line(&format!("{SERVICES}/web/proxy/")).await,
        line(&format!("{SERVICES}/web:81/proxy/")).await,
        line(&format!("{SERVICES}/ftp:web:80/proxy/")).await,
        line(&format!("{SERVICES}/none:80/proxy/")).await,
        line(&format!("{SERVICES}/https:web:tls/proxy/")).await,
        line("/api/v1/namespaces/default/pods/none/proxy/").await,
        line("/api/v1/namespaces/default/pods/web:1/proxy/").await,
        line("/api/v1/nodes/none/proxy/").await,
        line("/api/v1/nodes/n1/proxy/").await,
        line("/api/v1/nodes/n1:99999/proxy/").await,
    ];
    expect![[r#"
        503 ServiceUnavailable: no endpoints available for service "web"
        503 ServiceUnavailable: no service port 81 found for service "web"
        400 BadRequest: invalid service request "ftp:web:80"
        404 NotFound: services "none" not found
        503 ServiceUnavailable: error trying to reach service: dial tcp 10.244.0.5:8443: connect: connection refused
        404 NotFound: pods "none" not found
        503 ServiceUnavailable: error trying to reach service: dial tcp 10.244.0.5:1: connect: connection refused
        404 NotFound: nodes "none" not found
        503 ServiceUnavailable: error trying to reach service: dial tcp n1: connect: connection refused
        503 ServiceUnavailable: error trying to reach service: dial tcp: address 99999: invalid port"#]]
    .assert_eq(&lines.join("\n"));
}

#[tokio::test]
async fn an_endpoint_that_is_not_its_pod_s_is_not_asked() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1";
    assert_eq!(api.put(slices, &slice("other")).await.line(), "200");
    assert_eq!(
        api.get(&format!("{SERVICES}/web:80/proxy/")).await.line(),
        "503 ServiceUnavailable: no endpoints available for service \"web:80\""
    );
}

#[tokio::test]
async fn pods_and_services_are_asked_over_tls() {
    let (api, network) = world().await;
    let pki = Pki::new();
    let (certificate, key) = pki.issue("whoever", &[]);
    let tls = tls_config(&TlsMaterial {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        client_authority: String::new(),
    });
    let mut tls = (*tls.unwrap()).clone();
    tls.alpn_protocols.clear();
    network.route("10.244.0.5:8443", backend::serve(Some(Arc::new(tls)), echo).await);
    for path in
        [format!("{SERVICES}/https:web:tls/proxy/x"), "/api/v1/namespaces/default/pods/https:web:8443/proxy/x".into()]
    {
        let answer = api.get(&path).await;
        assert!(answer.body.starts_with(b"GET /x"), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    let pki = Pki::new();
    let address = tls::listen(&api, &pki).await;
    let stream = tls::connect(address, &pki, None, b"h2").await;
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let (parts, receiver) = futures::channel::mpsc::unbounded::<Bytes>();
    let body = StreamBody::new(receiver.map(|part| Ok::<_, std::convert::Infallible>(Frame::data(part))));
    let request = Request::post(format!("https://kube{POD}/stream"))
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .body(body)
        .unwrap();
    let exchange = async {
        let mut answer = sender.send_request(request).await.unwrap();
        for part in ["one", "two"] {
            // The answer to a part comes while the request goes on.
            parts.unbounded_send(part.into()).unwrap();
            let frame = answer.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), part);
        }
        drop(parts);
        let rest = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(rest.is_empty(), "{rest:?}");
    };
    tokio::select! { () = exchange => {}, _ = driver => panic!("the connection ended") }
}

#[tokio::test]
async fn an_upgrade_becomes_a_pipe() {
    let (api, network) = world().await;
    network.route("10.244.0.5:8080", backend::serve(None, echo).await);
    let pki = Pki::new();
    let address = tls::listen(&api, &pki).await;
    let mut stream = tls::connect(address, &pki, None, b"http/1.1").await;
    let head = format!(
        "GET {POD}/upgrade HTTP/1.1\r\nHost: kube\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: echo"), "{answer}");
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, word.as_bytes());
    }
}

#[tokio::test]
async fn what_needs_an_upgrade_says_so() {
    let (api, network) = world().await;
    network.route("n1", backend::serve(None, echo).await);
    let bind = r#"{"target":{"kind":"Node","name":"n1"}}"#;
    assert_eq!(api.post("/api/v1/namespaces/default/pods/web/binding", bind).await.status.as_u16(), 201);
    let exec = "/api/v1/namespaces/default/pods/web/exec?command=sh&stdout=true";
    assert_eq!(api.post(exec, "").await.line(), "400 BadRequest: Upgrade request required");
}
