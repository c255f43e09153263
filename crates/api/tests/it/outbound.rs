//! Calls of the server to other servers: trust, bounds, Services, failures as clients read them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use skiff_api::outbound::{Address, Credentials, Error, Limits, Target, Trust};

use crate::remote::{Remote, answering};
use crate::support::{Api, api};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(5), answer_bytes_max: 1_000 };

async fn echo(names: &[&str]) -> Remote {
    Remote::start(
        names,
        answering(|request| {
            let authorization = request.headers().get("authorization").map_or("-", |value| value.to_str().unwrap());
            let line = format!("{:?} {} {} {authorization}", request.version(), request.method(), request.uri().path());
            Response::new(Bytes::from(line))
        }),
    )
    .await
}

fn url(remote: &Remote, path: &str) -> Target {
    let address = Address::Url(format!("https://localhost:{}{path}", remote.address.port()));
    Target { trust: Trust::Authorities(remote.authority.clone().into()), ..Target::new(address) }
}

async fn ask(api: &Api, target: &Target) -> Result<String, Error> {
    let body = api.server.outbound().fetch(target, Request::new(Bytes::new()), LIMITS).await?;
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_url_is_asked_over_http2_with_the_credentials() {
    let (api, remote) = (api().await, echo(&["localhost"]).await);
    assert_eq!(ask(&api, &url(&remote, "/keys")).await.unwrap(), "HTTP/2.0 GET /keys -");
    let token = Credentials { token: Some("t".into()), ..Credentials::default() };
    let with_token = Target { credentials: token, ..url(&remote, "/keys") };
    assert_eq!(ask(&api, &with_token).await.unwrap(), "HTTP/2.0 GET /keys Bearer t");
    let basic = Credentials { basic: Some(("a".into(), "b".into())), ..Credentials::default() };
    let with_basic = Target { credentials: basic, ..url(&remote, "") };
    assert_eq!(ask(&api, &with_basic).await.unwrap(), "HTTP/2.0 GET / Basic YTpi");
}

#[tokio::test]
async fn certificates_are_believed_from_the_bundle_only() {
    let (api, remote) = (api().await, echo(&["localhost"]).await);
    let system = Target { trust: Trust::System, ..url(&remote, "/") };
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(ask(&api, &system).await.unwrap_err().to_string(), unknown);
    let named = Target { server_name: Some("other.example".into()), ..url(&remote, "/") };
    let valid_for = "tls: failed to verify certificate: x509: certificate is valid for localhost, not other.example";
    assert_eq!(ask(&api, &named).await.unwrap_err().to_string(), valid_for);
    let anybody = Target { trust: Trust::Anybody, ..named };
    assert!(ask(&api, &anybody).await.is_ok());
    let own = Remote::start_self_signed(&["localhost"], answering(|_| Response::new(Bytes::new()))).await;
    assert!(ask(&api, &url(&own, "/")).await.is_ok());
    let other = Target { server_name: Some("other.example".into()), ..url(&own, "/") };
    assert_eq!(ask(&api, &other).await.unwrap_err().to_string(), valid_for);
    let garbage = Target { trust: Trust::Authorities(b"no".into()), ..url(&remote, "/") };
    assert!(matches!(ask(&api, &garbage).await, Err(Error::Target(_))));
}

#[tokio::test]
async fn services_lead_to_a_ready_endpoint() {
    let (api, remote) = (api().await, echo(&["web.default.svc"]).await);
    let service = |port: u16| Target {
        trust: Trust::Authorities(remote.authority.clone().into()),
        ..Target::new(Address::Service { namespace: "default".into(), name: "web".into(), port, path: "/x".into() })
    };
    assert_eq!(ask(&api, &service(443)).await.unwrap_err().to_string(), "service \"web\" not found");
    let made = r#"{"metadata":{"name":"web"},"spec":{"ports":[{"name":"tls","port":443}]}}"#;
    assert_eq!(api.post("/api/v1/namespaces/default/services", made).await.line(), "201");
    let failed = ask(&api, &service(80)).await.unwrap_err().to_string();
    assert_eq!(failed, "no service port 80 found for service \"web\"");
    let failed = ask(&api, &service(443)).await.unwrap_err().to_string();
    assert_eq!(failed, "no endpoints available for service \"web\"");
    let slice = format!(
        r#"{{"metadata":{{"name":"web-1","labels":{{"kubernetes.io/service-name":"web"}}}},"addressType":"IPv4",
        "ports":[{{"name":"tls","port":{}}}],"endpoints":[{{"addresses":["127.0.0.9"],"conditions":{{"ready":false}}}},
        {{"addresses":["127.0.0.1"],"conditions":{{"ready":true}}}}]}}"#,
        remote.address.port()
    );
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let made = api.post(slices, &slice).await;
    // Loopback is no address of an endpoint for clients; the store takes it here all the same.
    if made.status != 201 {
        let stored = slice.replacen('{', r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","#, 1);
        let collection = api.server.collection("discovery.k8s.io", "endpointslices");
        collection.create("default", "web-1", Bytes::from(stored), None).await.unwrap();
    }
    assert_eq!(ask(&api, &service(443)).await.unwrap(), "HTTP/2.0 GET /x -");
}

#[tokio::test]
async fn failures_say_what_happened() {
    let api = api().await;
    let remote = Remote::start(
        &["localhost"],
        std::sync::Arc::new(|request: Request<Bytes>| {
            Box::pin(async move {
                match request.uri().path() {
                    "/slow" => std::future::pending().await,
                    "/large" => Response::new(Bytes::from(vec![b'a'; 2_000])),
                    _ => Response::builder().status(503).body(Bytes::from_static(b"not now")).unwrap(),
                }
            })
        }),
    )
    .await;
    assert_eq!(ask(&api, &url(&remote, "/large")).await, Err(Error::TooLarge { bytes_max: 1_000 }));
    let Err(Error::Status { code, excerpt }) = ask(&api, &url(&remote, "/")).await else { panic!("no status") };
    assert_eq!((code.as_u16(), excerpt.as_str()), (503, "not now"));
    let limits = Limits { timeout: Duration::from_millis(50), ..LIMITS };
    let slow = api.server.outbound().send(&url(&remote, "/slow"), Request::new(Bytes::new()), limits).await;
    assert_eq!(slow.unwrap_err().to_string(), "context deadline exceeded");
    let port = remote.address.port();
    drop(remote);
    let closed = Target::new(Address::Url("https://127.0.0.1:1/".into()));
    assert_eq!(ask(&api, &closed).await.unwrap_err().to_string(), "dial tcp 127.0.0.1:1: connect: connection refused");
    assert_ne!(port, 1);
}
