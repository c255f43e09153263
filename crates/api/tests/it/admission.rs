//! What admission adds and refuses, and what Services are given.

use crate::support::{PODS, api, pod};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}]{spec}}}}}"#)
}

#[tokio::test]
async fn pods_get_their_account_tolerations_and_priority() {
    let api = api().await;
    let made = api.post(PODS, &pod("p")).await;
    assert_eq!(made.at(&["spec", "serviceAccountName"]), "default");
    assert_eq!(made.tree().list_at(&["spec", "tolerations"]).len(), 2);
    assert_eq!(made.at(&["spec", "priority"]), "0");
    assert!(made.at(&["spec", "volumes"]).contains("kube-api-access-"));
    let missing = pod("q").replace("\"containers\"", "\"priorityClassName\":\"none\",\"containers\"");
    assert_eq!(
        api.post(PODS, &missing).await.line(),
        "403 Forbidden: pods \"q\" is forbidden: no PriorityClass with name none was found"
    );
    let critical = pod("r").replace("\"containers\"", "\"priorityClassName\":\"system-node-critical\",\"containers\"");
    assert_eq!(api.post(PODS, &critical).await.at(&["spec", "priority"]), "2000001000");
}

#[tokio::test]
async fn services_get_addresses_that_nobody_else_has() {
    let api = api().await;
    let first = api.post(SERVICES, &service("a", ",\"clusterIP\":\"10.96.0.10\"")).await;
    assert_eq!((first.line(), first.at(&["spec", "clusterIPs"])), ("201".into(), "[\"10.96.0.10\"]".into()));
    let taken = api.post(SERVICES, &service("b", ",\"clusterIP\":\"10.96.0.10\"")).await.line();
    assert!(taken.ends_with("failed to allocate IP 10.96.0.10: provided IP is already allocated"), "{taken}");
    let outside = api.post(SERVICES, &service("b", ",\"clusterIP\":\"10.97.0.10\"")).await.line();
    assert!(outside.ends_with("the provided network does not match the current range"), "{outside}");
    let headless = api.post(SERVICES, &service("h", ",\"clusterIP\":\"None\"")).await;
    assert_eq!(headless.at(&["spec", "clusterIPs"]), "[\"None\"]");
    api.delete(&format!("{SERVICES}/a")).await;
    assert_eq!(api.post(SERVICES, &service("b", ",\"clusterIP\":\"10.96.0.10\"")).await.line(), "201");
}

#[tokio::test]
async fn node_ports_are_kept_and_given_back() {
    let api = api().await;
    let made = api.post(SERVICES, &service("n", ",\"type\":\"NodePort\"")).await;
    let port = made.tree().list_at(&["spec", "ports"])[0].int_at(&["nodePort"]).unwrap();
    assert!((30_000..=32_767).contains(&port));
    let kept = api.put(&format!("{SERVICES}/n"), &service("n", ",\"type\":\"NodePort\"")).await;
    assert_eq!(kept.tree().list_at(&["spec", "ports"])[0].int_at(&["nodePort"]), Some(port));
    let other = format!(
        r#"{{"metadata":{{"name":"o"}},"spec":{{"type":"NodePort","ports":[{{"port":80,"nodePort":{port}}}]}}}}"#
    );
    let taken = api.post(SERVICES, &other).await.line();
    assert!(taken.ends_with("provided port is already allocated"), "{taken}");
    let plain = api.patch("merge", &format!("{SERVICES}/n"), r#"{"spec":{"type":"ClusterIP"}}"#).await;
    assert_eq!(plain.tree().list_at(&["spec", "ports"])[0].int_at(&["nodePort"]), None, "{}", plain.line());
    assert_eq!(api.post(SERVICES, &other).await.line(), "201");
    let low = other.replace("\"o\"", "\"l\"").replace(&port.to_string(), "80");
    assert!(api.post(SERVICES, &low).await.line().contains("The range of valid ports is 30000-32767"));
}

#[tokio::test]
async fn limits_fill_in_and_bound() {
    let api = api().await;
    let range = r#"{"metadata":{"name":"l"},"spec":{"limits":[{"type":"Container","default":{"cpu":"500m"},
        "defaultRequest":{"cpu":"100m"},"max":{"cpu":"1"}}]}}"#;
    assert_eq!(api.post("/api/v1/namespaces/default/limitranges", range).await.line(), "201");
    let made = api.post(PODS, &pod("p")).await;
    assert!(
        made.at(&["spec", "containers"]).contains(r#""resources":{"limits":{"cpu":"500m"},"requests":{"cpu":"100m"}}"#)
    );
    let big = pod("q").replace("\"image\":\"i\"", "\"image\":\"i\",\"resources\":{\"limits\":{\"cpu\":\"2\"}}");
    let refused = api.post(PODS, &big).await.line();
    assert!(refused.contains("maximum cpu usage per Container is 1, but limit is 2"), "{refused}");
}

#[tokio::test]
async fn quotas_count_what_comes_and_goes() {
    let api = api().await;
    let quota = r#"{"metadata":{"name":"q"},"spec":{"hard":{"pods":"1","count/configmaps":"5"}}}"#;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    assert_eq!(api.post(quotas, quota).await.line(), "201");
    assert_eq!(api.post(PODS, &pod("a")).await.line(), "201");
    assert_eq!(
        api.post(PODS, &pod("b")).await.line(),
        "403 Forbidden: pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"
    );
    assert_eq!(api.get(&format!("{quotas}/q")).await.at(&["status", "used", "pods"]), "1");
    api.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await;
    assert_eq!(api.get(&format!("{quotas}/q")).await.at(&["status", "used", "pods"]), "0");
    let (one, two) = futures::join!(
        api.post(PODS, r#"{"metadata":{"name":"c"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#),
        api.post(PODS, r#"{"metadata":{"name":"d"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#)
    );
    assert_eq!([one.status.as_u16(), two.status.as_u16()].iter().sum::<u16>(), 201 + 403);
}

#[tokio::test]
async fn kubelets_write_their_own_node_only() {
    let api = api().await;
    let kubelet = api.as_user(skiff_api::UserInfo::new("system:node:n1", &["system:nodes"]));
    let node = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
    assert_eq!(kubelet.post("/api/v1/nodes", &node("n1")).await.line(), "201");
    assert_eq!(
        kubelet.post("/api/v1/nodes", &node("n2")).await.line(),
        "403 Forbidden: nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""
    );
    let read = api.get("/api/v1/nodes/n1").await;
    assert!(read.at(&["spec", "taints"]).contains("node.kubernetes.io/not-ready"));
}
