//! Rows of tables, compared with what upstream prints.

use expect_test::{Expect, expect};
use skiff_object::time::Time;
use skiff_object::{Tree, json};

/// The row of an object one hour after 2026 began.
fn check(group: &str, version: &str, plural: &str, object: &str, want: Expect) {
    let kind = skiff_kinds::builtin().resource(group, version, plural).expect("a built-in resource");
    let object = json::decode_untyped(object.as_bytes()).expect("JSON");
    let cells = kind.row(&object, Time::parse("2026-01-01T01:00:00Z").expect("a time"));
    assert_eq!(cells.len(), kind.columns().len());
    let cells: Vec<String> = cells
        .iter()
        .map(|cell| match cell {
            Tree::Str(text) => text.to_string(),
            other => String::from_utf8(json::encode_untyped(other)).expect("UTF-8"),
        })
        .collect();
    want.assert_eq(&cells.join(" | "));
}

const META: &str = r#""metadata":{"name":"x","creationTimestamp":"2026-01-01T00:00:00Z"}"#;

fn pod(spec: &str, status: &str, want: Expect) {
    check("", "v1", "pods", &format!(r#"{{{META},"spec":{spec},"status":{status}}}"#), want);
}

#[test]
fn pods_are_summed_up_in_a_word() {
    let one = r#"{"nodeName":"n","containers":[{"name":"a"}]}"#;
    pod(one, r#"{"phase":"Pending"}"#, expect!["x | 0/1 | Pending | 0 | 60m | <none> | n | <none> | <none>"]);
    pod(
        one,
        r#"{"phase":"Running","podIPs":[{"ip":"10.0.0.1"}],"containerStatuses":[{"name":"a","ready":true,"restartCount":2,
            "state":{"running":{}},"lastState":{"terminated":{"finishedAt":"2026-01-01T00:55:00Z"}}}]}"#,
        expect!["x | 1/1 | Running | 2 (5m ago) | 60m | 10.0.0.1 | n | <none> | <none>"],
    );
    pod(
        one,
        r#"{"phase":"Running","containerStatuses":[{"name":"a","restartCount":1,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}"#,
        expect!["x | 0/1 | CrashLoopBackOff | 1 | 60m | <none> | n | <none> | <none>"],
    );
    pod(
        one,
        r#"{"phase":"Succeeded","containerStatuses":[{"name":"a","state":{"terminated":{"reason":"Completed"}}}]}"#,
        expect!["x | 0/1 | Completed | 0 | 60m | <none> | n | <none> | <none>"],
    );
    pod(
        one,
        r#"{"phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"exitCode":3}}}]}"#,
        expect!["x | 0/1 | ExitCode:3 | 0 | 60m | <none> | n | <none> | <none>"],
    );
}

#[test]
fn init_containers_show_how_far_they_are() {
    let two = r#"{"initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always"}],"containers":[{"name":"a"}]}"#;
    pod(
        two,
        r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}},{"name":"s"}]}"#,
        expect!["x | 0/2 | Init:0/2 | 0 | 60m | <none> | <none> | <none> | <none>"],
    );
    pod(
        two,
        r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":1}}}]}"#,
        expect!["x | 0/2 | Init:ExitCode:1 | 0 | 60m | <none> | <none> | <none> | <none>"],
    );
    pod(
        two,
        r#"{"phase":"Running","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":0}}},
            {"name":"s","started":true,"ready":true,"state":{"running":{}}}],
            "containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}}]}"#,
        expect!["x | 2/2 | Running | 0 | 60m | <none> | <none> | <none> | <none>"],
    );
}

#[test]
fn other_kinds_show_what_upstream_shows() {
    check(
        "apps",
        "v1",
        "deployments",
        &format!(
            r#"{{{META},"spec":{{"replicas":3,"selector":{{"matchLabels":{{"app":"web"}}}},"template":{{"spec":{{"containers":
            [{{"name":"a","image":"nginx"}},{{"name":"b","image":"sh"}}]}}}}}},"status":{{"readyReplicas":2,"updatedReplicas":3}}}}"#
        ),
        expect!["x | 2/3 | 3 | 0 | 60m | a,b | nginx,sh | app=web"],
    );
    check(
        "",
        "v1",
        "services",
        &format!(
            r#"{{{META},"spec":{{"type":"NodePort","clusterIP":"10.96.0.9","ports":[{{"port":80,"nodePort":30080,"protocol":"TCP"}}]}}}}"#
        ),
        expect!["x | NodePort | 10.96.0.9 | <none> | 80:30080/TCP | 60m | <none>"],
    );
    check(
        "",
        "v1",
        "nodes",
        &format!(
            r#"{{{META},"spec":{{"unschedulable":true}},"status":{{"conditions":[{{"type":"Ready","status":"True"}}],
            "addresses":[{{"type":"InternalIP","address":"10.89.0.2"}}],"nodeInfo":{{"kubeletVersion":"v1.36.0"}}}}}}"#
        ),
        expect![
            "x | Ready,SchedulingDisabled | <none> | 60m | v1.36.0 | 10.89.0.2 | <none> | <unknown> | <unknown> | <unknown>"
        ],
    );
    check(
        "batch",
        "v1",
        "jobs",
        &format!(
            r#"{{{META},"spec":{{"completions":1}},"status":{{"succeeded":1,"startTime":"2026-01-01T00:00:00Z",
            "completionTime":"2026-01-01T00:00:07Z","conditions":[{{"type":"Complete","status":"True"}}]}}}}"#
        ),
        expect!["x | Complete | 1/1 | 7s | 60m |  |  | <none>"],
    );
    check(
        "",
        "v1",
        "events",
        &format!(
            r#"{{{META},"involvedObject":{{"kind":"Pod","name":"p"}},"reason":"Started","type":"Normal","message":"up ",
            "eventTime":"2026-01-01T00:59:00Z","reportingComponent":"kubelet","reportingInstance":"n"}}"#
        ),
        expect!["60s | Normal | Started | pod/p |  | kubelet, n | up | 60s | 1 | x"],
    );
    check(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        &format!(
            r#"{{{META},"spec":{{"scaleTargetRef":{{"kind":"Deployment","name":"web"}},"minReplicas":1,"maxReplicas":3,"metrics":
            [{{"type":"Resource","resource":{{"name":"cpu","target":{{"type":"Utilization","averageUtilization":80}}}}}}]}}}}"#
        ),
        expect!["x | Deployment/web | cpu: <unknown>/80% | 1 | 3 | 0 | 60m"],
    );
}
