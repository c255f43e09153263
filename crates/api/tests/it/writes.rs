//! Create, update, patch, delete: what is stored and what is answered.

use http::Method;

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, PODS, api, deployment, pod};

#[tokio::test]
async fn create_fills_in_and_answers_with_the_object() {
    let api = api().await;
    let made = api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"},"data":{"x":"y"}}"#).await;
    assert_eq!(made.line(), "201");
    assert_eq!(made.at(&["kind"]), "ConfigMap");
    assert_eq!(made.at(&["metadata", "namespace"]), "default");
    assert_eq!(made.at(&["metadata", "uid"]).len(), 36);
    let read = api.get(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(read.body, made.body);
    assert_eq!(
        api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"}}"#).await.line(),
        "409 AlreadyExists: configmaps \"a\" already exists"
    );
}

#[tokio::test]
async fn generated_names_end_in_five_characters() {
    let api = api().await;
    let made = api.post(CONFIG_MAPS, r#"{"metadata":{"generateName":"a-"}}"#).await;
    assert_eq!(made.at(&["metadata", "name"]).len(), 7);
}

#[tokio::test]
async fn bad_bodies_are_refused_in_upstreams_words() {
    let api = api().await;
    let check = async |path: &str, body: &str, expected: &str| {
        assert_eq!(api.post(path, body).await.line(), expected, "{body}");
    };
    check(
        CONFIG_MAPS,
        r#"{"metadata":{"name":"A"}}"#,
        "422 Invalid: ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 \
         subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an \
         alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
    .await;
    check(
        CONFIG_MAPS,
        "{}",
        "422 Invalid: ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
    )
    .await;
    check(
        CONFIG_MAPS,
        r#"{"metadata":{"name":"a","namespace":"b"}}"#,
        "400 BadRequest: the namespace of the provided object does not match the namespace sent on the request",
    )
    .await;
    check(
        CONFIG_MAPS,
        r#"{"metadata":{"name":"a","resourceVersion":"5"}}"#,
        "400 BadRequest: resourceVersion should not be set on objects to be created",
    )
    .await;
    check(
        CONFIG_MAPS,
        r#"{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"a"}}"#,
        "400 BadRequest: the API version in the data (v2) does not match the expected API version (v1)",
    )
    .await;
    check(
        "/api/v1/namespaces/none/configmaps",
        r#"{"metadata":{"name":"a"}}"#,
        "404 NotFound: namespaces \"none\" not found",
    )
    .await;
    check(
        "/api/v1/configmaps",
        r#"{"metadata":{"name":"a"}}"#,
        "405 MethodNotAllowed: the server does not allow this method on the requested resource",
    )
    .await;
    let huge = "x".repeat(3 * 1024 * 1024 + 1);
    check(CONFIG_MAPS, &huge, "413 RequestEntityTooLarge: Request entity too large: limit is 3145728").await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(api.post(CONFIG_MAPS, &deep).await.status, 400);
    let text = api.send(Method::POST, CONFIG_MAPS, &[("content-type", "text/plain")], b"{}").await;
    assert_eq!(
        text.line(),
        "415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
}

#[tokio::test]
async fn unknown_fields_warn_fail_or_go_unnoticed() {
    let api = api().await;
    let body = r#"{"metadata":{"name":"a"},"nope":1,"data":{"a":"b"},"data":{"c":"d"}}"#;
    let strict = api.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), body).await;
    assert_eq!(
        strict.line(),
        "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"nope\", duplicate field \"data\""
    );
    let warned = api.post(CONFIG_MAPS, body).await;
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(warnings, ["299 - \"unknown field \\\"nope\\\"\"", "299 - \"duplicate field \\\"data\\\"\""]);
    let ignored = api.post(&format!("{CONFIG_MAPS}?fieldValidation=Ignore"), &body.replace("\"a\"}", "\"b\"}")).await;
    assert!(!ignored.headers.contains_key("warning"));
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let api = api().await;
    let made = api.post(&format!("{CONFIG_MAPS}?dryRun=All"), r#"{"metadata":{"name":"a"}}"#).await;
    assert_eq!((made.line().as_str(), made.at(&["metadata", "resourceVersion"]).as_str()), ("201", "-"));
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a")).await.line(), "404 NotFound: configmaps \"a\" not found");
}

#[tokio::test]
async fn updates_need_the_current_version_or_none() {
    let api = api().await;
    let path = format!("{CONFIG_MAPS}/a");
    let made = api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"}}"#).await;
    let version = made.at(&["metadata", "resourceVersion"]);
    let body = format!(r#"{{"metadata":{{"name":"a","resourceVersion":"{version}"}},"data":{{"x":"1"}}}}"#);
    assert_eq!(api.put(&path, &body).await.line(), "200");
    assert_eq!(
        api.put(&path, &body).await.line(),
        "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply \
         your changes to the latest version and try again"
    );
    let first = api.put(&path, r#"{"metadata":{"name":"a"},"data":{"x":"2"}}"#).await;
    let second = api.put(&path, r#"{"metadata":{"name":"a"},"data":{"x":"2"}}"#).await;
    assert_eq!(
        first.at(&["metadata", "resourceVersion"]),
        second.at(&["metadata", "resourceVersion"]),
        "no change, no write"
    );
    assert_eq!(
        api.put(&path, r#"{"metadata":{"name":"b"}}"#).await.line(),
        "400 BadRequest: the name of the object (b) does not match the name on the URL (a)"
    );
    let other = api.put(&path, r#"{"metadata":{"name":"a","uid":"0"}}"#).await.line();
    assert!(other.contains("Precondition failed: UID in precondition: 0, UID in object meta: "), "{other}");
    assert_eq!(
        api.put(&format!("{CONFIG_MAPS}/none"), r#"{"metadata":{"name":"none"}}"#).await.line(),
        "404 NotFound: configmaps \"none\" not found"
    );
}

#[tokio::test]
async fn the_four_patches() {
    let api = api().await;
    let path = format!("{DEPLOYMENTS}/d");
    assert_eq!(api.post(DEPLOYMENTS, &deployment("d")).await.line(), "201");
    let merged = api.patch("merge", &path, r#"{"spec":{"replicas":3}}"#).await;
    assert_eq!((merged.at(&["spec", "replicas"]), merged.at(&["metadata", "generation"])), ("3".into(), "2".into()));
    let strategic = api
        .patch("strategic-merge", &path, r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"j"}]}}}}"#)
        .await;
    assert!(strategic.at(&["spec", "template", "spec", "containers"]).contains("\"image\":\"j\""));
    let json = api.patch("json", &path, r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#).await;
    assert_eq!(json.at(&["spec", "replicas"]), "4");
    let failed = api.patch("json", &path, r#"[{"op":"test","path":"/spec/replicas","value":5}]"#).await;
    assert_eq!(failed.status, 422, "{}", failed.line());
    let config = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":9}}"#;
    let conflict = api.patch("apply", &format!("{path}?fieldManager=x"), config).await;
    assert_eq!((conflict.status.as_u16(), conflict.at(&["reason"])), (409, "Conflict".into()), "{}", conflict.line());
    let forced = api.patch("apply", &format!("{path}?fieldManager=x&force=true"), config).await;
    assert_eq!((forced.line().as_str(), forced.at(&["spec", "replicas"]).as_str()), ("200", "9"));
    assert_eq!(
        api.patch("apply", &path, config).await.line(),
        "422 Invalid: PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let created = api
        .patch(
            "apply",
            &format!("{CONFIG_MAPS}/new?fieldManager=x"),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}\ndata: {a: b}\n",
        )
        .await;
    assert_eq!(created.line(), "201");
    assert!(created.at(&["metadata", "managedFields"]).contains("\"operation\":\"Apply\""));
    let bad = api.send(Method::PATCH, &path, &[("content-type", "application/json")], b"{}").await;
    assert_eq!(bad.status, 415);
}

#[tokio::test]
async fn status_is_written_through_its_own_path_only() {
    let api = api().await;
    api.post(DEPLOYMENTS, &deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d");
    let body = r#"{"status":{"replicas":2},"spec":{"replicas":7}}"#;
    let main = api.patch("merge", &path, body).await;
    assert_eq!((main.at(&["spec", "replicas"]), main.at(&["status", "replicas"])), ("7".into(), "-".into()));
    let status =
        api.patch("merge", &format!("{path}/status"), r#"{"status":{"replicas":2},"spec":{"replicas":1}}"#).await;
    assert_eq!((status.at(&["spec", "replicas"]), status.at(&["status", "replicas"])), ("7".into(), "2".into()));
    assert_eq!(status.at(&["metadata", "generation"]), "2");
}

#[tokio::test]
async fn scale_reads_and_writes_the_count() {
    let api = api().await;
    api.post(DEPLOYMENTS, &deployment("d")).await;
    let path = format!("{DEPLOYMENTS}/d/scale");
    let read = api.get(&path).await;
    assert_eq!(
        (read.at(&["kind"]), read.at(&["spec", "replicas"]), read.at(&["status", "selector"])),
        ("Scale".into(), "1".into(), "a=b".into())
    );
    let patched = api.patch("merge", &path, r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!((patched.line(), patched.at(&["spec", "replicas"])), ("200".into(), "5".into()));
    assert_eq!(api.get(&format!("{DEPLOYMENTS}/d")).await.at(&["spec", "replicas"]), "5");
    let negative = api.put(&path, r#"{"metadata":{"name":"d"},"spec":{"replicas":-1}}"#).await;
    assert_eq!(
        negative.line(),
        "422 Invalid: Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let api = api().await;
    let path = format!("{CONFIG_MAPS}/a");
    api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a","finalizers":["x.io/hold"]}}"#).await;
    let deleting = api.delete(&path).await;
    assert_eq!(deleting.at(&["kind"]), "ConfigMap");
    assert_ne!(deleting.at(&["metadata", "deletionTimestamp"]), "-");
    let added = api.patch("merge", &path, r#"{"metadata":{"finalizers":["x.io/hold","x.io/more"]}}"#).await.line();
    assert!(added.contains("no new finalizers can be added if the object is being deleted"), "{added}");
    assert_eq!(api.patch("merge", &path, r#"{"metadata":{"finalizers":null}}"#).await.line(), "200");
    assert_eq!(api.get(&path).await.status, 404);
}

#[tokio::test]
async fn deletes_honour_preconditions_and_propagation() {
    let api = api().await;
    let path = format!("{CONFIG_MAPS}/a");
    api.post(CONFIG_MAPS, r#"{"metadata":{"name":"a"}}"#).await;
    let wrong = api.send(Method::DELETE, &path, &[], br#"{"preconditions":{"uid":"0"}}"#).await.line();
    assert!(
        wrong.starts_with("409 Conflict: Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID"),
        "{wrong}"
    );
    let both = api.send(Method::DELETE, &path, &[], br#"{"orphanDependents":true,"propagationPolicy":"Orphan"}"#).await;
    assert_eq!(both.status, 422);
    let foreground = api.delete(&format!("{path}?propagationPolicy=Foreground")).await;
    assert_eq!(foreground.status, 202);
    assert_eq!(foreground.at(&["metadata", "finalizers"]), "[\"foregroundDeletion\"]");
    let background = api.delete(&format!("{path}?propagationPolicy=Background")).await;
    assert_eq!((background.at(&["kind"]), background.at(&["status"])), ("Status".into(), "Success".into()));
}

#[tokio::test]
async fn pods_with_a_node_go_gracefully() {
    let api = api().await;
    let path = format!("{PODS}/p");
    assert_eq!(api.post(PODS, &pod("p")).await.line(), "201");
    let bind = r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}"#;
    assert_eq!(api.post(&format!("{path}/binding"), bind).await.line(), "201");
    assert_eq!(
        api.post(&format!("{path}/binding"), bind).await.line(),
        "409 Conflict: Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
    );
    let deleting = api.delete(&path).await;
    assert_eq!(
        (deleting.status.as_u16(), deleting.at(&["metadata", "deletionGracePeriodSeconds"])),
        (200, "30".into())
    );
    let sooner = api.delete(&format!("{path}?gracePeriodSeconds=5")).await;
    assert_eq!(sooner.at(&["metadata", "deletionGracePeriodSeconds"]), "5");
    let now = api.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!((now.status.as_u16(), now.at(&["kind"])), (200, "Pod".into()));
    assert_eq!(api.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalizer() {
    let api = api().await;
    api.post("/api/v1/namespaces", r#"{"metadata":{"name":"n"}}"#).await;
    let deleting = api.delete("/api/v1/namespaces/n").await;
    assert_eq!((deleting.status.as_u16(), deleting.at(&["status", "phase"])), (200, "Terminating".into()));
    let refused = api.post("/api/v1/namespaces/n/configmaps", r#"{"metadata":{"name":"a"}}"#).await;
    assert_eq!(
        refused.line(),
        "403 Forbidden: configmaps \"a\" is forbidden: unable to create new content in namespace n because it is \
         being terminated"
    );
    assert!(refused.at(&["details", "causes"]).contains("NamespaceTerminating"));
    let finalize = r#"{"metadata":{"name":"n"},"spec":{"finalizers":[]}}"#;
    assert_eq!(api.put("/api/v1/namespaces/n/finalize", finalize).await.line(), "200");
    assert_eq!(api.get("/api/v1/namespaces/n").await.status, 404);
    assert_eq!(
        api.delete("/api/v1/namespaces/default").await.line(),
        "403 Forbidden: namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}

#[tokio::test]
async fn deletecollection_deletes_what_a_list_would_give() {
    let api = api().await;
    for name in ["a", "b", "c"] {
        let label = if name == "c" { "keep" } else { "go" };
        api.post(CONFIG_MAPS, &format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#)).await;
    }
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}?labelSelector=l%3Dgo")).await.line(), "200");
    let left = api.get(CONFIG_MAPS).await.tree();
    assert_eq!(left.list_at(&["items"]).len(), 1);
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_stored() {
    let api = api().await;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let mut outcomes = Vec::new();
    for levels in [100, 500, 506, 508, 509, 510, 511] {
        let data = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let body = format!(r#"{{"metadata":{{"name":"of-{levels}"}},"revision":1,"data":{data}}}"#);
        let made = api.post(revisions, &body).await;
        // The entries of managedFields nest deeper than the fields they name.
        if made.status.is_success() {
            assert_eq!(api.get(&format!("{revisions}/of-{levels}")).await.line(), "200", "{levels} levels");
            assert_eq!(api.get(revisions).await.line(), "200", "{levels} levels");
        } else {
            assert_eq!(made.line(), "400 BadRequest: exceeded max depth", "{levels} levels");
        }
        outcomes.push(made.status.is_success());
    }
    assert_eq!((outcomes[0], outcomes[6]), (true, false));
}
