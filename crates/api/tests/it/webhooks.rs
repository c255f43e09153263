//! Admission webhooks: who is asked, in which order, with what, and what becomes of the answers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;
use skiff_object::{Tree, json};

use crate::remote::{Answering, Remote};
use crate::support::{Api, CONFIG_MAPS, PODS, api, pod};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub(crate) const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A webhook server that remembers what it was asked.
pub(crate) struct Hooks {
    remote: Remote,
    asked: Arc<Mutex<Vec<Tree>>>,
}

/// What to answer: the fields of the response besides the uid.
pub(crate) fn allow() -> String {
    r#""allowed":true"#.into()
}

pub(crate) fn deny(status: &str) -> String {
    format!(r#""allowed":false,"status":{status}"#)
}

fn patch(operations: &str) -> String {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations);
    format!(r#""allowed":true,"patch":"{patch}","patchType":"JSONPatch""#)
}

impl Hooks {
    /// Answers by path and request; `None` never answers.
    pub(crate) async fn start(answer: impl Fn(&str, &Tree) -> Option<String> + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<Tree>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        let answering: Answering = Arc::new(move |request: Request<Bytes>| {
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            Box::pin(async move {
                let review = json::decode_untyped(request.body()).unwrap();
                let question = review.get("request").unwrap().clone();
                let fields = answer(request.uri().path(), &question);
                seen.lock().push(question.clone());
                let Some(fields) = fields else { return std::future::pending().await };
                let uid = question.str_at(&["uid"]);
                let body = format!(
                    r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{{"uid":"{uid}",{fields}}}}}"#
                );
                Response::new(Bytes::from(body))
            })
        });
        Self { remote: Remote::start(&["localhost"], answering).await, asked }
    }

    /// One webhook of a configuration. `more` are fields beginning with a comma.
    pub(crate) fn webhook(&self, name: &str, path: &str, rule: &str, more: &str) -> String {
        let bundle = base64::engine::general_purpose::STANDARD.encode(&self.remote.authority);
        let port = self.remote.address.port();
        format!(
            r#"{{"name":"{name}","admissionReviewVersions":["v1"],"sideEffects":"None","rules":[{rule}],
            "clientConfig":{{"url":"https://localhost:{port}{path}","caBundle":"{bundle}"}}{more}}}"#
        )
    }

    fn asked(&self) -> Vec<Tree> {
        self.asked.lock().clone()
    }

    fn lines(&self) -> Vec<String> {
        let line = |asked: &Tree| {
            let sub = asked.str_at(&["subResource"]);
            let slash = if sub.is_empty() { "" } else { "/" };
            format!(
                "{} {}{slash}{sub} {}",
                asked.str_at(&["operation"]),
                asked.str_at(&["resource", "resource"]),
                asked.str_at(&["name"])
            )
        };
        self.asked().iter().map(line).collect()
    }
}

pub(crate) fn rule(operations: &str, group: &str, version: &str, resources: &str) -> String {
    format!(
        r#"{{"operations":[{operations}],"apiGroups":["{group}"],"apiVersions":["{version}"],"resources":[{resources}]}}"#
    )
}

fn config_maps() -> String {
    rule(r#""*""#, "", "v1", r#""configmaps""#)
}

pub(crate) async fn configure(api: &Api, path: &str, name: &str, webhooks: &[String]) {
    let body = format!(r#"{{"metadata":{{"name":"{name}"}},"webhooks":[{}]}}"#, webhooks.join(","));
    assert_eq!(api.post(path, &body).await.line(), "201");
}

fn config_map(name: &str, data: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{{data}}}}}"#)
}

#[tokio::test]
async fn mutations_are_made_in_the_order_of_names_and_seen_by_the_next() {
    let api = api().await;
    let hooks = Hooks::start(|path, request| {
        let stage = |name: &str| request.at(&["object", "data"]).is_some_and(|data| data.get(name).is_some());
        let add = |name: &str| patch(&format!(r#"[{{"op":"add","path":"/data/{name}","value":"yes"}}]"#));
        Some(match path {
            "/1" if stage("start") => add("stage-1"),
            "/2" if stage("stage-1") => add("stage-2"),
            _ => allow(),
        })
    })
    .await;
    configure(&api, MUTATING, "b", &[hooks.webhook("two.example.com", "/2", &config_maps(), "")]).await;
    configure(&api, MUTATING, "a", &[hooks.webhook("one.example.com", "/1", &config_maps(), "")]).await;
    let made = api.post(CONFIG_MAPS, &config_map("c", r#""start":"yes""#)).await;
    assert_eq!(made.at(&["data"]), r#"{"stage-1":"yes","stage-2":"yes","start":"yes"}"#);
    let asked = hooks.asked();
    assert_eq!(asked[0].at(&["object", "metadata", "uid"]), None, "the object is not made yet");
    assert_eq!(asked[0].str_at(&["userInfo", "username"]), "tester");
    assert_eq!(asked[0].str_at(&["options", "kind"]), "CreateOptions");
    assert_eq!(asked[0].at(&["oldObject"]), Some(&Tree::Null));
    assert_eq!(asked[0].bool_at(&["dryRun"]), Some(false));
    api.delete(&format!("{MUTATING}/a")).await;
    let made = api.post(CONFIG_MAPS, &config_map("d", r#""start":"yes""#)).await;
    assert_eq!(made.at(&["data"]), r#"{"start":"yes"}"#);
}

#[tokio::test]
async fn refusals_are_passed_on_with_the_webhooks_words() {
    let api = api().await;
    let hooks = Hooks::start(|_, request| {
        Some(match request.str_at(&["object", "metadata", "name"]) {
            "silent" => r#""allowed":false"#.into(),
            "worded" => {
                deny(r#"{"message":"the configmap contains unwanted key and value","reason":"Odd","code":418}"#)
            }
            _ => r#""allowed":true,"warnings":["mind the gap"],"auditAnnotations":{"k":"v"}"#.into(),
        })
    })
    .await;
    configure(&api, VALIDATING, "v", &[hooks.webhook("deny.example.com", "/", &config_maps(), "")]).await;
    assert_eq!(
        api.post(CONFIG_MAPS, &config_map("silent", "")).await.line(),
        "400 : admission webhook \"deny.example.com\" denied the request without explanation"
    );
    let worded = api.post(CONFIG_MAPS, &config_map("worded", "")).await;
    assert_eq!(
        worded.line(),
        "418 Odd: admission webhook \"deny.example.com\" denied the request: the configmap contains unwanted key and value"
    );
    let warned = api.post(CONFIG_MAPS, &config_map("fine", "")).await;
    assert_eq!(warned.headers.get("warning").unwrap(), "299 - \"mind the gap\"");
    let metrics = String::from_utf8(api.get("/metrics").await.body.to_vec()).unwrap();
    assert!(metrics.contains(
        "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"deny.example.com\",operation=\"CREATE\",rejection_code=\"418\",type=\"validating\"} 1"
    ));
}

#[tokio::test]
async fn what_cannot_be_asked_fails_by_policy() {
    let api = api().await;
    let hooks = Hooks::start(|path, _| (path != "/slow").then(allow)).await;
    let slow = hooks.webhook("slow.example.com", "/slow", &config_maps(), r#","timeoutSeconds":1"#);
    configure(&api, VALIDATING, "v", &[slow]).await;
    let port = hooks.remote.address.port();
    assert_eq!(
        api.post(CONFIG_MAPS, &config_map("c", "")).await.line(),
        format!(
            "500 InternalError: Internal error occurred: failed calling webhook \"slow.example.com\": failed to call \
             webhook: Post \"https://localhost:{port}/slow?timeout=1s\": context deadline exceeded"
        )
    );
    let ignore = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]"#;
    assert_eq!(api.patch("json", &format!("{VALIDATING}/v"), ignore).await.line(), "200");
    assert_eq!(api.post(CONFIG_MAPS, &config_map("c", "")).await.line(), "201");
    api.delete(&format!("{VALIDATING}/v")).await;
    let bundle = r#"{"metadata":{"name":"w"},"webhooks":[{"name":"away.example.com","admissionReviewVersions":["v1"],
        "sideEffects":"None","clientConfig":{"service":{"namespace":"ns","name":"away","path":"/x"}},"rules":["#;
    api.post(VALIDATING, &format!("{bundle}{}]}}]}}", config_maps())).await;
    assert_eq!(
        api.post(CONFIG_MAPS, &config_map("d", "")).await.line(),
        "500 InternalError: Internal error occurred: failed calling webhook \"away.example.com\": failed to call \
         webhook: Post \"https://away.ns.svc:443/x?timeout=10s\": service \"away\" not found"
    );
}

#[tokio::test]
async fn a_slow_webhook_delays_only_the_writes_it_is_for() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| None).await;
    let secrets = rule(r#""CREATE""#, "", "v1", r#""secrets""#);
    configure(&api, VALIDATING, "v", &[hooks.webhook("s.example.com", "/", &secrets, "")]).await;
    let body = r#"{"metadata":{"name":"s"}}"#;
    let slow = api.post("/api/v1/namespaces/default/secrets", body);
    let other = config_map("c", "");
    let quick = tokio::time::timeout(Duration::from_secs(3), api.post(CONFIG_MAPS, &other));
    tokio::select! {
        biased;
        _ = slow => panic!("the secret's webhook never answers"),
        made = quick => assert_eq!(made.unwrap().line(), "201"),
    }
}

#[tokio::test]
async fn deletes_connections_and_subresources_are_asked_about() {
    let api = api().await;
    let hooks = Hooks::start(|_, request| {
        Some(match (request.str_at(&["operation"]), request.str_at(&["oldObject", "data", "keep"])) {
            ("DELETE", "yes") => deny(r#"{"message":"kept"}"#),
            ("CONNECT", _) => deny(r#"{"message":"no attaching"}"#),
            _ => allow(),
        })
    })
    .await;
    let pods = rule(r#""CONNECT","UPDATE""#, "", "v1", r#""pods/*""#);
    let webhooks = [
        hooks.webhook("a.example.com", "/", &rule(r#""DELETE""#, "", "v1", r#""configmaps""#), ""),
        hooks.webhook("b.example.com", "/", &pods, ""),
    ];
    configure(&api, VALIDATING, "v", &webhooks).await;
    api.post(CONFIG_MAPS, &config_map("a", r#""keep":"yes""#)).await;
    api.post(CONFIG_MAPS, &config_map("b", "")).await;
    let refused = "400 : admission webhook \"a.example.com\" denied the request: kept";
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/a")).await.line(), refused);
    assert_eq!(api.delete(CONFIG_MAPS).await.line(), refused);
    let asked = hooks.asked();
    assert_eq!(asked[0].at(&["object"]), Some(&Tree::Null));
    assert_eq!(asked[0].str_at(&["options", "kind"]), "DeleteOptions");
    api.post(PODS, &pod("p")).await;
    let attach = api.post(&format!("{PODS}/p/attach?container=c&stdin=true"), "").await.line();
    assert_eq!(attach, "400 : admission webhook \"b.example.com\" denied the request: no attaching");
    let connect = hooks.asked().pop().unwrap();
    assert_eq!(connect.str_at(&["kind", "kind"]), "PodAttachOptions");
    assert_eq!(connect.bool_at(&["object", "stdin"]), Some(true));
    assert_eq!(connect.at(&["options"]), Some(&Tree::Null));
    let status = r#"{"status":{"phase":"Running"}}"#;
    assert_eq!(api.patch("merge", &format!("{PODS}/p/status"), status).await.line(), "200");
    assert_eq!(hooks.lines().pop().unwrap(), "UPDATE pods/status p");
}

#[tokio::test]
async fn selectors_and_scopes_choose() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| Some(deny(r#"{"message":"no"}"#))).await;
    let namespaced = config_maps().replacen('{', r#"{"scope":"Namespaced","#, 1);
    let by_namespace = r#","namespaceSelector":{"matchLabels":{"hooked":"yes"}}"#;
    let by_object = r#","objectSelector":{"matchExpressions":[{"key":"skip","operator":"DoesNotExist"}]}"#;
    configure(
        &api,
        VALIDATING,
        "v",
        &[hooks.webhook("v.example.com", "/", &namespaced, &format!("{by_namespace}{by_object}"))],
    )
    .await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("a", "")).await.line(), "201");
    api.patch("merge", "/api/v1/namespaces/default", r#"{"metadata":{"labels":{"hooked":"yes"}}}"#).await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("b", "")).await.status, 400);
    let skipped = r#"{"metadata":{"name":"c","labels":{"skip":"me"}}}"#;
    assert_eq!(api.post(CONFIG_MAPS, skipped).await.line(), "201");
    let cluster = rule(r#""*""#, "*", "*", r#""*""#).replacen('{', r#"{"scope":"Cluster","#, 1);
    configure(&api, VALIDATING, "w", &[hooks.webhook("w.example.com", "/", &cluster, "")]).await;
    assert_eq!(api.post("/api/v1/namespaces", r#"{"metadata":{"name":"n"}}"#).await.status, 400);
    assert_eq!(api.post(CONFIG_MAPS, r#"{"metadata":{"name":"d","labels":{"skip":"me"}}}"#).await.line(), "201");
}

#[tokio::test]
async fn the_configurations_themselves_are_not_asked_about() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| Some(deny(r#"{"message":"no"}"#))).await;
    let all = rule(r#""*""#, "*", "*", r#""*/*""#);
    configure(&api, VALIDATING, "v", &[hooks.webhook("v.example.com", "/", &all, "")]).await;
    configure(&api, MUTATING, "m", &[hooks.webhook("m.example.com", "/", &all, "")]).await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("a", "")).await.status, 400);
    assert_eq!(api.delete(&format!("{VALIDATING}/v")).await.line(), "200");
    assert_eq!(api.delete(&format!("{MUTATING}/m")).await.line(), "200");
    assert_eq!(api.post(CONFIG_MAPS, &config_map("a", "")).await.line(), "201");
}

#[tokio::test]
async fn dry_runs_reach_webhooks_without_side_effects_only() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| Some(allow())).await;
    let some = hooks.webhook("v.example.com", "/", &config_maps(), "").replace("\"None\"", "\"NoneOnDryRun\"");
    configure(&api, VALIDATING, "v", &[some]).await;
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    assert_eq!(api.post(&dry, &config_map("a", "")).await.line(), "201");
    assert_eq!(hooks.asked()[0].bool_at(&["dryRun"]), Some(true));
    // Validation takes no such configuration any more; one from before may still be stored.
    let collection = api.server.collection("admissionregistration.k8s.io", "validatingwebhookconfigurations");
    let stored = collection.get("", "v").await.unwrap().unwrap();
    let effects = String::from_utf8(stored.value.to_vec()).unwrap().replace("NoneOnDryRun", "Some");
    collection.replace("", "v", Bytes::from(effects), stored.revision, None).await.unwrap().unwrap();
    assert_eq!(
        api.post(&dry, &config_map("a", "")).await.line(),
        "400 BadRequest: admission webhook \"v.example.com\" does not support dry run"
    );
}

#[tokio::test]
async fn who_wants_to_is_asked_again_after_a_change() {
    let api = api().await;
    let hooks = Hooks::start(|path, request| {
        let has = |name: &str| request.at(&["object", "data"]).is_some_and(|data| data.get(name).is_some());
        let add = |name: &str| patch(&format!(r#"[{{"op":"add","path":"/data/{name}","value":"yes"}}]"#));
        Some(match path {
            "/a" if has("b") => add("seen-b"),
            "/b" if !has("b") => add("b"),
            _ => allow(),
        })
    })
    .await;
    let again = r#","reinvocationPolicy":"IfNeeded""#;
    let webhooks = [
        hooks.webhook("a.example.com", "/a", &config_maps(), again),
        hooks.webhook("b.example.com", "/b", &config_maps(), ""),
    ];
    configure(&api, MUTATING, "m", &webhooks).await;
    let made = api.post(CONFIG_MAPS, &config_map("c", r#""x":"y""#)).await;
    assert_eq!(made.at(&["data"]), r#"{"b":"yes","seen-b":"yes","x":"y"}"#);
    assert_eq!(hooks.asked().len(), 3);
}

#[tokio::test]
async fn equivalent_versions_are_converted() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| {
        Some(patch(r#"[{"op":"replace","path":"/spec/metrics/0/resource/target/averageUtilization","value":33}]"#))
    })
    .await;
    let second = rule(r#""CREATE""#, "autoscaling", "v2", r#""horizontalpodautoscalers""#);
    configure(&api, MUTATING, "m", &[hooks.webhook("m.example.com", "/", &second, "")]).await;
    let first = r#"{"metadata":{"name":"h"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":50,
        "scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}}"#;
    let made = api.post("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", first).await;
    assert_eq!(made.at(&["spec", "targetCPUUtilizationPercentage"]), "33", "{}", made.line());
    let asked = hooks.asked().remove(0);
    assert_eq!(asked.str_at(&["kind", "version"]), "v2");
    assert_eq!(asked.str_at(&["requestKind", "version"]), "v1");
    assert_eq!(asked.str_at(&["object", "apiVersion"]), "autoscaling/v2");
}

#[tokio::test]
async fn what_webhooks_add_is_defaulted_and_validated() {
    let api = api().await;
    let hooks = Hooks::start(|path, _| {
        Some(match path {
            "/container" => patch(r#"[{"op":"add","path":"/spec/initContainers","value":[{"name":"i","image":"i"}]}]"#),
            "/broken" => patch(r#"[{"op":"replace","path":"/spec/nothing/there","value":1}]"#),
            _ => patch(r#"[{"op":"replace","path":"/spec/restartPolicy","value":"Sometimes"}]"#),
        })
    })
    .await;
    let pods = rule(r#""CREATE""#, "", "v1", r#""pods""#);
    configure(&api, MUTATING, "m", &[hooks.webhook("m.example.com", "/container", &pods, "")]).await;
    let made = api.post(PODS, &pod("p")).await;
    let init = &made.tree().list_at(&["spec", "initContainers"])[0].clone();
    assert_eq!(init.str_at(&["terminationMessagePolicy"]), "File");
    assert_eq!(init.str_at(&["imagePullPolicy"]), "Always");
    api.delete(&format!("{MUTATING}/m")).await;
    configure(&api, MUTATING, "m", &[hooks.webhook("m.example.com", "/", &pods, "")]).await;
    let refused = api.post(PODS, &pod("q")).await.line();
    assert!(
        refused.starts_with("422 Invalid: Pod \"q\" is invalid: spec.restartPolicy: Unsupported value"),
        "{refused}"
    );
    api.delete(&format!("{MUTATING}/m")).await;
    configure(&api, MUTATING, "m", &[hooks.webhook("m.example.com", "/broken", &pods, "")]).await;
    let refused = api.post(PODS, &pod("q")).await.line();
    assert!(refused.starts_with("500 InternalError: Internal error occurred: "), "{refused}");
}

#[tokio::test]
async fn scales_bindings_and_evictions_are_what_they_are() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| Some(allow())).await;
    let all = rule(r#""*""#, "*", "*", r#""*/*""#);
    api.post(PODS, &pod("p")).await;
    api.post(crate::support::DEPLOYMENTS, &crate::support::deployment("d")).await;
    configure(&api, VALIDATING, "v", &[hooks.webhook("v.example.com", "/", &all, "")]).await;
    let scale = format!("{}/d/scale", crate::support::DEPLOYMENTS);
    assert_eq!(api.patch("merge", &scale, r#"{"spec":{"replicas":3}}"#).await.line(), "200");
    let binding = r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}"#;
    assert_eq!(api.post(&format!("{PODS}/p/binding"), binding).await.line(), "201");
    assert_eq!(api.post(&format!("{PODS}/p/eviction"), r#"{"metadata":{"name":"p"}}"#).await.line(), "201");
    let kinds: Vec<String> = hooks
        .asked()
        .iter()
        .map(|asked| {
            let object = asked.str_at(&["object", "kind"]);
            format!("{} {} {object}", asked.str_at(&["operation"]), asked.str_at(&["subResource"]))
        })
        .collect();
    assert_eq!(kinds, ["UPDATE scale Scale", "CREATE binding Binding", "CREATE eviction Eviction"]);
}

#[tokio::test]
async fn conditions_choose_by_what_is_written_and_by_whom() {
    let api = api().await;
    let hooks = Hooks::start(|_, _| Some(deny(r#"{"message":"no"}"#))).await;
    let conditions = r#","matchConditions":[{"name":"a","expression":"object.metadata.name != 'skip-me'"},
        {"name":"b","expression":"request.userInfo.username == 'tester'"}]"#;
    configure(&api, VALIDATING, "v", &[hooks.webhook("v.example.com", "/", &config_maps(), conditions)]).await;
    assert_eq!(api.post(CONFIG_MAPS, &config_map("skip-me", "")).await.line(), "201");
    assert_eq!(api.post(CONFIG_MAPS, &config_map("other", "")).await.status, 400);
    let other = api.as_user(skiff_api::UserInfo::new("other", &[]));
    assert_eq!(other.post(CONFIG_MAPS, &config_map("other", "")).await.line(), "201");
    let failing = r#","matchConditions":[{"name":"a","expression":"object.data.none == 'x'"}]"#;
    configure(&api, VALIDATING, "w", &[hooks.webhook("w.example.com", "/", &config_maps(), failing)]).await;
    let refused = other.post(CONFIG_MAPS, &config_map("third", "")).await.line();
    assert!(refused.starts_with("403 Forbidden: configmaps \"third\" is forbidden: "), "{refused}");
}

#[tokio::test]
async fn reviews_are_admitted_like_anything_that_is_created() {
    let api = api().await;
    let hooks = Hooks::start(|_, question| {
        let asked = question.str_at(&["object", "spec", "resourceAttributes", "resource"]);
        Some(if asked == "secrets" { deny(r#"{"message":"nobody asks about secrets"}"#) } else { allow() })
    });
    let hooks = hooks.await;
    let rule = rule(r#""CREATE""#, "authorization.k8s.io", "v1", r#""selfsubjectaccessreviews""#);
    configure(&api, VALIDATING, "v", &[hooks.webhook("v.example.com", "/", &rule, "")]).await;
    let ask =
        |resource: &str| format!(r#"{{"spec":{{"resourceAttributes":{{"verb":"get","resource":"{resource}"}}}}}}"#);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(api.post(path, &ask("pods")).await.line(), "201");
    let refused = api.post(path, &ask("secrets")).await.line();
    assert!(
        refused.ends_with("admission webhook \"v.example.com\" denied the request: nobody asks about secrets"),
        "{refused}"
    );
    // Policies are not asked, whatever they match.
    let policy = r#"{"metadata":{"name":"p"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":["*"],
        "apiVersions":["*"],"operations":["*"],"resources":["*"]}]},"validations":[{"expression":"false"}]}}"#;
    let group = "/apis/admissionregistration.k8s.io/v1";
    assert_eq!(api.post(&format!("{group}/validatingadmissionpolicies"), policy).await.line(), "201");
    let binding = r#"{"metadata":{"name":"b"},"spec":{"policyName":"p","validationActions":["Deny"]}}"#;
    assert_eq!(api.post(&format!("{group}/validatingadmissionpolicybindings"), binding).await.line(), "201");
    assert_eq!(api.post(path, &ask("pods")).await.line(), "201");
    assert_eq!(api.post("/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"c"}}"#).await.status, 422);
}
