//! Versions of a custom resource that a webhook converts: `host: "a:1"` in v1, `host` and `port` in v2.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use skiff_object::{Tree, json};

use crate::custom::{BOATS, DEFINITIONS, definition, establish, event, until, version};
use crate::remote::{Remote, answering};
use crate::support::{Api, api};
use crate::webhooks::{self, Hooks};

const BOATS_V2: &str = "/apis/sea.io/v2/namespaces/default/boats";

/// What the webhook does wrong, and how many objects it was sent at a time.
#[derive(Default)]
struct Webhook {
    mischief: Mutex<Option<fn(&mut Tree)>>,
    sizes: Mutex<Vec<usize>>,
    /// Versions of the reviews that came.
    versions: Mutex<Vec<String>>,
}

impl Webhook {
    fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let review = json::decode_untyped(request.body()).unwrap();
        assert_eq!(request.uri().query(), Some("timeout=30s"));
        let version = review.str_at(&["apiVersion"]).to_owned();
        let wanted = review.str_at(&["request", "desiredAPIVersion"]);
        let objects = review.list_at(&["request", "objects"]);
        self.sizes.lock().push(objects.len());
        let converted: Vec<Tree> = objects.iter().map(|object| converted(object, wanted)).collect();
        let mut answer = Tree::map();
        answer.set(&["kind"], "ConversionReview");
        answer.set(&["apiVersion"], version.clone());
        self.versions.lock().push(version);
        answer.set(&["response", "uid"], review.str_at(&["request", "uid"]));
        answer.set(&["response", "result", "status"], "Success");
        answer.set(&["response", "convertedObjects"], converted);
        if let Some(mischief) = *self.mischief.lock() {
            mischief(&mut answer);
        }
        Response::new(json::encode_untyped(&answer).into())
    }
}

fn converted(object: &Tree, wanted: &str) -> Tree {
    let mut object = object.clone();
    assert_ne!(object.str_at(&["apiVersion"]), wanted, "only what needs it is sent");
    let host = object.str_at(&["spec", "host"]).to_owned();
    if wanted == "sea.io/v2" {
        let (host, port) = host.split_once(':').unwrap_or((&host, ""));
        object.set(&["spec", "host"], host);
        object.set(&["spec", "port"], port);
    } else {
        let port = object.str_at(&["spec", "port"]).to_owned();
        object.set(&["spec", "host"], format!("{host}:{port}"));
        object.unset(&["spec", "port"]);
    }
    object.set(&["apiVersion"], wanted);
    // Labels and annotations may be changed, the rest of metadata is restored.
    object.set(&["metadata", "annotations", "converted-to"], wanted.to_owned());
    object.set(&["metadata", "generation"], 77);
    object
}

async fn served(api: &Api) -> (Remote, Arc<Webhook>) {
    served_by(api, r#""v1""#).await
}

async fn served_by(api: &Api, review_versions: &str) -> (Remote, Arc<Webhook>) {
    let webhook = Arc::new(Webhook::default());
    let answers = Arc::clone(&webhook);
    let remote = Remote::start(&["localhost"], answering(move |request| answers.answer(&request))).await;
    let spec = |more: &str| format!(r#"{{"type":"object","properties":{{"host":{{"type":"string"}}{more}}}}}"#);
    let old = version("v1", r#""storage":true"#, &spec(""));
    let new = version(
        "v2",
        r#""storage":false"#,
        &spec(r#","port":{"type":"string","pattern":"^[0-9]+$"},"flag":{"type":"string","default":"red"}"#),
    );
    let conversion = format!(
        r#""conversion":{{"strategy":"Webhook","webhook":{{"conversionReviewVersions":[{review_versions}],"clientConfig":{{
        "url":"https://localhost:{}/convert","caBundle":"{}"}}}}}},"versions""#,
        remote.address.port(),
        STANDARD.encode(&remote.authority)
    );
    establish(api, &definition(&format!("{old},{new}")).replace("\"versions\"", &conversion)).await;
    (remote, webhook)
}

fn boat(version: &str, name: &str, spec: &str) -> String {
    format!(r#"{{"apiVersion":"sea.io/{version}","kind":"Boat","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
}

#[tokio::test]
async fn every_verb_crosses_versions() {
    let api = api().await;
    let (_remote, webhook) = served(&api).await;
    let made = api.post(BOATS, &boat("v1", "a", r#"{"host":"x:1"}"#)).await;
    assert_eq!((made.line(), webhook.sizes.lock().len()), ("201".into(), 0));
    let read = api.get(&format!("{BOATS_V2}/a")).await;
    assert_eq!(read.at(&["spec"]), r#"{"flag":"red","host":"x","port":"1"}"#);
    assert_eq!((read.at(&["apiVersion"]), read.at(&["metadata", "generation"])), ("sea.io/v2".into(), "1".into()));
    assert_eq!(read.at(&["metadata", "annotations", "converted-to"]), "sea.io/v2");
    assert_eq!(read.at(&["metadata", "uid"]), made.at(&["metadata", "uid"]));
    let made = api.post(BOATS_V2, &boat("v2", "b", r#"{"host":"y","port":"2"}"#)).await;
    assert_eq!((made.line(), made.at(&["spec", "port"])), ("201".into(), "2".into()));
    assert_eq!(api.get(&format!("{BOATS}/b")).await.at(&["spec"]), r#"{"host":"y:2"}"#);
    let patched = api.patch("merge", &format!("{BOATS_V2}/a"), r#"{"spec":{"port":"9"}}"#).await;
    assert_eq!((patched.line(), patched.at(&["spec", "port"])), ("200".into(), "9".into()));
    assert_eq!(api.get(&format!("{BOATS}/a")).await.at(&["spec", "host"]), "x:9");
    let invalid = api.patch("merge", &format!("{BOATS_V2}/a"), r#"{"spec":{"port":"nine"}}"#).await.line();
    assert!(invalid.contains("spec.port in body should match '^[0-9]+$'"), "{invalid}");
    let same = api.patch("merge", &format!("{BOATS_V2}/a"), r#"{"spec":{"port":"9"}}"#).await;
    assert_eq!(same.at(&["metadata", "resourceVersion"]), patched.at(&["metadata", "resourceVersion"]));
    let whole = api.get(&format!("{BOATS_V2}/a")).await;
    let text = std::str::from_utf8(&whole.body).unwrap().replace(r#""port":"9""#, r#""port":"8""#);
    assert_eq!(api.put(&format!("{BOATS_V2}/a"), &text).await.line(), "200");
    let applied = format!("{BOATS_V2}/c?fieldManager=me");
    assert_eq!(api.patch("apply", &applied, &boat("v2", "c", r#"{"host":"z","port":"3"}"#)).await.line(), "201");
    webhook.sizes.lock().clear();
    let list = api.get(BOATS_V2).await.tree();
    let hosts: Vec<&str> = list.list_at(&["items"]).iter().map(|one| one.str_at(&["spec", "port"])).collect();
    assert_eq!((hosts, webhook.sizes.lock().clone()), (vec!["8", "2", "3"], vec![3]));
    let gone = api.delete(&format!("{BOATS_V2}/c")).await;
    assert_eq!(gone.line(), "200");
    assert_eq!(api.get(BOATS).await.tree().list_at(&["items"]).len(), 2);
}

#[tokio::test]
async fn a_write_of_the_same_object_moves_it_to_the_storage_version() {
    let api = api().await;
    let (remote, webhook) = served(&api).await;
    assert_eq!(api.post(BOATS, &boat("v1", "a", r#"{"host":"x:1"}"#)).await.line(), "201");
    let storage = r#"[{"op":"replace","path":"/spec/versions/0/storage","value":false},
        {"op":"replace","path":"/spec/versions/1/storage","value":true}]"#;
    assert_eq!(api.patch("json", &format!("{DEFINITIONS}/boats.sea.io"), storage).await.line(), "200");
    let one = format!("{BOATS_V2}/a");
    let hash = skiff_api::custom::storage_version_hash("sea.io", "v2", "Boat");
    until(&api, "/apis/sea.io/v2", |answer| String::from_utf8_lossy(&answer.body).contains(&hash)).await;
    let put = async || {
        let read = api.get(&one).await;
        let written = api.put(&one, std::str::from_utf8(&read.body).unwrap()).await;
        assert_eq!(written.line(), "200");
        written.at(&["metadata", "resourceVersion"]) != read.at(&["metadata", "resourceVersion"])
    };
    assert!(put().await, "it lies in v1");
    assert!(!put().await, "it lies in v2");
    webhook.sizes.lock().clear();
    drop(remote);
    assert_eq!(api.get(&one).await.at(&["spec", "port"]), "1");
    assert!(webhook.sizes.lock().is_empty());
}

#[tokio::test]
async fn owners_of_fields_are_known_in_the_version_they_wrote() {
    let api = api().await;
    let (_remote, _webhook) = served(&api).await;
    let apply = async |version: &str, manager: &str, spec: &str| {
        let path = format!("/apis/sea.io/{version}/namespaces/default/boats/a?fieldManager={manager}");
        api.patch("apply", &path, &boat(version, "a", spec)).await
    };
    let owners = async || {
        let read = api.get(&format!("{BOATS}/a")).await.tree();
        let entries = read.list_at(&["metadata", "managedFields"]).iter().map(|entry| {
            let fields = String::from_utf8(json::encode_untyped(entry.at(&["fieldsV1", "f:spec"]).unwrap())).unwrap();
            format!("{} {} {fields}", entry.str_at(&["manager"]), entry.str_at(&["apiVersion"]))
        });
        let mut entries: Vec<String> = entries.collect();
        entries.sort();
        entries
    };
    assert_eq!(apply("v1", "one", r#"{"host":"x:1"}"#).await.line(), "201");
    // The port of v2 is part of the host of v1.
    let refused = apply("v2", "two", r#"{"port":"2"}"#).await;
    assert_eq!(refused.line(), "409 Conflict: Apply failed with 1 conflict: conflict with \"one\": .spec.host");
    assert_eq!(apply("v2", "one", r#"{"host":"x","port":"3"}"#).await.line(), "200");
    assert_eq!(owners().await, [r#"one sea.io/v2 {"f:host":{},"f:port":{}}"#]);
    // An update through v1 takes from the owners of v2 what it changes there.
    let update = format!("{BOATS}/a?fieldManager=three");
    assert_eq!(api.patch("merge", &update, r#"{"spec":{"host":"x:4"}}"#).await.line(), "200");
    let now = owners().await;
    assert!(now.contains(&r#"one sea.io/v2 {"f:host":{}}"#.to_owned()), "{now:?}");
    assert!(now.contains(&r#"three sea.io/v1 {"f:host":{}}"#.to_owned()), "{now:?}");
}

#[tokio::test]
async fn a_webhook_gets_the_first_version_of_the_review_that_is_known() {
    for (versions, expected, strict) in [
        (r#""v2","v1beta1""#, "apiextensions.k8s.io/v1beta1", false),
        (r#""v1beta1","v1""#, "apiextensions.k8s.io/v1beta1", false),
        (r#""v1","v1beta1""#, "apiextensions.k8s.io/v1", true),
    ] {
        let api = api().await;
        let (_remote, webhook) = served_by(&api, versions).await;
        api.post(BOATS, &boat("v1", "a", r#"{"host":"x:1"}"#)).await;
        let read = api.get(&format!("{BOATS_V2}/a")).await;
        assert_eq!(read.at(&["spec", "port"]), "1", "{versions}: {}", read.line());
        assert!(webhook.versions.lock().iter().all(|version| version == expected), "{versions}");
        // In v1beta1 an answer need not say what it answers.
        *webhook.mischief.lock() = Some(|answer| {
            answer.unset(&["response", "uid"]);
            answer.unset(&["apiVersion"]);
        });
        let careless = api.get(&format!("{BOATS_V2}/a")).await;
        assert_eq!(careless.status.is_success(), !strict, "{versions}: {}", careless.line());
    }
}

#[tokio::test]
async fn watches_show_the_version_they_are_of() {
    let api = api().await;
    let (_remote, _webhook) = served(&api).await;
    api.post(BOATS, &boat("v1", "a", r#"{"host":"x:1"}"#)).await;
    let named = |name: &'static str, port: &'static str| {
        move |event: &Tree| {
            let object = event.get("object").unwrap();
            object.str_at(&["metadata", "name"]) == name && object.str_at(&["spec", "port"]) == port
        }
    };
    let watch = format!("{BOATS_V2}?watch=true");
    let initial = event(&api, &watch, named("a", "1")).await;
    assert_eq!(initial.at(&["object", "apiVersion"]).and_then(Tree::as_str), Some("sea.io/v2"));
    let (seen, _) = futures::join!(event(&api, &watch, named("b", "2")), async {
        api.post(BOATS, &boat("v1", "b", r#"{"host":"y:2"}"#)).await
    });
    assert_eq!(seen.str_at(&["type"]), "ADDED");
}

#[tokio::test]
async fn a_webhook_that_changes_what_it_may_not_is_not_believed() {
    let api = api().await;
    let (remote, webhook) = served(&api).await;
    api.post(BOATS, &boat("v1", "a", r#"{"host":"x:1"}"#)).await;
    let one = format!("{BOATS_V2}/a");
    let mischief = |what: fn(&mut Tree)| {
        *webhook.mischief.lock() = Some(what);
        let (api, one) = (&api, &one);
        async move { api.get(one).await.line() }
    };
    fn first(answer: &mut Tree) -> &mut Tree {
        &mut answer.at_mut(&["response", "convertedObjects"]).and_then(Tree::as_list_mut).unwrap()[0]
    }
    const HEAD: &str = "500 : conversion webhook for sea.io/v1, Kind=Boat";
    let invalid = |why: &str| format!("{HEAD} returned invalid converted object at index 0: {why}");
    assert_eq!(
        mischief(|answer| first(answer).set(&["metadata", "name"], "other")).await,
        invalid("must have the same name: a != other")
    );
    assert_eq!(
        mischief(|answer| first(answer).set(&["apiVersion"], "sea.io/v3")).await,
        invalid("invalid groupVersion (expected sea.io/v2, received sea.io/v3)")
    );
    assert_eq!(
        mischief(|answer| first(answer).set(&["kind"], "Ship")).await,
        invalid("invalid kind (expected Boat, received Ship)")
    );
    assert_eq!(
        mischief(|answer| answer.set(&["response", "convertedObjects"], Tree::list())).await,
        format!("{HEAD} returned 0 objects, expected 1")
    );
    assert_eq!(
        mischief(|answer| answer.set(
            &["response", "result"],
            json::decode_untyped(br#"{"status":"Failure","message":"no way"}"#).unwrap()
        ))
        .await,
        format!("{HEAD} failed: no way")
    );
    assert!(mischief(|answer| answer.set(&["response", "uid"], "x")).await.contains("failed: expected response.uid="));
    let label = mischief(|answer| first(answer).set(&["metadata", "labels", "a"], "not valid!")).await;
    assert!(label.contains("metadata.labels: Invalid value"), "{label}");
    *webhook.mischief.lock() = None;
    assert_eq!(api.get(&one).await.line(), "200");
    drop(remote);
    let refused = api.send(Method::GET, &one, &[], b"").await.line();
    assert!(refused.starts_with(&format!("{HEAD} failed: Post \"https://localhost:")), "{refused}");
    // What needs no conversion does not ask.
    assert_eq!(api.get(&format!("{BOATS}/a")).await.line(), "200");
    assert_eq!(api.get(DEFINITIONS).await.line(), "200");
}

#[tokio::test]
async fn admission_webhooks_see_the_version_they_are_for() {
    let api = api().await;
    let (_remote, _webhook) = served(&api).await;
    // Only the second version has a port of its own.
    let hooks = Hooks::start(|_, question| {
        let refused = question.str_at(&["object", "spec", "port"]) == "1";
        Some(if refused { webhooks::deny(r#"{"message":"no port 1"}"#) } else { webhooks::allow() })
    });
    let hooks = hooks.await;
    let rule = webhooks::rule(r#""CREATE""#, "sea.io", "v2", r#""boats""#);
    webhooks::configure(&api, webhooks::VALIDATING, "v", &[hooks.webhook("v.sea.io", "/", &rule, "")]).await;
    let refused = api.post(BOATS, &boat("v1", "a", r#"{"host":"x:1"}"#)).await.line();
    assert!(refused.ends_with("admission webhook \"v.sea.io\" denied the request: no port 1"), "{refused}");
    assert_eq!(api.post(BOATS, &boat("v1", "b", r#"{"host":"x:2"}"#)).await.line(), "201");
}
