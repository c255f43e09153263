//! `metrics.k8s.io`, from a kubelet of the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::expect;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use skiff_api::Config;
use skiff_api::aggregation::Settings;

use crate::backend::{self, Answer, Network, full};
use crate::support::{Api, api_of};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

async fn world() -> (Api, Arc<AtomicUsize>) {
    let network = Arc::new(Network::default());
    let dialer = network.clone();
    let api = api_of(|config| Config {
        dialer: Some(dialer),
        aggregation: Settings { resource_metrics: true, ..Settings::default() },
        ..config
    })
    .await;
    assert_eq!(api.post("/api/v1/nodes", r#"{"metadata":{"name":"n1"}}"#).await.line(), "201");
    assert_eq!(api.post("/api/v1/nodes", r#"{"metadata":{"name":"gone"}}"#).await.line(), "201");
    let pod = r#"{"metadata":{"name":"web","labels":{"app":"web"}},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}]}}"#;
    let made = api.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(made.line(), "201");
    let uid = made.at(&["metadata", "uid"]);
    let status = r#"{"status":{"containerStatuses":[{"name":"c","image":"i","imageID":"","ready":true,"restartCount":0,
        "state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}"#;
    assert_eq!(api.patch("merge", "/api/v1/namespaces/default/pods/web/status", status).await.line(), "200");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let kubelet = move |request: Request<Incoming>| {
        let (uid, counted) = (uid.clone(), counted.clone());
        async move {
            assert_eq!(request.uri().path(), "/stats/summary");
            counted.fetch_add(1, Ordering::SeqCst);
            let text = format!(
                r#"{{"node":{{"nodeName":"n1","startTime":"2026-01-01T00:00:00Z",
                "cpu":{{"time":"2026-01-01T00:01:40Z","usageCoreNanoSeconds":25000000000}},"memory":{{"workingSetBytes":1073741824}}}},
                "pods":[{{"podRef":{{"name":"web","namespace":"default","uid":"{uid}"}},"containers":[{{"name":"c",
                "startTime":"2026-01-01T00:00:00Z","cpu":{{"time":"2026-01-01T00:01:40Z","usageCoreNanoSeconds":15634000}},
                "memory":{{"workingSetBytes":12288}}}}]}}]}}"#
            );
            Answer::new(full(text))
        }
    };
    network.route("n1", backend::serve(None, kubelet).await);
    (api, asked)
}

#[tokio::test]
async fn nodes_and_pods_are_measured_once_for_many_askers() {
    let (api, asked) = world().await;
    let nodes = api.get(&format!("{METRICS}/nodes")).await;
    expect![[
        r#"{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[{"kind":"NodeMetrics","apiVersion":"metrics.k8s.io/v1beta1","metadata":{"name":"n1","creationTimestamp":"2026-01-01T00:01:40Z"},"timestamp":"2026-01-01T00:01:40Z","window":"1m40s","usage":{"cpu":"250m","memory":"1Gi"}}]}"#
    ]]
    .assert_eq(String::from_utf8_lossy(&nodes.body).replace(r#","labels":{}"#, "").trim_end());
    let pods = api.get(&format!("{METRICS}/namespaces/default/pods?labelSelector=app%3Dweb")).await;
    expect![[
        r#"{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[{"kind":"PodMetrics","apiVersion":"metrics.k8s.io/v1beta1","metadata":{"name":"web","namespace":"default","creationTimestamp":"2026-01-01T00:01:40Z","labels":{"app":"web"}},"timestamp":"2026-01-01T00:01:40Z","window":"1m40s","containers":[{"name":"c","usage":{"cpu":"156340n","memory":"12Ki"}}]}]}"#
    ]]
    .assert_eq(String::from_utf8_lossy(&pods.body).trim_end());
    assert_eq!(api.get(&format!("{METRICS}/pods?labelSelector=app%3Dx")).await.tree().list_at(&["items"]).len(), 0);
    assert_eq!(api.get(&format!("{METRICS}/namespaces/default/pods/web")).await.at(&["kind"]), "PodMetrics");
    let lines = [
        api.get(&format!("{METRICS}/namespaces/default/pods/none")).await.line(),
        api.get(&format!("{METRICS}/nodes/gone")).await.line(),
        api.post(&format!("{METRICS}/nodes"), "{}").await.line(),
    ];
    expect![[r#"
        404 NotFound: pods "default/none" not found
        404 NotFound: nodemetrics.metrics.k8s.io "gone" not found
        405 MethodNotAllowed: the server does not allow this method on the requested resource"#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_group_is_discovered_until_somebody_else_serves_it() {
    let (api, _) = world().await;
    assert_eq!(api.get("/apis/metrics.k8s.io").await.at(&["preferredVersion", "version"]), "v1beta1");
    assert_eq!(api.get(METRICS).await.tree().list_at(&["resources"]).len(), 2);
    let services = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io";
    let theirs =
        r#"{"spec":{"insecureSkipTLSVerify":true,"service":{"namespace":"kube-system","name":"metrics-server"}}}"#;
    assert_eq!(api.patch("merge", services, theirs).await.line(), "200");
    crate::watching::until(&api, "/apis/apiregistration.k8s.io/v1/apiservices", "v1beta1.metrics.k8s.io", |object| {
        object.list_at(&["status", "conditions"]).iter().any(|one| one.str_at(&["reason"]) == "ServiceNotFound")
    })
    .await;
    let refused = api.get(&format!("{METRICS}/nodes")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body, "service unavailable\n");
}
