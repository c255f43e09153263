//! APIServices: our own, those of custom resources, and a server of the test's behind one.

use std::sync::Arc;

use bytes::Bytes;
use expect_test::expect;
use futures::StreamExt;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use skiff_api::Config;
use skiff_api::aggregation::Settings;
use skiff_api::authn::UserInfo;
use skiff_api::serve::{TlsMaterial, tls_config};
use skiff_object::Tree;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::{self, Answer, Network, full};
use crate::support::{ADMIN_TOKEN, Api, api, api_of};
use crate::tls::{self, Pki};
use crate::watching::{until, until_gone};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WARDLE: &str = "/apis/wardle.example.com/v1alpha1";

fn available(object: &Tree) -> String {
    let conditions = object.list_at(&["status", "conditions"]);
    conditions.first().map_or("-".into(), |one| {
        format!("{} {}: {}", one.str_at(&["status"]), one.str_at(&["reason"]), one.str_at(&["message"]))
    })
}

async fn until_reason(api: &Api, reason: &str) -> String {
    let found = until(api, SERVICES, "v1alpha1.wardle.example.com", |object| available(object).contains(reason)).await;
    available(&found)
}

#[tokio::test]
async fn own_groups_are_registered_and_available() {
    let api = api().await;
    let apps = until(&api, SERVICES, "v1.apps", |object| available(object) != "-").await;
    assert_eq!(available(&apps), "True Local: Local APIServices are always available");
    assert_eq!(apps.int_at(&["spec", "groupPriorityMinimum"]), Some(17_800));
    assert_eq!(apps.int_at(&["spec", "versionPriority"]), Some(15));
    assert_eq!(apps.str_at(&["metadata", "labels", "kube-aggregator.kubernetes.io/automanaged"]), "onstart");
    assert_eq!(api.get(&format!("{SERVICES}/v1.")).await.line(), "200");
    assert_eq!(api.get(&format!("{SERVICES}/v1.apiregistration.k8s.io")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn custom_groups_come_and_go_with_their_definitions() {
    let api = api().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = r#"{"metadata":{"name":"crons.stable.example.com"},"spec":{"group":"stable.example.com",
        "scope":"Namespaced","names":{"plural":"crons","singular":"cron","kind":"Cron"},
        "versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}"#;
    assert_eq!(api.post(definitions, definition).await.line(), "201");
    let name = "v1.stable.example.com";
    let made = until(&api, SERVICES, name, |object| available(object) != "-").await;
    assert_eq!(made.str_at(&["metadata", "labels", "kube-aggregator.kubernetes.io/automanaged"]), "true");
    assert_eq!(made.int_at(&["spec", "groupPriorityMinimum"]), Some(1_000));
    assert_eq!(made.int_at(&["spec", "versionPriority"]), Some(100));
    // What somebody deletes comes back, what somebody changes is put right.
    let uid = made.str_at(&["metadata", "uid"]).to_owned();
    assert_eq!(api.delete(&format!("{SERVICES}/{name}")).await.line(), "200");
    until(&api, SERVICES, name, |object| {
        object.str_at(&["event"]) == "ADDED" && object.str_at(&["metadata", "uid"]) != uid
    })
    .await;
    let other = r#"{"spec":{"versionPriority":7}}"#;
    assert_eq!(api.patch("merge", &format!("{SERVICES}/{name}"), other).await.line(), "200");
    let seen = until(&api, SERVICES, name, |object| object.int_at(&["spec", "versionPriority"]) == Some(100)).await;
    assert_eq!(api.delete(&format!("{definitions}/crons.stable.example.com")).await.status, StatusCode::OK);
    until_gone(&api, SERVICES, &seen).await;
}

/// An aggregated server: discovery, OpenAPI, and an echo for everything else.
async fn wardle(request: Request<Incoming>) -> Answer {
    let json = |text: &'static str| {
        let mut answer = http::Response::new(full(text));
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        answer
    };
    match request.uri().path() {
        "/apis" => {
            let mut answer = json(
                r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":
                {"name":"wardle.example.com"},"versions":[{"version":"v1alpha1","resources":[{"resource":"flunders",
                "responseKind":{"group":"","version":"","kind":"Flunder"},"scope":"Namespaced","singularResource":"flunder",
                "verbs":["get","list","watch"]}],"freshness":"Current"}]}]}"#,
            );
            answer.headers_mut().insert(
                "content-type",
                HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
            );
            answer
        }
        WARDLE => json(
            r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"wardle.example.com/v1alpha1","resources":[]}"#,
        ),
        "/openapi/v3" => json(
            r#"{"paths":{"apis/wardle.example.com/v1alpha1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1alpha1?hash=7"}}}"#,
        ),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => json(r#"{"openapi":"3.0.0","mine":true}"#),
        "/openapi/v2" => json(
            r##"{"swagger":"2.0","paths":{"/apis/wardle.example.com/v1alpha1/flunders":{"get":{"responses":{"200":{"schema":
            {"$ref":"#/definitions/com.example.Flunder"}}}}},"/apis/":{}},"definitions":{"com.example.Flunder":{"type":"object"}}}"##,
        ),
        "/apis/wardle.example.com/v1alpha1/watched" => {
            let (sender, receiver) = futures::channel::mpsc::unbounded();
            #[allow(clippy::disallowed_methods)]
            tokio::spawn(async move {
                for part in ["{\"type\":\"ADDED\"}\n", "{\"type\":\"MODIFIED\"}\n"] {
                    sender.unbounded_send(Bytes::from(part)).ok();
                    tokio::task::yield_now().await;
                }
                // It never ends by itself.
                std::future::pending::<()>().await;
                drop(sender);
            });
            let body = StreamBody::new(receiver.map(|part| Ok::<_, std::convert::Infallible>(Frame::data(part))));
            http::Response::new(body.boxed_unsync())
        }
        path if path.ends_with("/upgrade") => {
            let mut request = request;
            *request.uri_mut() = "/upgrade".parse().unwrap();
            backend::echo(request).await
        }
        _ => backend::echo(request).await,
    }
}

struct World {
    api: Api,
    network: Arc<Network>,
    bundle: String,
    tls: Arc<rustls::ServerConfig>,
}

/// A server whose front-proxy client is `front-proxy-client`, and what an aggregated one needs.
async fn world() -> World {
    let network = Arc::new(Network::default());
    let pki = Pki::new();
    let (certificate, key) = pki.issue("front-proxy-client", &[]);
    let client_certificate = Some((certificate.pem().into_bytes(), key.serialize_pem().into_bytes()));
    let dialer = network.clone();
    let api = api_of(|config| Config {
        dialer: Some(dialer),
        aggregation: Settings { client_certificate, ..Settings::default() },
        ..config
    })
    .await;
    let authority = Pki::new();
    let mut params = rcgen::CertificateParams::new(vec!["api.wardle.svc".into()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let serving = params.signed_by(&key, &authority.issuer).unwrap();
    let tls = tls_config(&TlsMaterial {
        certificate: serving.pem(),
        key: key.serialize_pem(),
        client_authority: pki.authority.pem(),
    });
    let mut tls = (*tls.unwrap()).clone();
    tls.alpn_protocols.clear();
    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.authority.pem());
    World { api, network, bundle, tls: Arc::new(tls) }
}

impl World {
    fn api_service(&self) -> String {
        format!(
            r#"{{"metadata":{{"name":"v1alpha1.wardle.example.com"}},"spec":{{"group":"wardle.example.com","version":"v1alpha1",
            "groupPriorityMinimum":2000,"versionPriority":200,"caBundle":"{}",
            "service":{{"namespace":"wardle","name":"api","port":7443}}}}}}"#,
            self.bundle
        )
    }

    async fn make_service(&self) {
        self.api.post("/api/v1/namespaces", r#"{"metadata":{"name":"wardle"}}"#).await;
        let service = r#"{"metadata":{"name":"api"},"spec":{"ports":[{"port":7443}]}}"#;
        assert_eq!(self.api.post("/api/v1/namespaces/wardle/services", service).await.line(), "201");
    }

    async fn make_endpoints(&self, ready: bool) {
        let slice = format!(
            r#"{{"metadata":{{"name":"api-1","labels":{{"kubernetes.io/service-name":"api"}}}},"addressType":"IPv4",
            "endpoints":[{{"addresses":["10.244.0.9"],"conditions":{{"ready":{ready}}}}}],"ports":[{{"name":"","port":443}}]}}"#
        );
        let path = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices";
        if self.api.post(path, &slice).await.status == StatusCode::CONFLICT {
            assert_eq!(self.api.put(&format!("{path}/api-1"), &slice).await.line(), "200");
        }
    }

    async fn serve(&self) {
        self.network.route("10.244.0.9:443", backend::serve(Some(self.tls.clone()), wardle).await);
    }

    /// Everything there and available.
    async fn ready(&self) {
        self.make_service().await;
        self.make_endpoints(true).await;
        self.serve().await;
        assert_eq!(self.api.post(SERVICES, &self.api_service()).await.line(), "201");
        until_reason(&self.api, "Passed").await;
    }
}

#[tokio::test]
async fn availability_follows_service_endpoints_and_server() {
    let world = world().await;
    let api = &world.api;
    assert_eq!(api.post(SERVICES, &world.api_service()).await.line(), "201");
    let mut seen = vec![until_reason(api, "ServiceNotFound").await];
    let refused = api.get(&format!("{WARDLE}/flunders")).await;
    assert_eq!((refused.status.as_u16(), &refused.body[..]), (503, &b"service unavailable\n"[..]));
    world.make_service().await;
    seen.push(until_reason(api, "EndpointsNotFound").await);
    world.make_endpoints(false).await;
    seen.push(until_reason(api, "MissingEndpoints").await);
    world.make_endpoints(true).await;
    let refused = until_reason(api, "FailedDiscoveryCheck").await;
    // The address of a Service is picked at random.
    let ip = api.get("/api/v1/namespaces/wardle/services/api").await.at(&["spec", "clusterIP"]);
    seen.push(refused.replace(&ip, "IP"));
    world.serve().await;
    seen.push(until_reason(api, "Passed").await);
    expect![[r#"
        False ServiceNotFound: service/api in "wardle" is not present
        False EndpointsNotFound: cannot find endpointslices for service/api in "wardle"
        False MissingEndpoints: endpointslices for service/api in "wardle" have no addresses with port name ""
        False FailedDiscoveryCheck: failing or missing response from https://IP:7443/apis/wardle.example.com/v1alpha1: Get "https://IP:7443/apis/wardle.example.com/v1alpha1": dial tcp 10.244.0.9:443: connect: connection refused
        True Passed: all checks passed"#]]
    .assert_eq(&seen.join("\n"));
    assert_eq!(api.delete("/api/v1/namespaces/wardle/services/api").await.status, StatusCode::OK);
    until_reason(api, "ServiceNotFound").await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_and_a_stranger_s_certificate_are_told() {
    let world = world().await;
    world.make_service().await;
    world.make_endpoints(true).await;
    world.serve().await;
    let wrong_port = world.api_service().replace("7443", "7444");
    assert_eq!(world.api.post(SERVICES, &wrong_port).await.line(), "201");
    assert_eq!(
        until_reason(&world.api, "ServicePortError").await,
        "False ServicePortError: service/api in \"wardle\" is not listening on port 7444"
    );
    let path = format!("{SERVICES}/v1alpha1.wardle.example.com");
    let stranger = r#"{"spec":{"caBundle":null,"service":{"port":7443}}}"#;
    assert_eq!(world.api.patch("merge", &path, stranger).await.line(), "200");
    let told = until_reason(&world.api, "FailedDiscoveryCheck").await;
    assert!(
        told.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{told}"
    );
    let anybody = r#"{"spec":{"insecureSkipTLSVerify":true}}"#;
    assert_eq!(world.api.patch("merge", &path, anybody).await.line(), "200");
    until_reason(&world.api, "Passed").await;
}

#[tokio::test]
async fn requests_carry_the_user_and_nothing_of_his_credentials() {
    let world = world().await;
    world.ready().await;
    let mut user = UserInfo::new("jane", &["devs"]);
    user.uid = "u-7".into();
    user.extra.insert("scopes/x".into(), vec!["a".into()]);
    let headers = [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("authorization", "Bearer x")];
    let jane = world.api.as_user(user);
    let answer = jane.send(Method::POST, &format!("{WARDLE}/namespaces/a/flunders?q=1"), &headers, b"body").await;
    expect![[r#"
        POST /apis/wardle.example.com/v1alpha1/namespaces/a/flunders?q=1
        content-length: 4
        host: api.wardle.svc:7443
        x-remote-extra-scopes%2fx: a
        x-remote-group: devs
        x-remote-group: system:authenticated
        x-remote-uid: u-7
        x-remote-user: jane
        body"#]]
    .assert_eq(&String::from_utf8_lossy(&answer.body));
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        let answer = jane.send(method.parse().unwrap(), &format!("{WARDLE}/namespaces/a/flunders/x"), &[], b"").await;
        assert!(answer.body.starts_with(method.as_bytes()), "{answer:?}");
    }
}

#[tokio::test]
async fn watches_stream_and_upgrades_go_through() {
    let world = world().await;
    world.ready().await;
    let answer = world.api.open(Method::GET, &format!("{WARDLE}/watched?watch=true"), &[], b"").await;
    let mut events = answer.into_body().into_stream();
    assert_eq!(events.next().await.unwrap().unwrap(), "{\"type\":\"ADDED\"}\n");
    assert_eq!(events.next().await.unwrap().unwrap(), "{\"type\":\"MODIFIED\"}\n");
    drop(events);
    let pki = Pki::new();
    let address = tls::listen(&world.api, &pki).await;
    let mut stream = tls::connect(address, &pki, None, b"http/1.1").await;
    let head = format!(
        "GET {WARDLE}/namespaces/a/flunders/x/upgrade HTTP/1.1\r\nHost: kube\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn discovery_and_openapi_are_one() {
    let world = world().await;
    world.ready().await;
    let api = &world.api;
    let groups = api.get("/apis").await.tree();
    let names: Vec<&str> = groups.list_at(&["groups"]).iter().map(|group| group.str_at(&["name"])).collect();
    // Behind ours, before those of custom resources.
    assert_eq!(names.last(), Some(&"wardle.example.com"));
    let group = api.get("/apis/wardle.example.com").await;
    assert_eq!(group.at(&["preferredVersion", "groupVersion"]), "wardle.example.com/v1alpha1");
    assert_eq!(api.get(WARDLE).await.at(&["kind"]), "APIResourceList");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let version = async || {
        let aggregated = api.send(Method::GET, "/apis", &[("accept", accept)], b"").await.tree();
        let items = aggregated.list_at(&["items"]);
        let group = items.iter().find(|group| group.str_at(&["metadata", "name"]) == "wardle.example.com").unwrap();
        group.list_at(&["versions"])[0].clone()
    };
    let known = version().await;
    assert_eq!((known.str_at(&["freshness"]), known.list_at(&["resources"]).len()), ("Current", 1));
    let index = api.get("/openapi/v3").await;
    let path = ["paths", "apis/wardle.example.com/v1alpha1", "serverRelativeURL"];
    assert_eq!(index.at(&path), "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=7");
    assert_eq!(api.get("/openapi/v3/apis/wardle.example.com/v1alpha1?hash=7").await.at(&["mine"]), "true");
    let v2 = api.get("/openapi/v2").await.tree();
    assert!(v2.at(&["paths", "/apis/wardle.example.com/v1alpha1/flunders"]).is_some());
    assert!(v2.at(&["definitions", "com.example.Flunder"]).is_some());
    assert!(v2.at(&["definitions", "io.k8s.api.core.v1.Pod"]).is_some());
    // A server that is gone is still shown, as stale.
    world.network.route("10.244.0.9:443", "127.0.0.1:1".parse().unwrap());
    world.make_endpoints(false).await;
    until_reason(api, "MissingEndpoints").await;
    let known = version().await;
    assert_eq!((known.str_at(&["freshness"]), known.list_at(&["resources"]).len()), ("Stale", 1));
    // And one that is deleted is not.
    assert_eq!(api.delete(&format!("{SERVICES}/v1alpha1.wardle.example.com")).await.line(), "200");
    let rest = Mutex::new(api.get("/apis/wardle.example.com").await);
    while rest.lock().status != StatusCode::NOT_FOUND {
        tokio::task::yield_now().await;
        let again = api.get("/apis/wardle.example.com").await;
        *rest.lock() = again;
    }
    assert_eq!(api.get(&format!("{WARDLE}/flunders")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.get("/openapi/v3").await.at(&path), "-");
}
