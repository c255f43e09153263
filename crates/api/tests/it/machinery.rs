//! What every request meets: health, draining, deadlines, headers, traces.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use skiff_api::UserInfo;
use skiff_api::authn::MASTERS;
use skiff_base::{Shutdown, Tasks};

use crate::grpc;
use crate::support::{CONFIG_MAPS, api, api_of};

#[tokio::test]
async fn health_is_told_check_by_check() {
    let api = api().await;
    let text = |answer: crate::support::Answer| String::from_utf8(answer.body.to_vec()).unwrap();
    let ready = text(api.get("/readyz?verbose").await);
    for check in
        ["ping", "log", "etcd", "etcd-readiness", "informer-sync", "poststarthook/rbac/bootstrap-roles", "shutdown"]
    {
        assert!(ready.contains(&format!("[+]{check} ok\n")), "{ready}");
    }
    assert!(ready.ends_with("readyz check passed\n"));
    assert!(!text(api.get("/livez?verbose").await).contains("shutdown"));
    assert_eq!(text(api.get("/livez/etcd").await), "ok");
    assert_eq!(api.get("/livez/nothing").await.status, StatusCode::NOT_FOUND);
    let excluded = text(api.get("/readyz?verbose&exclude=etcd&exclude=nothing").await);
    assert!(excluded.contains("[+]etcd excluded: ok\n"));
    assert!(excluded.contains("warn: some health checks cannot be excluded: no matches for \"nothing\"\n"));
    api.server.health().add("mine", Arc::new(|| Err("broken".into())));
    let broken = api.get("/livez").await;
    assert_eq!(broken.status, StatusCode::INTERNAL_SERVER_ERROR);
    let broken = text(broken);
    assert!(
        broken.contains("[-]mine failed: reason withheld\n") && broken.ends_with("livez check failed\n"),
        "{broken}"
    );
    let slis = text(api.get("/metrics/slis").await);
    assert!(slis.contains("kubernetes_healthcheck{name=\"mine\",type=\"livez\"} 0\n"), "{slis}");
    assert!(
        slis.contains("kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"readyz\"} 2\n"),
        "{slis}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_is_first_not_ready_and_goes_on() {
    let api = api_of(|mut config| {
        config.shutdown.delay = Duration::from_secs(20);
        config
    })
    .await;
    let mut drain = Box::pin(api.server.drain());
    assert!(futures::poll!(drain.as_mut()).is_pending());
    assert_eq!(api.get("/readyz").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(api.get("/livez").await.status, StatusCode::OK);
    assert_eq!(api.get(CONFIG_MAPS).await.status, StatusCode::OK);
    drain.await;
}

#[tokio::test]
async fn every_answer_says_what_the_server_says_of_tls_and_deadlines_are_durations() {
    let api = api_of(|mut config| {
        config.limits.strict_transport_security = "max-age=31536000".into();
        config
    })
    .await;
    let wrong = api.get(&format!("{CONFIG_MAPS}?timeout=soon")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert_eq!(wrong.headers["strict-transport-security"], "max-age=31536000");
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_asks() {
    let api = api().await;
    let value = "x".repeat(200_000);
    api.post(CONFIG_MAPS, &format!(r#"{{"metadata":{{"name":"big"}},"data":{{"k":"{value}"}}}}"#)).await;
    let path = format!("{CONFIG_MAPS}/big");
    let plain = api.get(&path).await;
    assert!(plain.body.len() > 200_000 && !plain.headers.contains_key("content-encoding"));
    let zipped = api.send(Method::GET, &path, &[("accept-encoding", "gzip")], b"").await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut text).unwrap();
    assert_eq!(text, plain.body);
}

#[tokio::test]
async fn traced_requests_reach_the_collector_with_their_parent() {
    let tasks = Tasks::new("collector", Shutdown::new());
    let received = Arc::new(Mutex::new(Vec::<u8>::new()));
    let taking = Arc::clone(&received);
    let handler: grpc::Handler = Arc::new(move |path, message| {
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        taking.lock().extend_from_slice(message);
        Ok(Vec::new())
    });
    let endpoint = grpc::serve_tcp(&tasks, handler).await.to_string();
    let mut server_tasks = None;
    let api = api_of(|mut config| {
        server_tasks = Some(config.tasks.clone());
        config.tracing = Some(skiff_api::traces::Settings { endpoint, sampling_rate_per_million: 0 });
        config
    })
    .await;
    let parent = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let body = br#"{"metadata":{"name":"traced"}}"#;
    let headers = [parent[0], ("content-type", "application/json")];
    let admin = api.as_user(UserInfo::new("admin", &[MASTERS]));
    admin.send(Method::POST, CONFIG_MAPS, &headers, body).await;
    // Others do not decide whether they are traced.
    let alice = api.as_user(UserInfo::new("alice", &["system:authenticated"]));
    alice.send(Method::GET, "/api/v1/namespaces/default/pods", &parent, b"").await;
    // What has been collected is exported before the server ends.
    server_tasks.unwrap().stop().await;
    let received = received.lock().clone();
    let holds = |text: &[u8]| received.windows(text.len()).any(|part| part == text);
    assert!(holds(&[0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd]), "the trace id");
    assert!(holds(&[0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]), "the parent");
    for name in ["POST /api/v1/namespaces/{:namespace}/configmaps", "Create", "Create etcd3", "Authorization"] {
        assert!(holds(name.as_bytes()), "{name}");
    }
    assert!(!holds(b"pods"));
    tasks.stop().await;
}
