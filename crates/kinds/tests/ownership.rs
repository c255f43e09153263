//! Field ownership over the real types, compared key by key with what upstream notes.

use skiff_kinds::Kind;
use skiff_object::managed::set::FieldSet;
use skiff_object::managed::versions::OnePath;
use skiff_object::managed::{self, ApplyError, Request};
use skiff_object::patch::strategic;
use skiff_object::time::Time;
use skiff_object::{Tree, json};

fn kind(group: &str, plural: &str) -> &'static dyn Kind {
    skiff_kinds::builtin().resource(group, "v1", plural).expect("a built-in resource").as_ref()
}

fn tree(text: &str) -> Tree {
    json::decode_untyped(text.as_bytes()).expect("JSON")
}

fn request<'a>(kind: &'a dyn Kind, manager: &'a str, reset: &'a FieldSet) -> Request<'a> {
    Request {
        schema: kind.schema(),
        ty: kind.facts().ty,
        api_version: kind.facts().api_version.as_str(),
        kind: kind.facts().kind.as_str(),
        subresource: "",
        reset,
        versions: &OnePath,
        manager,
        now: Time::parse("2026-01-01T00:00:00Z").expect("a time"),
    }
}

fn created(kind: &dyn Kind, text: &str) -> Tree {
    let mut object = tree(text);
    kind.default(&mut object);
    let reset = FieldSet::of_fields(&[&["status"]]);
    managed::update(&request(kind, "kubectl-create", &reset), None, &mut object).expect("one version");
    object
}

/// The fields that the creator of an object owns.
fn owns(group: &str, plural: &str, text: &str, want: &str) {
    let object = created(kind(group, plural), text);
    let entry = &object.list_at(&["metadata", "managedFields"])[0];
    let (got, want) = (entry.get("fieldsV1").expect("fields"), tree(want));
    assert_eq!(*got, want, "{}", String::from_utf8_lossy(&json::encode_untyped(got)));
}

const WEB: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"app":"web"}},"spec":{"replicas":1,
    "selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},
    "spec":{"containers":[{"name":"nginx","image":"nginx:1","resources":{}}]}}}}"#;

#[test]
fn creators_own_what_upstream_says_they_own() {
    owns(
        "apps",
        "deployments",
        WEB,
        r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},
            "f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},
            "f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},
            "f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"nginx\"}":
            {".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:resources":{},"f:terminationMessagePath":{},
            "f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{},
            "f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}}}"#,
    );
    owns(
        "",
        "services",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"ports":[{"port":80}],"selector":{"app":"web"}}}"#,
        r#"{"f:spec":{"f:internalTrafficPolicy":{},"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{},
            "f:protocol":{},"f:targetPort":{}}},"f:selector":{},"f:sessionAffinity":{},"f:type":{}}}"#,
    );
    owns(
        "",
        "configmaps",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"b"}}"#,
        r#"{"f:data":{".":{},"f:a":{}}}"#,
    );
    owns(
        "",
        "namespaces",
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"}}"#,
        r#"{"f:metadata":{"f:labels":{".":{},"f:kubernetes.io/metadata.name":{}}}}"#,
    );
}

#[test]
fn an_apply_conflicts_with_who_set_the_field_and_keeps_the_rest() {
    let deployments = kind("apps", "deployments");
    let live = created(deployments, WEB);
    let reset = FieldSet::of_fields(&[&["status"]]);
    let config = tree(
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":3,"template":{"spec":
            {"containers":[{"name":"nginx","image":"nginx:1","ports":[{"containerPort":80}]},{"name":"side","image":"sh"}]}}}}"#,
    );
    let me = request(deployments, "me", &reset);
    let error = managed::apply(&me, Some(&live), &config, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "kubectl-create" using apps/v1: .spec.replicas"#
    );
    assert!(matches!(error, ApplyError::Conflict(_)));
    let mut applied = managed::apply(&me, Some(&live), &config, true).expect("forced");
    let containers = applied.list_at(&["spec", "template", "spec", "containers"]);
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[0].str_at(&["terminationMessagePath"]), "/dev/termination-log");
    let mine = FieldSet::decode(applied.list_at(&["metadata", "managedFields"])[0].get("fieldsV1").expect("fields"));
    assert_eq!(
        mine.expect("fields").paths().join(" "),
        concat!(
            ".spec.replicas .spec.template.spec.containers[name=\"nginx\"] .spec.template.spec.containers[name=\"side\"] ",
            ".spec.template.spec.containers[name=\"nginx\"].image .spec.template.spec.containers[name=\"nginx\"].name ",
            ".spec.template.spec.containers[name=\"nginx\"].ports[containerPort=80,protocol=\"TCP\"] ",
            ".spec.template.spec.containers[name=\"nginx\"].ports[containerPort=80,protocol=\"TCP\"].containerPort ",
            ".spec.template.spec.containers[name=\"side\"].image .spec.template.spec.containers[name=\"side\"].name"
        )
    );
    // The defaults that the server fills in afterwards belong to nobody, and a second apply is none.
    deployments.default(&mut applied);
    let again = managed::apply(&me, Some(&applied), &config, false).expect("no conflict");
    assert_eq!(again, applied);
    // What is not applied any more goes; what others own stays.
    let less = tree(r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":3}}"#);
    let less = managed::apply(&me, Some(&again), &less, false).expect("no conflict");
    let containers = less.list_at(&["spec", "template", "spec", "containers"]);
    assert_eq!(containers.len(), 1, "{containers:?}");
    assert_eq!(containers[0].get("ports"), None);
    assert_eq!(containers[0].str_at(&["image"]), "nginx:1");
}

#[test]
fn strategic_merge_knows_the_lists_of_pods() {
    let deployments = kind("apps", "deployments");
    let mut live = tree(WEB);
    deployments.default(&mut live);
    let patch = tree(
        r#"{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"side"},{"name":"nginx"}],"containers":[
            {"name":"side","image":"sh"},{"name":"nginx","image":"nginx:2","ports":[{"containerPort":80}]}]}},
            "strategy":{"$retainKeys":["type"],"type":"Recreate"}}}"#,
    );
    let merged = strategic::apply(live, patch, deployments.schema(), deployments.facts().ty).expect("applies");
    let names: Vec<&str> = merged
        .list_at(&["spec", "template", "spec", "containers"])
        .iter()
        .map(|container| container.str_at(&["name"]))
        .collect();
    assert_eq!(names, ["side", "nginx"]);
    assert_eq!(merged.at(&["spec", "strategy"]), Some(&tree(r#"{"type":"Recreate"}"#)));
    assert_eq!(
        merged.list_at(&["spec", "template", "spec", "containers"])[1].str_at(&["imagePullPolicy"]),
        "IfNotPresent"
    );
}
