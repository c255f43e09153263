//! Priority and fairness, as clients see it.

use std::time::Duration;

use http::{Method, StatusCode};
use skiff_api::UserInfo;

use crate::support::{Api, CONFIG_MAPS, api, api_of};

const FLOW_SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

/// Asks until `is` holds; the server's own task is what is waited for.
async fn until(api: &Api, path: &str, at: &[&str], is: impl Fn(&str) -> bool) -> String {
    let wait = async {
        loop {
            let value = api.get(path).await.at(at);
            if is(&value) {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("it never came to be")
}

#[tokio::test]
async fn every_cluster_has_upstreams_objects_and_they_are_not_dangling() {
    let api = api().await;
    let names = |list: &skiff_object::Tree| -> Vec<String> {
        list.list_at(&["items"]).iter().map(|item| item.str_at(&["metadata", "name"]).to_owned()).collect()
    };
    assert_eq!(
        names(&api.get(LEVELS).await.tree()),
        [
            "catch-all",
            "exempt",
            "global-default",
            "leader-election",
            "node-high",
            "system",
            "workload-high",
            "workload-low"
        ]
    );
    let schemas = api.get(FLOW_SCHEMAS).await.tree();
    assert_eq!(names(&schemas).len(), 11);
    for schema in schemas.list_at(&["items"]) {
        assert_eq!(schema.str_at(&["metadata", "annotations", "apf.kubernetes.io/autoupdate-spec"]), "true");
        let condition = &schema.list_at(&["status", "conditions"])[0];
        assert_eq!(condition.str_at(&["type"]), "Dangling");
        assert_eq!(condition.str_at(&["status"]), "False");
    }
}

#[tokio::test]
async fn an_answer_says_its_schema_and_level_even_when_it_is_an_error() {
    let api = api().await.as_user(UserInfo::new("alice", &["system:authenticated"]));
    let uid = api.get(&format!("{FLOW_SCHEMAS}/global-default")).await.at(&["metadata", "uid"]);
    let level = api.get(&format!("{LEVELS}/global-default")).await.at(&["metadata", "uid"]);
    for path in ["/api/v1/namespaces/default", "/api/v1/namespaces/nothing", "/api"] {
        let answer = api.get(path).await;
        assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], uid.as_str(), "{path}");
        assert_eq!(answer.headers["x-kubernetes-pf-prioritylevel-uid"], level.as_str(), "{path}");
    }
}

#[tokio::test]
async fn a_schema_without_its_level_says_so_and_a_new_level_is_used_at_once() {
    let api = api().await;
    let schema = r#"{"metadata":{"name":"mine"},"spec":{"matchingPrecedence":50,
        "priorityLevelConfiguration":{"name":"mine"},"rules":[{"subjects":[{"kind":"User","user":{"name":"alice"}}],
        "resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"namespaces":["*"]}]}]}}"#;
    assert_eq!(api.post(FLOW_SCHEMAS, schema).await.status, StatusCode::CREATED);
    let path = format!("{FLOW_SCHEMAS}/mine");
    let status = until(&api, &path, &["status", "conditions"], |text| text.contains("\"True\"")).await;
    assert!(
        status.contains(
            r#"This FlowSchema references the PriorityLevelConfiguration object named \"mine\" but there is no such object"#
        ),
        "{status}"
    );
    let alice = api.as_user(UserInfo::new("alice", &["system:authenticated"]));
    let level = r#"{"metadata":{"name":"mine"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":1,
        "limitResponse":{"type":"Reject"}}}}"#;
    assert_eq!(api.post(LEVELS, level).await.status, StatusCode::CREATED);
    until(&api, &path, &["status", "conditions"], |text| text.contains("\"False\"")).await;
    let uid = api.get(&path).await.at(&["metadata", "uid"]);
    assert_eq!(alice.get(CONFIG_MAPS).await.headers["x-kubernetes-pf-flowschema-uid"], uid.as_str());
    // Path requests are not the schema's.
    assert_ne!(alice.get("/api").await.headers["x-kubernetes-pf-flowschema-uid"], uid.as_str());
}

#[tokio::test]
async fn what_the_server_keeps_comes_back_and_what_is_marked_otherwise_stays() {
    let api = api().await;
    let catch_all = format!("{FLOW_SCHEMAS}/catch-all");
    let before = api.get(&catch_all).await.at(&["metadata", "uid"]);
    assert_eq!(api.delete(&catch_all).await.status, StatusCode::OK);
    until(&api, &catch_all, &["metadata", "uid"], |uid| uid != "-" && uid != before).await;
    let level = format!("{LEVELS}/workload-low");
    let shares = ["spec", "limited", "nominalConcurrencyShares"];
    api.patch("merge", &level, r#"{"spec":{"limited":{"nominalConcurrencyShares":7}}}"#).await;
    until(&api, &level, &shares, |shares| shares == "100").await;
    let mine = r#"{"metadata":{"annotations":{"apf.kubernetes.io/autoupdate-spec":"false"}},
        "spec":{"limited":{"nominalConcurrencyShares":7}}}"#;
    api.patch("merge", &level, mine).await;
    // Something later that is kept shows that the task has been there.
    let other = format!("{LEVELS}/system");
    api.patch("merge", &other, r#"{"spec":{"limited":{"nominalConcurrencyShares":7}}}"#).await;
    until(&api, &other, &shares, |shares| shares == "30").await;
    assert_eq!(api.get(&level).await.at(&shares), "7");
}

#[tokio::test]
async fn when_there_are_no_seats_the_answer_is_429_and_masters_still_get_in() {
    let api = api_of(|mut config| {
        config.flow_control.enabled = false;
        config.limits.inflight_max = 1;
        config.limits.mutating_inflight_max = 1;
        config
    })
    .await;
    let alice = api.as_user(UserInfo::new("alice", &["system:authenticated"]));
    // A list that waits for a revision that never comes holds the only seat.
    let path = format!("{CONFIG_MAPS}?resourceVersion=999999&timeout=3s");
    let holding = async { alice.get(&path).await };
    let asking = async {
        loop {
            let answer = alice.get(CONFIG_MAPS).await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::pin!(holding);
    let refused = tokio::select! {
        biased;
        _ = &mut holding => panic!("the seat was given back too early"),
        refused = asking => refused,
    };
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body, "Too many requests, please try again later.\n");
    assert_eq!(api.get(CONFIG_MAPS).await.status, StatusCode::OK);
    assert_eq!(
        api.send(Method::POST, CONFIG_MAPS, &[("content-type", "application/json")], br#"{"metadata":{"name":"a"}}"#)
            .await
            .status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn dumps_and_metrics_tell_what_happened() {
    let api = api().await;
    let alice = api.as_user(UserInfo::new("alice", &["system:authenticated"]));
    alice.get(CONFIG_MAPS).await;
    let levels = api.get("/debug/api_priority_and_fairness/dump_priority_levels").await;
    let text = String::from_utf8(levels.body.to_vec()).unwrap();
    assert!(text.starts_with("PriorityLevelName, ActiveQueues, IsIdle,"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("global-default,") && line.contains("true,")), "{text}");
    for dump in ["dump_queues", "dump_requests"] {
        assert_eq!(api.get(&format!("/debug/api_priority_and_fairness/{dump}")).await.status, StatusCode::OK);
    }
    assert_eq!(api.get("/debug/api_priority_and_fairness/dump_other").await.status, StatusCode::NOT_FOUND);
    let metrics = String::from_utf8(api.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        r#"apiserver_flowcontrol_dispatched_requests_total{flow_schema="global-default",priority_level="global-default"} 1"#,
        r#"apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-low"} 245"#,
        r#"apiserver_flowcontrol_current_executing_seats{flow_schema="exempt",priority_level="exempt"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}
