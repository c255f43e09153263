//! What the audit log says of requests.

use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use http::{Method, StatusCode};
use serde_json::Value;
use skiff_api::UserInfo;
use skiff_api::audit::backend::Mode;
use skiff_api::audit::policy::Policy;
use skiff_api::authn::MASTERS;
use skiff_api::outbound::{Address, Target};
use skiff_base::Tasks;

use crate::support::{Api, CONFIG_MAPS, api_of};

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules:\n\
    - {level: None, users: [tester, 'system:apiserver']}\n\
    - {level: None, users: [silent]}\n\
    - {level: Metadata, omitStages: [RequestReceived], resources: [{resources: [secrets]}]}\n\
    - {level: RequestResponse, omitStages: [RequestReceived], verbs: [create, patch, watch]}\n\
    - {level: Metadata}\n";

async fn audited(path: &Path, change: impl FnOnce(&mut skiff_api::audit::Settings)) -> (Api, Tasks) {
    let path = path.display().to_string();
    let mut tasks = None;
    let api = api_of(|mut config| {
        tasks = Some(config.tasks.clone());
        config.audit.policy = Some(Policy::parse(POLICY.as_bytes()).unwrap());
        config.audit.log.path = path;
        change(&mut config.audit);
        config
    })
    .await;
    (api, tasks.unwrap())
}

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An event without what differs each time.
fn shape(event: &Value) -> String {
    let mut event = event.clone();
    for field in ["auditID", "requestReceivedTimestamp", "stageTimestamp"] {
        assert!(event[field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
        event.as_object_mut().unwrap().remove(field);
    }
    for body in ["requestObject", "responseObject"] {
        if let Some(metadata) = event.get_mut(body).and_then(|body| body.get_mut("metadata")) {
            let metadata = metadata.as_object_mut().unwrap();
            assert!(!metadata.contains_key("managedFields"));
            for field in ["uid", "resourceVersion", "creationTimestamp"] {
                metadata.remove(field);
            }
        }
    }
    event.to_string()
}

#[tokio::test]
async fn events_have_upstreams_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (api, _) = audited(&path, |_| {}).await;
    let alice = api.as_user(UserInfo::new("alice", &["system:authenticated", MASTERS]));
    alice.as_user(UserInfo::new("silent", &[])).get(CONFIG_MAPS).await;
    let headers = [("content-type", "application/json"), ("user-agent", "test/1"), ("x-forwarded-for", "10.1.2.3")];
    alice.send(Method::POST, CONFIG_MAPS, &headers, br#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#).await;
    let secret = "/api/v1/namespaces/default/secrets";
    alice.send(Method::POST, secret, &headers, br#"{"metadata":{"name":"s"},"data":{"k":"djE="}}"#).await;
    let get = alice
        .send(
            Method::GET,
            &format!("{CONFIG_MAPS}/nothing?pretty=true"),
            &[("audit-id", "mine"), ("impersonate-user", "bob"), ("impersonate-group", "g")],
            b"",
        )
        .await;
    assert_eq!((get.status, get.headers["audit-id"].to_str().unwrap()), (StatusCode::NOT_FOUND, "mine"));
    let all = events(&path);
    assert_eq!(
        all.iter().map(|event| event["stage"].as_str().unwrap()).collect::<Vec<_>>(),
        ["ResponseComplete", "ResponseComplete", "RequestReceived", "ResponseComplete"]
    );
    assert_eq!(all[3]["auditID"], "mine");
    expect![[r#"{"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"apiVersion":"audit.k8s.io/v1","kind":"Event","level":"RequestResponse","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestObject":{"data":{"k":"v"},"metadata":{"name":"a"}},"requestURI":"/api/v1/namespaces/default/configmaps","responseObject":{"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}},"responseStatus":{"code":201,"metadata":{}},"sourceIPs":["10.1.2.3"],"stage":"ResponseComplete","user":{"groups":["system:authenticated","system:masters"],"username":"alice"},"userAgent":"test/1","verb":"create"}"#]].assert_eq(&shape(&all[0]));
    // Nothing of the secret.
    expect![[r#"{"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"apiVersion":"audit.k8s.io/v1","kind":"Event","level":"Metadata","objectRef":{"apiVersion":"v1","name":"s","namespace":"default","resource":"secrets"},"requestURI":"/api/v1/namespaces/default/secrets","responseStatus":{"code":201,"metadata":{}},"sourceIPs":["10.1.2.3"],"stage":"ResponseComplete","user":{"groups":["system:authenticated","system:masters"],"username":"alice"},"userAgent":"test/1","verb":"create"}"#]].assert_eq(&shape(&all[1]));
    expect![[r#"{"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"apiVersion":"audit.k8s.io/v1","authenticationMetadata":{"impersonationConstraint":"impersonate:user-info"},"impersonatedUser":{"groups":["g","system:authenticated"],"username":"bob"},"kind":"Event","level":"Metadata","objectRef":{"apiVersion":"v1","name":"nothing","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps/nothing?pretty=true","responseStatus":{"code":404,"details":{"kind":"configmaps","name":"nothing"},"message":"configmaps \"nothing\" not found","metadata":{},"reason":"NotFound","status":"Failure"},"stage":"ResponseComplete","user":{"groups":["system:authenticated","system:masters"],"username":"alice"},"verb":"get"}"#]].assert_eq(&shape(&all[3]));
}

#[tokio::test]
async fn a_watch_has_a_start_and_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (api, _) = audited(&path, |_| {}).await;
    let alice = api.as_user(UserInfo::new("alice", &[MASTERS]));
    let watch = alice.open(Method::GET, &format!("{CONFIG_MAPS}?watch=1"), &[], b"").await;
    assert_eq!(events(&path).last().unwrap()["stage"], "ResponseStarted");
    drop(watch);
    let ended = async {
        while events(&path).last().unwrap()["stage"] != "ResponseComplete" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_strict_webhook_stops_requests_and_a_batched_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    for (mode, expected) in [
        (Mode::BlockingStrict, StatusCode::INTERNAL_SERVER_ERROR),
        (Mode::Blocking, StatusCode::OK),
        (Mode::Batch, StatusCode::OK),
    ] {
        let (api, _) = audited(&path, |settings| {
            settings.webhook = Some(Target::new(Address::Url("https://127.0.0.1:1/".into())));
            settings.webhook_initial_backoff = Duration::from_millis(1);
            settings.webhook_delivery.mode = mode;
        })
        .await;
        let answer = api.as_user(UserInfo::new("alice", &[MASTERS])).get(CONFIG_MAPS).await;
        assert_eq!(answer.status, expected, "{mode:?}");
        if expected != StatusCode::OK {
            assert!(answer.line().ends_with("failed to store audit event"), "{}", answer.line());
        }
    }
}

#[tokio::test]
async fn batches_are_written_before_the_server_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (api, tasks) = audited(&path, |settings| {
        settings.log_delivery.mode = Mode::Batch;
        settings.log_delivery.batching.size_max = 1_000;
        settings.log_delivery.batching.wait_max = Duration::from_secs(3_600);
    })
    .await;
    let alice = api.as_user(UserInfo::new("alice", &[MASTERS]));
    for _ in 0..10 {
        alice.get(CONFIG_MAPS).await;
    }
    assert!(std::fs::read_to_string(&path).unwrap().is_empty());
    tasks.stop().await;
    assert_eq!(events(&path).len(), 20);
}
