//! What a kubelet may see: what the pods of its node use.

use std::sync::Arc;

use skiff_api::Config;
use skiff_api::authn::UserInfo;
use skiff_api::authz::node::NodeAuthorizer;
use skiff_api::authz::rbac::Rbac;
use skiff_api::authz::union::Union;
use skiff_base::{Clock, Shutdown, Tasks};
use skiff_store::Store;
use skiff_store::memory::MemoryStore;

use crate::support::{Api, PODS, api_of};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const NODES: &str = "/api/v1/nodes";

/// A server with the Node and RBAC authorizers, as clusters have it.
async fn cluster() -> Api {
    let clock = Clock::system();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
    let tasks = Tasks::new("authorizers", Shutdown::new());
    let rbac = Rbac::start(Arc::clone(&store), "test", clock.clone(), &tasks).await.unwrap();
    let node = NodeAuthorizer::start(Arc::clone(&store), "test", clock, &tasks).await.unwrap();
    api_of(|config| Config { store, authorizer: Arc::new(Union::new(vec![node, rbac])), ..config }).await
}

fn kubelet(api: &Api, node: &str) -> Api {
    api.as_user(UserInfo::new(&format!("system:node:{node}"), &["system:nodes"]))
}

fn pod(name: &str, node: &str, secret: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}"}},"spec":{{"nodeName":"{node}","containers":[{{"name":"c","image":"i",
        "env":[{{"name":"E","valueFrom":{{"secretKeyRef":{{"name":"{secret}","key":"k"}}}}}}]}}]}}}}"#
    )
}

#[tokio::test]
async fn a_secret_is_seen_as_soon_as_a_pod_uses_it_and_no_longer() {
    let api = cluster().await;
    let (n1, n2) = (kubelet(&api, "n1"), kubelet(&api, "n2"));
    for name in ["mine", "other"] {
        let made = api.post(SECRETS, &format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)).await;
        assert_eq!(made.line(), "201");
    }
    let mine = format!("{SECRETS}/mine");
    assert_eq!(
        n1.get(&mine).await.line(),
        "403 Forbidden: secrets \"mine\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API \
         group \"\" in the namespace \"default\": no relationship found between node 'n1' and this object"
    );
    // Again and again: the graph must know each pod by the time its kubelet asks.
    for round in 0..20 {
        let name = format!("p{round}");
        assert_eq!(api.post(PODS, &pod(&name, "n1", "mine")).await.line(), "201");
        assert_eq!(n1.get(&mine).await.line(), "200", "round {round}");
        assert_eq!(n1.get(&format!("{PODS}/{name}")).await.line(), "200");
        assert_eq!(n2.get(&mine).await.status, 403);
        assert_eq!(n1.get(&format!("{SECRETS}/other")).await.status, 403);
        api.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await;
    }
    // What is gone is forgotten by an event, not by asking.
    let list = format!("{SECRETS}?fieldSelector=metadata.name%3Dmine");
    for _ in 0..1_000 {
        if n1.get(&list).await.status == 403 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the secret of a pod that is gone is still seen");
}

#[tokio::test]
async fn a_kubelet_has_its_own_node_pods_and_lease() {
    let api = cluster().await;
    let n1 = kubelet(&api, "n1");
    assert_eq!(n1.post(NODES, r#"{"metadata":{"name":"n1"}}"#).await.line(), "201");
    assert_eq!(n1.get(&format!("{NODES}/n1")).await.line(), "200");
    assert!(n1.get(NODES).await.line().contains("cannot read all nodes, only its own Node object"));
    assert!(n1.get(&format!("{NODES}/n2")).await.line().contains("cannot read 'n2', only its own Node object"));
    assert_eq!(n1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.line(), "200");
    assert!(n1.get("/api/v1/pods").await.line().contains("can only list/watch pods with spec.nodeName field selector"));
    assert_eq!(n1.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await.status, 403);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(n1.post(leases, r#"{"metadata":{"name":"n1"}}"#).await.line(), "201");
    assert_eq!(n1.get(&format!("{leases}/n1")).await.line(), "200");
    assert!(
        n1.get(&format!("{leases}/n2"))
            .await
            .line()
            .contains("can only access node lease with the same name as the requesting node")
    );
    assert_eq!(n1.get("/api/v1/services").await.line(), "200");
    assert_eq!(n1.get("/apis/apps/v1/deployments").await.status, 403);
}

#[tokio::test]
async fn a_kubelet_asks_for_tokens_of_the_accounts_of_its_pods() {
    let api = cluster().await;
    let n1 = kubelet(&api, "n1");
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    assert!(n1.post(path, "{}").await.line().contains("no relationship found"));
    assert_eq!(api.post(PODS, &pod("p", "n1", "s")).await.line(), "201");
    let uid = api.get(&format!("{PODS}/p")).await.at(&["metadata", "uid"]);
    let bound =
        format!(r#"{{"spec":{{"boundObjectRef":{{"apiVersion":"v1","kind":"Pod","name":"p","uid":"{uid}"}}}}}}"#);
    assert_eq!(n1.post(path, &bound).await.line(), "201");
    assert_eq!(kubelet(&api, "n2").post(path, &bound).await.status, 403);
}

#[tokio::test]
async fn the_rules_of_a_node_cannot_be_listed() {
    let api = cluster().await;
    let review = r#"{"spec":{"namespace":"default"}}"#;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = kubelet(&api, "n1").post(path, review).await;
    assert_eq!(answer.at(&["status", "incomplete"]), "true");
    assert_eq!(answer.at(&["status", "evaluationError"]), "node authorizer does not support user rule resolution");
}
