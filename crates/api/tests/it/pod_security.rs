//! Pod Security, as namespaces and their pods meet it.

use crate::support::{DEPLOYMENTS, PODS, api, deployment, pod};

const DEFAULT: &str = "/api/v1/namespaces/default";

fn labels(pairs: &str) -> String {
    format!(r#"{{"metadata":{{"labels":{{{}}}}}}}"#, pairs.replace("ps/", "pod-security.kubernetes.io/"))
}

fn warnings(answer: &crate::support::Answer) -> Vec<String> {
    answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().replace("\\\"", "\"")).collect()
}

#[tokio::test]
async fn pods_are_refused_and_what_makes_them_is_warned_about() {
    let api = api().await;
    assert_eq!(api.patch("merge", DEFAULT, &labels(r#""ps/enforce":"restricted""#)).await.line(), "200");
    let expected = "PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
        securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
        securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
        securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
        securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    let refused = api.post(PODS, &pod("p")).await.line();
    assert_eq!(refused, format!("403 Forbidden: pods \"p\" is forbidden: violates {expected}"));
    let made = api.post(DEPLOYMENTS, &deployment("d")).await;
    assert_eq!(made.line(), "201");
    assert_eq!(warnings(&made), [format!("299 - \"would violate {expected}\"")]);
}

#[tokio::test]
async fn labels_are_checked_and_existing_pods_are_named() {
    let api = api().await;
    let bad = api.patch("merge", DEFAULT, &labels(r#""ps/enforce":"strict""#)).await.line();
    assert_eq!(
        bad,
        "422 Invalid: Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid \
         value: \"strict\": must be one of privileged, baseline, restricted"
    );
    for name in ["a", "b"] {
        let host = pod(name).replace("\"containers\"", "\"hostNetwork\":true,\"containers\"");
        assert_eq!(api.post(PODS, &host).await.line(), "201");
    }
    let changed = api.patch("merge", DEFAULT, &labels(r#""ps/enforce":"baseline","ps/enforce-version":"v1.30""#)).await;
    assert_eq!(changed.line(), "200");
    assert_eq!(
        warnings(&changed),
        [
            "299 - \"existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:v1.30\"\"",
            "299 - \"a (and 1 other pod): host namespaces\""
        ]
    );
    // What does not change what runs is let through.
    assert_eq!(api.patch("merge", &format!("{PODS}/a"), r#"{"metadata":{"labels":{"x":"y"}}}"#).await.line(), "200");
    let image = r#"{"spec":{"containers":[{"name":"c","image":"other"}]}}"#;
    assert_eq!(api.patch("strategic-merge", &format!("{PODS}/a"), image).await.status, 403);
}
