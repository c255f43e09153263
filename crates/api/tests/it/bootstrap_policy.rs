//! The roles that every cluster begins with: what later starts make of them, and what they allow.

use std::sync::Arc;

use skiff_api::authn::UserInfo;
use skiff_api::authz::rbac::Rbac;
use skiff_api::authz::{Attributes, Authorizer, Target};
use skiff_base::{Clock, Shutdown, Tasks};
use skiff_store::memory::MemoryStore;

use crate::support::api_over;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

/// User, groups, verb, API group, resource, subresource, namespace, and whether it is allowed.
type Case =
    (&'static str, &'static [&'static str], &'static str, &'static str, &'static str, &'static str, &'static str, bool);

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Clock::system()))
}

#[tokio::test]
async fn a_start_restores_what_is_missing_and_keeps_what_is_more() {
    let store = memory();
    let first = api_over(Arc::clone(&store), |config| config).await;
    let own = r#"[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]"#;
    for name in ["system:basic-user", "system:kube-dns"] {
        let changed = format!(r#"{{"rules":{own}}}"#);
        assert_eq!(first.patch("merge", &format!("{ROLES}/{name}"), &changed).await.line(), "200");
    }
    let off = r#"{"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"false"}}}"#;
    assert_eq!(first.patch("merge", &format!("{ROLES}/system:kube-dns"), off).await.line(), "200");
    let label = r#"{"metadata":{"labels":{"kubernetes.io/bootstrapping":"mine"}}}"#;
    assert_eq!(first.patch("merge", &format!("{ROLES}/system:basic-user"), label).await.line(), "200");
    let nobody = r#"{"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"jane"}]}"#;
    assert_eq!(first.patch("merge", &format!("{BINDINGS}/system:discovery"), nobody).await.line(), "200");
    assert_eq!(first.delete(&format!("{ROLES}/system:heapster")).await.line(), "200");
    assert_eq!(first.delete(&format!("{BINDINGS}/system:kube-dns")).await.line(), "200");
    let elsewhere = r#"{"metadata":{"name":"system:kube-dns"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io",
        "kind":"ClusterRole","name":"view"}}"#;
    assert_eq!(first.post(BINDINGS, elsewhere).await.line(), "201");

    let second = api_over(Arc::clone(&store), |config| config).await;
    let basic = second.get(&format!("{ROLES}/system:basic-user")).await;
    let rules = basic.at(&["rules"]);
    assert!(rules.contains(r#""resources":["pods"]"#) && rules.contains("selfsubjectreviews"), "{rules}");
    assert_eq!(basic.at(&["metadata", "labels", "kubernetes.io/bootstrapping"]), "mine");
    assert_eq!(second.get(&format!("{ROLES}/system:kube-dns")).await.tree().list_at(&["rules"]).len(), 1);
    let subjects = second.get(&format!("{BINDINGS}/system:discovery")).await.at(&["subjects"]);
    assert!(subjects.contains("jane") && subjects.contains("system:authenticated"), "{subjects}");
    assert_eq!(second.get(&format!("{ROLES}/system:heapster")).await.line(), "200");
    assert_eq!(second.get(&format!("{BINDINGS}/system:kube-dns")).await.at(&["roleRef", "name"]), "system:kube-dns");
    // A third start finds nothing to do.
    let before = second.get(ROLES).await.at(&["metadata", "resourceVersion"]);
    let third = api_over(store, |config| config).await;
    let unchanged = |name: &str| format!("{ROLES}/{name}");
    let (then, now) =
        (second.get(&unchanged("system:basic-user")).await, third.get(&unchanged("system:basic-user")).await);
    assert_eq!(then.at(&["metadata", "resourceVersion"]), now.at(&["metadata", "resourceVersion"]), "since {before}");
}

#[tokio::test]
async fn bound_users_may_what_upstream_lets_them() {
    let store = memory();
    let api = api_over(Arc::clone(&store), |config| config).await;
    for role in ["view", "edit", "admin"] {
        let binding = format!(
            r#"{{"metadata":{{"name":"of-{role}"}},"roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole",
            "name":"{role}"}},"subjects":[{{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"{role}er"}}]}}"#
        );
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        assert_eq!(api.post(path, &binding).await.line(), "201");
    }
    let tasks = Tasks::new("rbac", Shutdown::new());
    let rbac = Rbac::start(store, "test", Clock::system(), &tasks).await.unwrap();
    let resource = |user: &UserInfo, verb: &str, group: &str, resource: &str, subresource: &str, namespace: &str| {
        let target = Target::Resource { group, version: "v1", resource, subresource, namespace, name: "x" };
        rbac.authorize(&Attributes::new(user, verb, target)).is_allowed()
    };
    let cases: [Case; 26] = [
        ("viewer", &[], "get", "resource.k8s.io", "resourceclaims", "status", "default", true),
        ("viewer", &[], "create", "resource.k8s.io", "resourceclaims", "", "default", false),
        ("viewer", &[], "get", "", "secrets", "", "default", false),
        ("viewer", &[], "get", "coordination.k8s.io", "leases", "", "default", false),
        ("editer", &[], "create", "resource.k8s.io", "resourceclaimtemplates", "", "default", true),
        ("editer", &[], "update", "coordination.k8s.io", "leases", "", "default", true),
        ("editer", &[], "get", "", "secrets", "", "default", true),
        ("editer", &[], "create", "", "serviceaccounts", "token", "default", true),
        ("editer", &[], "update", "", "endpoints", "", "default", false),
        ("editer", &[], "create", "rbac.authorization.k8s.io", "roles", "", "default", false),
        ("adminer", &[], "create", "rbac.authorization.k8s.io", "roles", "", "default", true),
        ("adminer", &[], "update", "", "resourcequotas", "", "default", false),
        ("adminer", &[], "get", "", "pods", "", "kube-system", false),
        ("system:kube-scheduler", &[], "patch", "resource.k8s.io", "resourceclaims", "binding", "default", true),
        ("system:kube-scheduler", &[], "get", "storage.k8s.io", "volumeattachments", "", "", true),
        ("system:kube-scheduler", &[], "update", "coordination.k8s.io", "leases", "", "kube-system", false),
        ("system:kube-proxy", &[], "watch", "networking.k8s.io", "servicecidrs", "", "", true),
        ("system:kube-controller-manager", &[], "list", "anything.example.com", "things", "", "", true),
        (
            "system:serviceaccount:kube-system:service-cidrs-controller",
            &[],
            "update",
            "networking.k8s.io",
            "servicecidrs",
            "finalizers",
            "",
            true,
        ),
        (
            "system:serviceaccount:kube-system:volumeattributesclass-protection-controller",
            &[],
            "update",
            "storage.k8s.io",
            "volumeattributesclasses",
            "",
            "",
            true,
        ),
        ("system:serviceaccount:kube-system:token-cleaner", &[], "delete", "", "secrets", "", "kube-system", true),
        ("system:serviceaccount:kube-system:token-cleaner", &[], "delete", "", "secrets", "", "default", false),
        ("system:serviceaccount:kube-system:bootstrap-signer", &[], "list", "", "secrets", "", "kube-system", true),
        ("system:node:n1", &["system:nodes"], "get", "", "pods", "", "default", false),
        (
            "anybody",
            &["system:authenticated"],
            "create",
            "authorization.k8s.io",
            "selfsubjectaccessreviews",
            "",
            "",
            true,
        ),
        ("root", &["system:masters"], "escalate", "rbac.authorization.k8s.io", "clusterroles", "", "", true),
    ];
    for (name, groups, verb, group, plural, sub, namespace, expected) in cases {
        let user = UserInfo::new(name, groups);
        let allowed = resource(&user, verb, group, plural, sub, namespace);
        assert_eq!(allowed, expected, "{name}: {verb} {plural}/{sub} of {group:?} in {namespace:?}");
    }
    let paths: [(&[&str], &str, bool); 8] = [
        (&["system:unauthenticated"], "/healthz", true),
        (&["system:unauthenticated"], "/version", true),
        (&["system:unauthenticated"], "/api", false),
        (&["system:authenticated"], "/openapi/v3/apis", true),
        (&["system:authenticated"], "/metrics", false),
        (&["system:monitoring"], "/metrics/slis", true),
        (&["system:serviceaccounts"], "/openid/v1/jwks/", true),
        (&["system:authenticated"], "/openid/v1/jwks", false),
    ];
    for (groups, path, expected) in paths {
        let user = UserInfo { groups: groups.iter().map(ToString::to_string).collect(), ..UserInfo::new("u", &[]) };
        let allowed = rbac.authorize(&Attributes::new(&user, "get", Target::Path(path))).is_allowed();
        assert_eq!(allowed, expected, "{groups:?} {path}");
    }
}
