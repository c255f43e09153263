//! What kinds fill in, compared with what upstream answers.

use expect_test::{Expect, expect};
use skiff_kinds::Kind;
use skiff_object::{Tree, json};

fn kind(group: &str, version: &str, plural: &str) -> &'static dyn Kind {
    skiff_kinds::builtin().resource(group, version, plural).expect("a built-in resource").as_ref()
}

fn tree(text: &str) -> Tree {
    json::decode_untyped(text.as_bytes()).expect("JSON")
}

fn check(group: &str, version: &str, plural: &str, object: &str, want: Expect) {
    let kind = kind(group, version, plural);
    let mut object = tree(object);
    kind.default(&mut object);
    want.assert_eq(&String::from_utf8(json::encode_untyped(&object)).expect("UTF-8"));
}

#[test]
fn a_second_run_changes_nothing_for_any_kind() {
    for kind in skiff_kinds::builtin().iter() {
        for object in [r#"{"metadata":{"name":"x"}}"#, r#"{"metadata":{"name":"x"},"spec":{"type":"LoadBalancer"}}"#] {
            let mut once = tree(object);
            kind.default(&mut once);
            let mut twice = once.clone();
            kind.default(&mut twice);
            assert_eq!(once, twice, "{}", kind.facts().plural.as_str());
        }
    }
}

#[test]
fn nothing_panics_on_objects_of_the_wrong_shape() {
    let shapes = ["1", "[]", "null", "\"x\"", "{}", "[1]", "[{}]", "{\"spec\":1}", "[[null]]"];
    for kind in skiff_kinds::builtin().iter() {
        for spec in shapes {
            for object in [
                format!(
                    r#"{{"metadata":{{"name":"x"}},"spec":{spec},"status":{spec},"subjects":{spec},"webhooks":{spec}}}"#
                ),
                format!(
                    r#"{{"spec":{{"template":{spec},"ports":{spec},"selector":{spec},"strategy":{spec},"containers":{spec}}}}}"#
                ),
            ] {
                let mut object = tree(&object);
                let old = object.clone();
                kind.default(&mut object);
                kind.prepare_create(&mut object);
                kind.prepare_update(&mut object, &old);
                kind.validate_create(&object);
                kind.validate_update(&object, &old);
                let cells = kind.row(&object, skiff_object::time::Time::default());
                assert_eq!(cells.len(), kind.columns().len(), "{}", kind.facts().plural.as_str());
            }
        }
    }
}

#[test]
fn a_deployment_gets_its_strategy_and_its_template_filled_in() {
    check(
        "apps",
        "v1",
        "deployments",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"nginx","ports":[{"containerPort":80}],
            "readinessProbe":{"httpGet":{"port":80}},"resources":{"limits":{"cpu":"1"}}}]}}}}"#,
        expect![[
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"nginx","ports":[{"containerPort":80,"protocol":"TCP"}],"readinessProbe":{"httpGet":{"port":80,"path":"/","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"resources":{"limits":{"cpu":"1"}},"imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","securityContext":{},"terminationGracePeriodSeconds":30,"schedulerName":"default-scheduler"}},"replicas":1,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600}}"#
        ]],
    );
}

#[test]
fn a_pod_requests_what_it_is_limited_to() {
    check(
        "",
        "v1",
        "pods",
        r#"{"spec":{"serviceAccount":"robot","volumes":[{"name":"v"},{"name":"s","secret":{}}],
            "containers":[{"name":"a","image":"nginx:1","resources":{"limits":{"cpu":"1","memory":"100.5m"}}}]}}"#,
        expect![[
            r#"{"spec":{"serviceAccount":"robot","volumes":[{"name":"v","emptyDir":{}},{"name":"s","secret":{"defaultMode":420}}],"containers":[{"name":"a","image":"nginx:1","resources":{"limits":{"cpu":"1","memory":"101m"},"requests":{"cpu":"1","memory":"101m"}},"imagePullPolicy":"IfNotPresent","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","securityContext":{},"terminationGracePeriodSeconds":30,"schedulerName":"default-scheduler","serviceAccountName":"robot","enableServiceLinks":true}}"#
        ]],
    );
}

#[test]
fn a_service_gets_ports_and_policies() {
    check(
        "",
        "v1",
        "services",
        r#"{"spec":{"type":"NodePort","ports":[{"port":80},{"port":81,"targetPort":"web"}]}}"#,
        expect![[
            r#"{"spec":{"type":"NodePort","ports":[{"port":80,"protocol":"TCP","targetPort":80},{"port":81,"targetPort":"web","protocol":"TCP"}],"sessionAffinity":"None","externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster"}}"#
        ]],
    );
}

#[test]
fn a_job_selects_its_own_pods() {
    let kind = kind("batch", "v1", "jobs");
    let mut job = tree(r#"{"metadata":{"name":"j","uid":"u"},"spec":{"template":{"spec":{}}}}"#);
    kind.prepare_create(&mut job);
    expect![[r#"{"metadata":{"name":"j","uid":"u","generation":1},"spec":{"template":{"spec":{},"metadata":{"labels":{"job-name":"j","batch.kubernetes.io/job-name":"j","controller-uid":"u","batch.kubernetes.io/controller-uid":"u"}}},"selector":{"matchLabels":{"batch.kubernetes.io/controller-uid":"u"}}}}"#]].assert_eq(&String::from_utf8(json::encode_untyped(&job)).expect("UTF-8"));
}

#[test]
fn secrets_keep_plain_text_as_data() {
    check(
        "",
        "v1",
        "secrets",
        r#"{"stringData":{"a":"b"},"data":{"c":"ZA=="}}"#,
        expect![[r#"{"data":{"c":"ZA==","a":"Yg=="},"type":"Opaque"}"#]],
    );
}
