//! Who may come in, as whom, and what they are told.

use std::sync::Arc;

use http::Method;
use skiff_api::authn::UserInfo;
use skiff_api::authz::{Attributes, Authorizer, Decision, Rules};

use crate::support::{CONFIG_MAPS, PODS, api, api_with, pod};

/// Lets everybody read and nobody else do anything.
struct ReadOnly;

impl Authorizer for ReadOnly {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if matches!(attributes.verb, "get" | "list" | "watch") {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }

    fn rules(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

#[tokio::test]
async fn refusals_name_user_verb_and_resource() {
    let api = api_with(Arc::new(ReadOnly)).await;
    let jane = api.as_user(UserInfo::new("jane", &[]));
    assert_eq!(jane.get(CONFIG_MAPS).await.line(), "200");
    assert_eq!(
        jane.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"}}"#).await.line(),
        "403 Forbidden: configmaps is forbidden: User \"jane\" cannot create resource \"configmaps\" in API group \"\" \
         in the namespace \"default\""
    );
    let impersonating = jane.send(Method::GET, CONFIG_MAPS, &[("impersonate-user", "bob")], b"").await;
    assert_eq!(
        impersonating.line(),
        "403 Forbidden: configmaps is forbidden: User \"jane\" cannot impersonate-on:user-info:list resource \
         \"configmaps\" in API group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn impersonation_takes_effect_for_who_may() {
    let api = api_with(Arc::new(ReadOnly)).await;
    let body = br#"{}"#;
    let headers = [("impersonate-user", "bob"), ("impersonate-group", "devs"), ("content-type", "application/json")];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let refused = api.send(Method::POST, path, &headers, body).await.line();
    assert!(refused.contains("User \"bob\" cannot create"), "{refused}");
}

#[tokio::test]
async fn tokens_live_and_die_with_what_they_are_bound_to() {
    let api = api().await;
    api.post(PODS, &pod("p")).await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let body = r#"{"spec":{"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p"}}}"#;
    let issued = api.post(path, body).await;
    assert_eq!(issued.line(), "201");
    let token = issued.at(&["status", "token"]);
    let review = format!(r#"{{"spec":{{"token":"{token}"}}}}"#);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let found = api.post(reviews, &review).await;
    assert_eq!(found.at(&["status", "authenticated"]), "true");
    assert_eq!(found.at(&["status", "user", "username"]), "system:serviceaccount:default:default");
    assert_eq!(found.at(&["status", "user", "extra", "authentication.kubernetes.io/pod-name"]), "[\"p\"]");
    api.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await;
    assert_ne!(api.post(reviews, &review).await.at(&["status", "authenticated"]), "true");
    let short = api.post(path, r#"{"spec":{"expirationSeconds":10}}"#).await.line();
    assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");
}

#[tokio::test]
async fn paths_without_a_resource_answer() {
    let api = api().await;
    for path in [
        "/healthz",
        "/livez",
        "/readyz",
        "/readyz?verbose",
        "/livez/ping",
        "/version",
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/",
    ] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
    for path in [
        "/nope",
        "/apis/nope",
        "/apis/nope/v1",
        "/apis/nope/v1/things",
        "/api/v1/nope",
        "/livez/nope",
        "/api/v1/namespaces/default/pods/p/nope",
    ] {
        assert_eq!(api.get(path).await.status, 404, "{path}");
    }
    assert!(api.get("/readyz?verbose").await.body.ends_with(b"readyz check passed\n"));
}

#[tokio::test]
async fn every_answer_carries_an_audit_id_and_is_not_cached() {
    let api = api().await;
    let answer = api.get("/nope").await;
    assert_eq!(answer.headers["cache-control"], "no-cache, private");
    assert_eq!(answer.headers["audit-id"].len(), 36);
    let given = api.send(Method::GET, "/version", &[("audit-id", "mine")], b"").await;
    assert_eq!(given.headers["audit-id"], "mine");
}

#[tokio::test]
async fn evictions_ask_the_budget() {
    let api = api().await;
    let body = r#"{"metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    assert_eq!(api.post(PODS, body).await.line(), "201");
    let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    assert_eq!(api.patch("merge", &format!("{PODS}/p/status"), status).await.line(), "200");
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = r#"{"metadata":{"name":"b"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"a":"b"}}}}"#;
    assert_eq!(api.post(budgets, budget).await.line(), "201");
    let eviction = r#"{"metadata":{"name":"p"}}"#;
    let path = format!("{PODS}/p/eviction");
    let early = api.post(&path, eviction).await;
    assert_eq!((early.status.as_u16(), early.headers["retry-after"].as_bytes()), (429, b"10".as_slice()));
    let status = r#"{"status":{"observedGeneration":1,"currentHealthy":1,"desiredHealthy":1,"disruptionsAllowed":0}}"#;
    assert_eq!(api.patch("merge", &format!("{budgets}/b/status"), status).await.line(), "200");
    let refused = api.post(&path, eviction).await;
    assert_eq!(
        refused.line(),
        "429 TooManyRequests: Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert!(
        refused.at(&["details", "causes"]).contains("The disruption budget b needs 1 healthy pods and has 1 currently")
    );
    let status = r#"{"status":{"disruptionsAllowed":1}}"#;
    assert_eq!(api.patch("merge", &format!("{budgets}/b/status"), status).await.line(), "200");
    assert_eq!(api.post(&path, eviction).await.line(), "201");
    assert_eq!(api.get(&format!("{budgets}/b")).await.at(&["status", "disruptionsAllowed"]), "0");
}
