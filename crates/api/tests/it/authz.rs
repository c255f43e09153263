//! Who may grant what to whom.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;
use skiff_api::Config;
use skiff_api::authn::UserInfo;
use skiff_api::authz::Authorizer;
use skiff_api::authz::rbac::Rbac;
use skiff_api::authz::union::Union;
use skiff_api::authz::webhook::{self, WebhookAuthorizer};
use skiff_api::outbound::{Address, Outbound, Target, Trust, Way};
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_store::Store;
use skiff_store::memory::MemoryStore;

use crate::remote::{Remote, answering};
use crate::support::{Api, api_of};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn cluster() -> Api {
    let clock = Clock::system();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
    let tasks = Tasks::new("authorizers", Shutdown::new());
    let rbac = Rbac::start(Arc::clone(&store), "test", clock, &tasks).await.unwrap();
    api_of(|config| Config { store, authorizer: rbac, ..config }).await
}

fn role(name: &str, rules: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}"}},"rules":[{rules}]}}"#)
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}"}},"roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"{kind}",
        "name":"{role}"}},"subjects":[{{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"{user}"}}]}}"#
    )
}

/// Waits until `user` may do something: the authorizer follows the store.
async fn until_allowed(api: &Api, verb: &str, group: &str, resource: &str) {
    let review = format!(
        r#"{{"spec":{{"resourceAttributes":{{"namespace":"team","verb":"{verb}","group":"{group}",
        "resource":"{resource}"}}}}}}"#
    );
    for _ in 0..1_000 {
        let answer = api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await;
        if answer.at(&["status", "allowed"]) == "true" {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never allowed to {verb} {resource}");
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let api = cluster().await;
    api.post("/api/v1/namespaces", r#"{"metadata":{"name":"team"}}"#).await;
    let bindings = format!("{RBAC}/namespaces/team/rolebindings");
    assert_eq!(api.post(&bindings, &binding("admins", "ClusterRole", "admin", "jane")).await.line(), "201");
    let jane = api.as_user(UserInfo::new("jane", &["devs"]));
    until_allowed(&jane, "create", "rbac.authorization.k8s.io", "roles").await;
    let roles = format!("{RBAC}/namespaces/team/roles");
    let held = role("reader", r#"{"apiGroups":[""],"resources":["pods"],"verbs":["get","list"]}"#);
    assert_eq!(jane.post(&roles, &held).await.line(), "201");
    let more = role("more", r#"{"apiGroups":[""],"resources":["nodes","pods"],"verbs":["get","bind"]}"#);
    assert_eq!(
        jane.post(&roles, &more).await.line(),
        "403 Forbidden: roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"devs\" \
         \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"bind\"]}\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"bind\"]}"
    );
    // Neither by changing a role that is there.
    let wider = role("reader", r#"{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}"#);
    let refused = jane.put(&format!("{roles}/reader"), &wider).await.line();
    assert!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    // Nor by a binding.
    assert_eq!(jane.post(&bindings, &binding("b", "ClusterRole", "edit", "bob")).await.line(), "201");
    let refused = jane.post(&bindings, &binding("c", "ClusterRole", "cluster-admin", "bob")).await.line();
    assert!(refused.contains("attempting to grant RBAC permissions not currently held"), "{refused}");
    assert_eq!(
        jane.post(&bindings, &binding("d", "ClusterRole", "gone", "bob")).await.line(),
        "404 NotFound: clusterroles.rbac.authorization.k8s.io \"gone\" not found"
    );
}

#[tokio::test]
async fn escalate_and_bind_are_rights_of_their_own() {
    let api = cluster().await;
    api.post("/api/v1/namespaces", r#"{"metadata":{"name":"team"}}"#).await;
    let power = role(
        "power",
        r#"{"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles","rolebindings","clusterroles"],
        "verbs":["create","update","escalate","bind"]}"#,
    );
    assert_eq!(api.post(&format!("{RBAC}/namespaces/team/roles"), &power).await.line(), "201");
    let bindings = format!("{RBAC}/namespaces/team/rolebindings");
    assert_eq!(api.post(&bindings, &binding("power", "Role", "power", "jane")).await.line(), "201");
    let jane = api.as_user(UserInfo::new("jane", &[]));
    until_allowed(&jane, "escalate", "rbac.authorization.k8s.io", "roles").await;
    let all = role("all", r#"{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}"#);
    assert_eq!(jane.post(&format!("{RBAC}/namespaces/team/roles"), &all).await.line(), "201");
    assert_eq!(jane.post(&bindings, &binding("a", "ClusterRole", "cluster-admin", "bob")).await.line(), "201");
}

#[tokio::test]
async fn reviews_answer_for_others_with_selectors_and_in_one_namespace() {
    let api = cluster().await;
    let sar = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = |user: &str| {
        format!(
            r#"{{"spec":{{"user":"{user}","groups":["system:authenticated"],"resourceAttributes":{{"verb":"list",
            "resource":"pods","fieldSelector":{{"requirements":[{{"key":"spec.nodeName","operator":"In",
            "values":["n1"]}}]}}}}}}}}"#
        )
    };
    let refused = api.post(sar, &ask("jane")).await;
    assert_eq!((refused.line(), refused.at(&["status", "allowed"])), ("201".into(), "false".into()));
    let scheduler = api.post(sar, &ask("system:kube-scheduler")).await;
    assert_eq!(scheduler.at(&["status", "allowed"]), "true");
    assert_eq!(
        scheduler.at(&["status", "reason"]),
        "RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \"system:kube-scheduler\" to User \
         \"system:kube-scheduler\""
    );
    let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let elsewhere =
        r#"{"spec":{"user":"x","resourceAttributes":{"namespace":"other","verb":"get","resource":"pods"}}}"#;
    assert_eq!(api.post(local, elsewhere).await.status, 400);
}

#[tokio::test]
async fn a_webhook_decides_and_its_answers_are_remembered() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let remote = Remote::start(
        &["127.0.0.1"],
        answering(move |request: Request<Bytes>| {
            let review: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
            let spec = &review["spec"];
            log.lock().push(spec.to_string());
            let status = match spec["resourceAttributes"]["verb"].as_str() {
                Some("get") => serde_json::json!({"allowed": true, "reason": "because"}),
                Some("list") => serde_json::json!({"allowed": false, "denied": true, "reason": "never"}),
                _ => serde_json::json!({"allowed": false}),
            };
            Response::new(Bytes::from(serde_json::json!({"status": status}).to_string()))
        }),
    )
    .await;
    let trust = Trust::Authorities(remote.authority.clone().into_bytes());
    let target = Target { trust, ..Target::new(Address::Url(format!("https://{}/authorize", remote.address))) };
    let settings = webhook::Settings::new("test", target);
    let way = Way {
        dialer: None,
        collections: None,
        random: Random::seeded(1),
        clock: Clock::system(),
        tasks: Tasks::new("outbound", Shutdown::new()),
    };
    let webhook = WebhookAuthorizer::new(settings, Arc::new(Outbound::new(way)), Clock::system());
    let union = Union::new(vec![Arc::new(webhook) as Arc<dyn Authorizer>]);
    let api = api_of(|config| Config { authorizer: Arc::new(union), ..config }).await;
    let jane = api.as_user(UserInfo::new("jane", &["devs"]));
    for _ in 0..3 {
        assert_eq!(jane.get("/api/v1/namespaces/default").await.line(), "200");
    }
    assert_eq!(
        *asked.lock(),
        [
            r#"{"groups":["devs","system:authenticated"],"resourceAttributes":{"name":"default","namespace":"default","resource":"namespaces","verb":"get","version":"v1"},"user":"jane"}"#
        ]
    );
    let denied = jane.get("/api/v1/namespaces/default/pods?labelSelector=a%20in%20(b,c)").await.line();
    assert!(denied.ends_with("in the namespace \"default\": never"), "{denied}");
    assert!(
        asked.lock()[1]
            .contains(r#""labelSelector":{"requirements":[{"key":"a","operator":"In","values":["b","c"]}]}"#)
    );
    assert_eq!(jane.get("/metrics").await.status, 403);
}

#[tokio::test]
async fn a_changed_configuration_of_authorizers_is_taken_over() {
    use skiff_api::authz::changing::Changing;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authorization.yaml");
    let write = |authorizers: &str| {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n";
        std::fs::write(&path, format!("{head}{authorizers}")).unwrap();
    };
    write("- {type: RBAC, name: rbac}\n");
    let store = Arc::new(skiff_store::memory::MemoryStore::new(skiff_base::Clock::system()));
    let tasks = skiff_base::Tasks::new("authorizers", skiff_base::Shutdown::new());
    let way = skiff_api::outbound::Way {
        dialer: None,
        collections: None,
        random: skiff_base::Random::seeded(1),
        clock: skiff_base::Clock::system(),
        tasks: tasks.clone(),
    };
    let with = skiff_api::authz::config::Building {
        store: store.clone(),
        cluster: "test".into(),
        outbound: Arc::new(skiff_api::outbound::Outbound::new(way)),
        clock: skiff_base::Clock::system(),
        tasks: tasks.clone(),
    };
    let none: fn(&str) -> Result<skiff_api::outbound::Target, String> = |_| Err("no kubeconfig here".into());
    let changing = Changing::start(path.clone(), none, with).await.unwrap();
    let authorizer = Arc::clone(&changing);
    let api = crate::support::api_over(store, |config| skiff_api::Config { authorizer, ..config }).await;
    let jane = api.as_user(skiff_api::UserInfo::new("jane", &["system:authenticated"]));
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(jane.get(maps).await.status, 403);
    write("- {type: RBAC, name: rbac}\n- {type: AlwaysAllow, name: all}\n");
    changing.reload().await.unwrap();
    assert_eq!(jane.get(maps).await.line(), "200");
    // One that is no good changes nothing, and neither does one that is gone.
    write("- {type: Nonsense, name: x}\n");
    assert!(changing.reload().await.unwrap_err().to_string().contains("Unsupported value: \"Nonsense\""));
    std::fs::remove_file(&path).unwrap();
    changing.reload().await.unwrap_err();
    assert_eq!(jane.get(maps).await.line(), "200");
    write("- {type: AlwaysDeny, name: nothing}\n");
    changing.reload().await.unwrap();
    assert_eq!(jane.get(maps).await.status, 403);
    let page = tasks.metrics().text();
    let reloads = "apiserver_authorization_config_controller_automatic_reloads_total";
    assert!(page.contains(&format!("{reloads}{{status=\"success\"}} 2")), "{page}");
    assert!(page.contains(&format!("{reloads}{{status=\"failure\"}} 2")), "{page}");
}
