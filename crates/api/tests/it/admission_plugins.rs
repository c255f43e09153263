//! Built-in admission plugins beyond those of pods' everyday life.

use skiff_api::UserInfo;

use crate::support::{CONFIG_MAPS, PODS, api, pod};

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn claim(name: &str, more: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}"}},"spec":{{"accessModes":["ReadWriteOnce"],
        "resources":{{"requests":{{"storage":"1Gi"}}}}{more}}}}}"#
    )
}

#[tokio::test]
async fn claims_are_protected_and_grow_only_when_bound() {
    let api = api().await;
    let class = r#"{"metadata":{"name":"fast"},"provisioner":"p","allowVolumeExpansion":true}"#;
    assert_eq!(api.post("/apis/storage.k8s.io/v1/storageclasses", class).await.line(), "201");
    let made = api.post(CLAIMS, &claim("c", r#","storageClassName":"fast""#)).await;
    assert_eq!(made.at(&["metadata", "finalizers"]), "[\"kubernetes.io/pvc-protection\"]", "{}", made.line());
    let grow = r#"{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}"#;
    let refused = api.patch("merge", &format!("{CLAIMS}/c"), grow).await;
    assert!(matches!(refused.status.as_u16(), 403 | 422), "{}", refused.line());
    let bound = r#"{"status":{"phase":"Bound"}}"#;
    assert_eq!(api.patch("merge", &format!("{CLAIMS}/c/status"), bound).await.line(), "200");
    assert_eq!(api.patch("merge", &format!("{CLAIMS}/c"), grow).await.line(), "200");
}

#[tokio::test]
async fn runtime_classes_bring_overhead_and_placement() {
    let api = api().await;
    let class = r#"{"metadata":{"name":"vm"},"handler":"h","overhead":{"podFixed":{"cpu":"100m"}},
        "scheduling":{"nodeSelector":{"vm":"yes"},"tolerations":[{"key":"vm","operator":"Exists"}]}}"#;
    assert_eq!(api.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.line(), "201");
    let with = |name: &str, more: &str| pod(name).replace("\"containers\"", &format!("{more}\"containers\""));
    let made = api.post(PODS, &with("p", r#""runtimeClassName":"vm","#)).await;
    assert_eq!(made.at(&["spec", "overhead"]), r#"{"cpu":"100m"}"#, "{}", made.line());
    assert_eq!(made.at(&["spec", "nodeSelector"]), r#"{"vm":"yes"}"#);
    assert!(made.at(&["spec", "tolerations"]).contains(r#"{"key":"vm","operator":"Exists"}"#));
    assert_eq!(
        api.post(PODS, &with("q", r#""runtimeClassName":"vm","nodeSelector":{"vm":"no"},"#)).await.line(),
        "403 Forbidden: pods \"q\" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; \
         pod.spec.nodeSelector[vm] = no"
    );
    assert_eq!(
        api.post(PODS, &with("r", r#""runtimeClassName":"none","#)).await.line(),
        "403 Forbidden: pods \"r\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    assert_eq!(
        api.post(PODS, &with("s", r#""overhead":{"cpu":"1"},"#)).await.line(),
        "403 Forbidden: pods \"s\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass \
         defined Overhead"
    );
}

#[tokio::test]
async fn ingresses_get_the_default_class() {
    let api = api().await;
    let class = r#"{"metadata":{"name":"web","annotations":{"ingressclass.kubernetes.io/is-default-class":"true"}},
        "spec":{"controller":"example.com/c"}}"#;
    assert_eq!(api.post("/apis/networking.k8s.io/v1/ingressclasses", class).await.line(), "201");
    let ingress =
        r#"{"metadata":{"name":"i"},"spec":{"defaultBackend":{"service":{"name":"s","port":{"number":80}}}}}"#;
    let made = api.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress).await;
    assert_eq!(made.at(&["spec", "ingressClassName"]), "web", "{}", made.line());
}

#[tokio::test]
async fn accounts_may_limit_the_secrets_of_their_pods() {
    let api = api().await;
    let limits = r#"{"metadata":{"annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}},
        "secrets":[{"name":"mine"}]}"#;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    assert_eq!(api.patch("merge", account, limits).await.line(), "200");
    let with = |name: &str, secret: &str| {
        let volumes = format!(r#""volumes":[{{"name":"v","secret":{{"secretName":"{secret}"}}}}],"containers""#);
        pod(name).replace("\"containers\"", &volumes)
    };
    assert_eq!(api.post(PODS, &with("p", "mine")).await.line(), "201");
    assert_eq!(
        api.post(PODS, &with("q", "other")).await.line(),
        "403 Forbidden: pods \"q\" is forbidden: volume with secret.secretName=\"other\" is not allowed because service \
         account default does not reference that secret"
    );
}

#[tokio::test]
async fn quotas_follow_changes_and_keep_to_their_scopes() {
    let api = api().await;
    let quota = r#"{"metadata":{"name":"q"},"spec":{"hard":{"services.nodeports":"1","requests.storage":"3Gi"}}}"#;
    assert_eq!(api.post(QUOTAS, quota).await.line(), "201");
    let service = |name: &str, ty: &str| {
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"type":"{ty}","ports":[{{"port":80}}]}}}}"#)
    };
    assert_eq!(api.post(SERVICES, &service("a", "NodePort")).await.line(), "201");
    assert_eq!(api.post(SERVICES, &service("b", "ClusterIP")).await.line(), "201");
    assert_eq!(
        api.patch("merge", &format!("{SERVICES}/b"), r#"{"spec":{"type":"NodePort"}}"#).await.line(),
        "403 Forbidden: services \"b\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: \
         services.nodeports=1, limited: services.nodeports=1"
    );
    assert_eq!(api.patch("merge", &format!("{SERVICES}/a"), r#"{"spec":{"type":"ClusterIP"}}"#).await.line(), "200");
    assert_eq!(api.get(&format!("{QUOTAS}/q")).await.at(&["status", "used", "services.nodeports"]), "0");
    assert_eq!(api.patch("merge", &format!("{SERVICES}/b"), r#"{"spec":{"type":"NodePort"}}"#).await.line(), "200");
    let scoped = r#"{"metadata":{"name":"best"},"spec":{"hard":{"pods":"0"},"scopes":["BestEffort"]}}"#;
    assert_eq!(api.post(QUOTAS, scoped).await.line(), "201");
    assert_eq!(api.post(PODS, &pod("p")).await.status, 403);
    let asking = pod("p").replace(r#""image":"i""#, r#""image":"i","resources":{"requests":{"cpu":"1m"}}"#);
    assert_eq!(api.post(PODS, &asking).await.line(), "201");
}

#[tokio::test]
async fn kubelets_keep_to_what_is_theirs() {
    let api = api().await;
    let kubelet = api.as_user(UserInfo::new("system:node:n1", &["system:nodes"]));
    let node = r#"{"metadata":{"name":"n1","labels":{"node-restriction.kubernetes.io/x":"y"}}}"#;
    assert_eq!(
        kubelet.post("/api/v1/nodes", node).await.line(),
        "403 Forbidden: nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: \
         node-restriction.kubernetes.io/x"
    );
    let node = r#"{"metadata":{"name":"n1","labels":{"kubernetes.io/hostname":"n1","own.example.com/x":"y"}}}"#;
    assert_eq!(kubelet.post("/api/v1/nodes", node).await.line(), "201");
    let taint = r#"{"spec":{"taints":[]}}"#;
    assert_eq!(
        kubelet.patch("merge", "/api/v1/nodes/n1", taint).await.line(),
        "403 Forbidden: nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints"
    );
    let refused = kubelet.post(PODS, &pod("p")).await.line();
    assert!(refused.contains("pod does not have \"kubernetes.io/config.mirror\" annotation"), "{refused}");
    assert_eq!(
        kubelet.put(&format!("{CLAIMS}/c"), &claim("c", "")).await.status,
        404,
        "what is not there is not there"
    );
    api.post(PODS, &pod("p")).await;
    let token = |bound: &str| format!(r#"{{"spec":{{"audiences":[]{bound}}}}}"#);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    assert!(kubelet.post(path, &token("")).await.line().ends_with("node requested token not bound to a pod"));
    let uid = api.get(&format!("{PODS}/p")).await.at(&["metadata", "uid"]);
    let bound = format!(r#","boundObjectRef":{{"apiVersion":"v1","kind":"Pod","name":"p","uid":"{uid}"}}"#);
    let elsewhere = kubelet.post(path, &token(&bound)).await.line();
    assert!(elsewhere.ends_with("node requested token bound to a pod scheduled on a different node"), "{elsewhere}");
    let binding = r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}"#;
    assert_eq!(api.post(&format!("{PODS}/p/binding"), binding).await.line(), "201");
    assert_eq!(kubelet.post(path, &token(&bound)).await.line(), "201");
    let vault = token(&bound).replace("[]", "[\"vault\"]");
    let refused = kubelet.post(path, &vault).await.line();
    assert!(refused.ends_with("audience \"vault\" not found in pod spec volume"), "{refused}");
    assert_eq!(kubelet.post(CONFIG_MAPS, r#"{"metadata":{"name":"c"}}"#).await.line(), "201", "others restrict that");
}

#[tokio::test]
async fn bound_pods_carry_the_topology_of_their_node() {
    let api = api().await;
    let node = r#"{"metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"z","other":"x"}}}"#;
    assert_eq!(api.post("/api/v1/nodes", node).await.line(), "201");
    api.post(PODS, &pod("p")).await;
    let binding = r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}"#;
    assert_eq!(api.post(&format!("{PODS}/p/binding"), binding).await.line(), "201");
    let labels = api.get(&format!("{PODS}/p")).await.at(&["metadata", "labels"]);
    assert_eq!(labels, r#"{"topology.kubernetes.io/zone":"z"}"#);
}
