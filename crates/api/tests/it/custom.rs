//! Custom resources take the same way as built-in ones.

use std::time::Duration;

use expect_test::expect;
use futures::StreamExt;
use http::Method;
use skiff_object::{Tree, json};

use crate::support::{Answer, Api, api};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const BOATS: &str = "/apis/sea.io/v1/namespaces/default/boats";

/// How long any wait in these tests may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A definition of boats with these versions.
pub(crate) fn definition(versions: &str) -> String {
    format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
        "metadata":{{"name":"boats.sea.io"}},"spec":{{"group":"sea.io","scope":"Namespaced",
        "names":{{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList","shortNames":["bo"],
        "categories":["all"]}},"versions":[{versions}]}}}}"#
    )
}

/// A version with this schema below `spec`, and more.
pub(crate) fn version(name: &str, flags: &str, spec: &str) -> String {
    format!(
        r#"{{"name":"{name}","served":true,{flags},"schema":{{"openAPIV3Schema":{{"type":"object","properties":{{
        "spec":{spec},"status":{{"type":"object","properties":{{"afloat":{{"type":"boolean"}},"sails":{{"type":"integer"}},
        "selector":{{"type":"string"}}}}}}}}}}}}}}"#
    )
}

const SPEC: &str = r#"{"type":"object","description":"What the boat is like.","properties":{
    "sails":{"type":"integer","default":2,"minimum":0,"description":"How many sails."},
    "name":{"type":"string","pattern":"^[A-Z]"},"color":{"type":"string"},
    "crew":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["role"],
      "items":{"type":"object","required":["role"],"properties":{"role":{"type":"string"},"who":{"type":"string"}}}},
    "draft":{"x-kubernetes-int-or-string":true},"note":{"type":"string","nullable":true}}}"#;

const FLAGS: &str = r#""storage":true,"subresources":{"status":{},"scale":{"specReplicasPath":".spec.sails",
    "statusReplicasPath":".status.sails","labelSelectorPath":".status.selector"}},
    "selectableFields":[{"jsonPath":".spec.color"}],
    "additionalPrinterColumns":[{"name":"Sails","type":"integer","jsonPath":".spec.sails"},
      {"name":"Crew","type":"string","jsonPath":".spec.crew[*].who","priority":1}]"#;

pub(crate) fn boats() -> String {
    definition(&version("v1", FLAGS, SPEC))
}

/// Reads events of a watch until one fits.
pub(crate) async fn event(api: &Api, path: &str, fits: impl Fn(&Tree) -> bool) -> Tree {
    let response = api.open(Method::GET, path, &[], b"").await;
    assert_eq!(response.status(), 200, "{path}");
    let mut stream = response.into_body().into_stream();
    let mut rest = Vec::new();
    let wait = async {
        loop {
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let event = json::decode_untyped(&line).unwrap();
                if fits(&event) {
                    return event;
                }
            }
            let chunk = stream.next().await.unwrap_or_else(|| panic!("{path} ended before it showed what was wanted"));
            rest.extend_from_slice(&chunk.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{path} never shows what is wanted"))
}

fn condition(object: &Tree, ty: &str) -> String {
    let conditions = object.list_at(&["status", "conditions"]).iter();
    let found = conditions.filter(|one| one.str_at(&["type"]) == ty);
    found.map(|one| format!("{} {}", one.str_at(&["status"]), one.str_at(&["reason"]))).collect()
}

/// Makes a definition and waits until it is served.
pub(crate) async fn establish(api: &Api, definition: &str) -> Tree {
    let made = api.post(DEFINITIONS, definition).await;
    assert_eq!(made.line(), "201");
    let name = made.at(&["metadata", "name"]);
    let path = format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name={name}");
    let served = |event: &Tree| condition(event.get("object").unwrap(), "Established").starts_with("True");
    event(api, &path, served).await.get("object").cloned().unwrap()
}

/// Waits until a path answers so.
pub(crate) async fn until(api: &Api, path: &str, fits: impl Fn(&Answer) -> bool) {
    let wait = async {
        while !fits(&api.get(path).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{path} never answers as wanted"));
}

fn boat(name: &str, spec: &str) -> String {
    format!(r#"{{"apiVersion":"sea.io/v1","kind":"Boat","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
}

#[tokio::test]
async fn a_definition_is_served_as_soon_as_it_says_so() {
    let api = api().await;
    let served = establish(&api, &boats()).await;
    assert_eq!(condition(&served, "NamesAccepted"), "True NoConflicts");
    assert_eq!(served.str_at(&["status", "acceptedNames", "plural"]), "boats");
    assert_eq!(served.list_at(&["status", "storedVersions"]), [Tree::from("v1")]);
    assert_eq!(served.list_at(&["metadata", "finalizers"]), []);
    let made = api.post(BOATS, &boat("a", r#"{"note":null,"draft":"3m"}"#)).await;
    assert_eq!((made.line(), made.at(&["spec"])), ("201".into(), r#"{"draft":"3m","note":null,"sails":2}"#.into()));
    assert_eq!((made.at(&["metadata", "generation"]), made.at(&["kind"])), ("1".into(), "Boat".into()));
    let status = api.patch("merge", &format!("{BOATS}/a/status"), r#"{"status":{"afloat":true},"spec":null}"#).await;
    assert_eq!((status.line(), status.at(&["status", "afloat"])), ("200".into(), "true".into()));
    assert_eq!((status.at(&["spec", "sails"]), status.at(&["metadata", "generation"])), ("2".into(), "1".into()));
    let list = api.get(BOATS).await.tree();
    assert_eq!(list.list_at(&["items"])[0].str_at(&["kind"]), "Boat");
    assert_eq!(list.str_at(&["kind"]), "BoatList");
    let strategic = api.patch("strategic-merge", &format!("{BOATS}/a"), "{}").await;
    assert_eq!(strategic.status, 415);
}

#[tokio::test]
async fn objects_are_judged_by_the_schema() {
    let api = api().await;
    establish(&api, &boats()).await;
    let line = api.post(BOATS, &boat("a", r#"{"sails":"x"}"#)).await.line();
    expect![[r#"422 Invalid: Boat.sea.io "a" is invalid: [spec.sails: Invalid value: "string": spec.sails in body must be of type integer: "string", .spec.sails: Invalid value: 0: .spec.sails accessor error: x is not an int64]"#]]
        .assert_eq(&line);
    let line = api.post(BOATS, &boat("a", r#"{"name":"x"}"#)).await.line();
    expect![[r#"422 Invalid: Boat.sea.io "a" is invalid: spec.name: Invalid value: "x": spec.name in body should match '^[A-Z]'"#]]
        .assert_eq(&line);
    let line = api.post(BOATS, &boat("a", "[]")).await.line();
    assert!(line.contains(r#"spec: Invalid value: "array": spec in body must be of type object: "array""#), "{line}");
    let strict = format!("{BOATS}?fieldValidation=Strict");
    let line = api.post(&strict, &boat("a", r#"{"wheels":4}"#)).await.line();
    assert!(line.contains(r#"strict decoding error: unknown field "spec.wheels""#), "{line}");
    let made = api.post(BOATS, &boat("a", r#"{"wheels":4}"#)).await;
    assert_eq!((made.line(), made.at(&["spec"])), ("201".into(), r#"{"sails":2}"#.into()));
    // An update must say which version it is of.
    let line = api.put(&format!("{BOATS}/a"), &boat("a", "{}")).await.line();
    assert!(line.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"), "{line}");
}

#[tokio::test]
async fn old_objects_get_new_defaults_and_lose_what_is_no_longer_there() {
    let api = api().await;
    establish(&api, &boats()).await;
    api.post(BOATS, &boat("a", r#"{"color":"red"}"#)).await;
    let spec = SPEC.replace(r#""color":{"type":"string"},"#, r#""hull":{"type":"string","default":"oak"},"#);
    let flags = FLAGS.replace(r#""selectableFields":[{"jsonPath":".spec.color"}],"#, "");
    let patch = format!(r#"{{"spec":{{"versions":[{}]}}}}"#, version("v1", &flags, &spec));
    let changed = api.patch("merge", &format!("{DEFINITIONS}/boats.sea.io"), &patch).await;
    assert_eq!(changed.line(), "200");
    until(&api, &format!("{BOATS}/a"), |answer| answer.at(&["spec"]) == r#"{"hull":"oak","sails":2}"#).await;
    let list = api.get(BOATS).await.tree();
    assert_eq!(list.list_at(&["items"])[0].str_at(&["spec", "hull"]), "oak");
}

#[tokio::test]
async fn a_watch_of_a_kind_ends_when_the_kind_changes() {
    let api = api().await;
    establish(&api, &boats()).await;
    let watch = api.open(Method::GET, &format!("{BOATS}?watch=true"), &[], b"").await;
    let spec = SPEC.replace(r#""color":"#, r#""colour":{"type":"string"},"color":"#);
    let patch = format!(r#"{{"spec":{{"versions":[{}]}}}}"#, version("v1", FLAGS, &spec));
    assert_eq!(api.patch("merge", &format!("{DEFINITIONS}/boats.sea.io"), &patch).await.line(), "200");
    let mut stream = watch.into_body().into_stream();
    let ended = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the watch ends");
}

#[tokio::test]
async fn apply_merges_lists_by_the_definition_s_keys() {
    let api = api().await;
    establish(&api, &boats()).await;
    let apply = |manager: &str, crew: &str| {
        let path = format!("{BOATS}/a?fieldManager={manager}");
        let body = boat("a", &format!(r#"{{"crew":{crew}}}"#));
        let api = &api;
        async move { api.patch("apply", &path, &body).await }
    };
    assert_eq!(apply("one", r#"[{"role":"cook","who":"Ann"}]"#).await.line(), "201");
    let both = apply("two", r#"[{"role":"mate","who":"Bob"}]"#).await;
    assert_eq!(both.at(&["spec", "crew"]), r#"[{"role":"cook","who":"Ann"},{"role":"mate","who":"Bob"}]"#);
    let conflict = apply("two", r#"[{"role":"cook","who":"Cid"}]"#).await.line();
    assert!(conflict.contains(r#"conflict with "one": .spec.crew[role="cook"].who"#), "{conflict}");
    let again = apply("two", r#"[{"role":"mate","who":"Bob"}]"#).await;
    assert_eq!(again.at(&["metadata", "resourceVersion"]), both.at(&["metadata", "resourceVersion"]));
}

#[tokio::test]
async fn scale_columns_and_selectable_fields_are_the_definition_s() {
    let api = api().await;
    establish(&api, &boats()).await;
    api.post(BOATS, &boat("a", r#"{"color":"red","sails":3,"crew":[{"role":"cook","who":"Ann"}]}"#)).await;
    api.post(BOATS, &boat("b", r#"{"color":"blue"}"#)).await;
    api.patch("merge", &format!("{BOATS}/a/status"), r#"{"status":{"sails":1,"selector":"x=y"}}"#).await;
    let scale = api.get(&format!("{BOATS}/a/scale")).await;
    assert_eq!((scale.at(&["kind"]), scale.at(&["spec", "replicas"])), ("Scale".into(), "3".into()));
    assert_eq!(scale.at(&["status"]), r#"{"replicas":1,"selector":"x=y"}"#);
    let scaled = api.patch("merge", &format!("{BOATS}/a/scale"), r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!((scaled.line(), scaled.at(&["spec", "replicas"])), ("200".into(), "5".into()));
    let boat = api.get(&format!("{BOATS}/a")).await;
    assert_eq!((boat.at(&["spec", "sails"]), boat.at(&["metadata", "generation"])), ("5".into(), "2".into()));
    let red = api.get(&format!("{BOATS}?fieldSelector=spec.color%3Dred")).await.tree();
    assert_eq!(red.list_at(&["items"]).len(), 1);
    let line = api.get(&format!("{BOATS}?fieldSelector=spec.sails%3D3")).await.line();
    assert!(line.contains("field label not supported: spec.sails"), "{line}");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = api.send(Method::GET, BOATS, &table, b"").await.tree();
    let columns: Vec<&str> = table.list_at(&["columnDefinitions"]).iter().map(|one| one.str_at(&["name"])).collect();
    assert_eq!(columns, ["Name", "Sails", "Crew"]);
    assert_eq!(table.list_at(&["rows"])[0].list_at(&["cells"])[1..], [Tree::Int(5), Tree::from("Ann")]);
    let gone = api.send(Method::DELETE, &format!("{BOATS}?fieldSelector=spec.color%3Dred"), &[], b"").await.tree();
    assert_eq!(gone.list_at(&["items"]).len(), 1);
    assert_eq!(api.get(BOATS).await.tree().list_at(&["items"]).len(), 1);
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let api = api().await;
    establish(&api, &boats()).await;
    api.post(BOATS, &boat("a", "{}")).await;
    let held = boat("b", "{}").replace(r#""name":"b""#, r#""name":"b","finalizers":["sea.io/anchor"]"#);
    assert_eq!(api.post(BOATS, &held).await.line(), "201");
    let one = format!("{DEFINITIONS}/boats.sea.io");
    let marked = api.delete(&one).await;
    assert_eq!(marked.line(), "200");
    assert!(marked.at(&["metadata", "finalizers"]).contains("customresourcecleanup.apiextensions.k8s.io"));
    assert_eq!(condition(&marked.tree(), "Terminating"), "True InstanceDeletionPending");
    until(&api, &format!("{BOATS}/a"), |answer| answer.status == 404).await;
    until(&api, &one, |answer| condition(&answer.tree(), "Terminating") == "True InstanceDeletionInProgress").await;
    // The other is held by its finalizer, and the definition by the other.
    let line = api.post(BOATS, &boat("c", "{}")).await.line();
    assert!(line.ends_with("create not allowed while custom resource definition is terminating"), "{line}");
    let freed = api.patch("merge", &format!("{BOATS}/b"), r#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(freed.line(), "200");
    until(&api, &one, |answer| answer.status == 404).await;
    until(&api, BOATS, |answer| answer.status == 404).await;
    until(&api, "/apis/sea.io", |answer| answer.status == 404).await;
    // The same again is a new one.
    establish(&api, &boats()).await;
    assert_eq!(api.get(BOATS).await.tree().list_at(&["items"]).len(), 0);
}

#[tokio::test]
async fn names_are_given_once_and_granted_when_they_are_free() {
    let api = api().await;
    establish(&api, &boats()).await;
    let other = boats()
        .replace("boats.sea.io", "ships.sea.io")
        .replace(r#""plural":"boats","singular":"boat""#, r#""plural":"ships","singular":"ship""#);
    assert_eq!(api.post(DEFINITIONS, &other).await.line(), "201");
    let one = format!("{DEFINITIONS}/ships.sea.io");
    until(&api, &one, |answer| condition(&answer.tree(), "NamesAccepted") == "False ListKindConflict").await;
    assert_eq!(condition(&api.get(&one).await.tree(), "Established"), "False NotAccepted");
    assert_eq!(api.get("/apis/sea.io/v1/namespaces/default/ships").await.status, 404);
    api.delete(&format!("{DEFINITIONS}/boats.sea.io")).await;
    until(&api, &one, |answer| condition(&answer.tree(), "Established") == "True InitialNamesAccepted").await;
    assert_eq!(api.get("/apis/sea.io/v1/namespaces/default/ships").await.status, 200);
}

#[tokio::test]
async fn versions_are_one_storage_and_deprecated_ones_say_so() {
    let api = api().await;
    let old = version(
        "v1beta1",
        r#""storage":false,"deprecated":true"#,
        r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true}"#,
    );
    establish(&api, &definition(&format!("{old},{}", version("v1", FLAGS, SPEC)))).await;
    let beta = "/apis/sea.io/v1beta1/namespaces/default/boats";
    let body = boat("a", r#"{"name":"A","odd":1}"#).replace("sea.io/v1", "sea.io/v1beta1");
    let made = api.post(beta, &body).await;
    assert_eq!((made.line(), made.at(&["apiVersion"])), ("201".into(), "sea.io/v1beta1".into()));
    let warning = made.headers.get("warning").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(warning.as_deref(), Some(r#"299 - "sea.io/v1beta1 Boat is deprecated; use sea.io/v1 Boat""#));
    let stable = api.get(&format!("{BOATS}/a")).await;
    assert_eq!(
        (stable.at(&["apiVersion"]), stable.at(&["spec"])),
        ("sea.io/v1".into(), r#"{"name":"A","sails":2}"#.into())
    );
    let group = api.get("/apis/sea.io").await;
    assert_eq!(group.at(&["preferredVersion", "version"]), "v1");
    let resources = api.get("/apis/sea.io/v1").await.tree();
    let first = &resources.list_at(&["resources"])[0];
    assert_eq!(first.str_at(&["storageVersionHash"]), skiff_api::custom::storage_version_hash("sea.io", "v1", "Boat"));
    assert_eq!(first.list_at(&["shortNames"]), [Tree::from("bo")]);
    // The storage version cannot go while objects may lie in it.
    let only = format!(r#"{{"spec":{{"versions":[{}]}}}}"#, old.replace(r#""storage":false"#, r#""storage":true"#));
    let line = api.patch("merge", &format!("{DEFINITIONS}/boats.sea.io"), &only).await.line();
    assert!(line.contains("was previously a storage version, and must remain in spec.versions"), "{line}");
}

#[tokio::test]
async fn schemas_are_published_at_once_and_taken_back() {
    let api = api().await;
    let before = api.get("/openapi/v2").await.body.len();
    let served = establish(&api, &boats()).await;
    assert_eq!(condition(&served, "Established"), "True InitialNamesAccepted");
    // No waiting from here: who sees the condition finds everything.
    let index = api.get("/openapi/v3").await.tree();
    let url = index.str_at(&["paths", "apis/sea.io/v1", "serverRelativeURL"]).to_owned();
    let document = api.get(&url).await.tree();
    let schema = document.at(&["components", "schemas", "io.sea.v1.Boat"]).expect("the schema is published");
    assert_eq!(schema.str_at(&["properties", "spec", "properties", "sails", "description"]), "How many sails.");
    assert_eq!(schema.str_at(&["properties", "spec", "properties", "crew", "x-kubernetes-list-type"]), "map");
    assert_eq!(schema.list_at(&["x-kubernetes-group-version-kind"])[0].str_at(&["kind"]), "Boat");
    assert!(document.at(&["components", "schemas", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]).is_some());
    let path = "/apis/sea.io/v1/namespaces/{namespace}/boats/{name}/scale";
    assert_eq!(document.str_at(&["paths", path, "get", "operationId"]), "readSeaIoV1NamespacedBoatScale");
    let swagger = api.get("/openapi/v2").await;
    assert!(swagger.tree().at(&["definitions", "io.sea.v1.BoatList", "properties", "items"]).is_some());
    let binary = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    let binary = api.send(Method::GET, "/openapi/v2", &binary, b"").await;
    assert!(binary.body.windows(14).any(|window| window == b"How many sails"));
    // A change of the schema is a change of the document's address.
    let spec = SPEC.replace("How many sails.", "The sails.");
    let patch = format!(r#"{{"spec":{{"versions":[{}]}}}}"#, version("v1", FLAGS, &spec));
    api.patch("merge", &format!("{DEFINITIONS}/boats.sea.io"), &patch).await;
    until(&api, "/openapi/v3", |answer| answer.tree().str_at(&["paths", "apis/sea.io/v1", "serverRelativeURL"]) != url)
        .await;
    api.delete(&format!("{DEFINITIONS}/boats.sea.io")).await;
    until(&api, "/openapi/v3", |answer| answer.tree().at(&["paths", "apis/sea.io/v1"]).is_none()).await;
    until(&api, "/openapi/v2", |answer| answer.body.len() == before).await;
}

#[tokio::test]
async fn a_definition_that_makes_no_sense_is_refused_and_one_of_three_megabytes_is_not() {
    let api = api().await;
    let line =
        api.post(DEFINITIONS, &boats().replace(r#""type":"integer","default":2,"#, r#""default":2,"#)).await.line();
    expect![[r#"422 Invalid: CustomResourceDefinition.apiextensions.k8s.io "boats.sea.io" is invalid: spec.validation.openAPIV3Schema.properties[spec].properties[sails].type: Required value: must not be empty for specified object fields"#]]
        .assert_eq(&line);
    let long = "long ".repeat(590_000);
    let large = boats().replace("How many sails.", &long);
    assert!(large.len() > 2_950_000 && large.len() < 3 << 20);
    establish(&api, &large).await;
    assert_eq!(api.post(BOATS, &boat("a", "{}")).await.line(), "201");
    let larger = boats().replace("How many sails.", &"long ".repeat(640_000));
    assert_eq!(api.post(DEFINITIONS, &larger).await.status, 413);
}

#[tokio::test]
async fn expressions_are_checked_with_the_definition_and_run_with_the_object() {
    let api = api().await;
    let spec = r#"{"type":"object","properties":{"from":{"type":"integer"},"to":{"type":"integer"},
        "port":{"type":"string","maxLength":9,"x-kubernetes-validations":[{"rule":"self == oldSelf","message":"port is fixed"}]}},
        "x-kubernetes-validations":[{"rule":"self.from < self.to","message":"from must be before to","fieldPath":".from"}]}"#;
    let broken =
        definition(&version("v1", FLAGS, &spec.replace("self.to", "self.too").replace(".spec.color", ".spec.port")));
    let line = api.post(DEFINITIONS, &broken.replace(".spec.color", ".spec.port")).await.line();
    assert!(line.contains("x-kubernetes-validations[0].rule: Invalid value"), "{line}");
    assert!(line.contains("compilation failed: ERROR: <input>:1:17: undefined field 'too'"), "{line}");
    let flags = FLAGS
        .replace(".spec.color", ".spec.port")
        .replace(".spec.sails", ".spec.from")
        .replace(".spec.crew[*].who", ".spec.port");
    establish(&api, &definition(&version("v1", &flags, spec))).await;
    let line = api.post(BOATS, &boat("a", r#"{"from":3,"to":2}"#)).await.line();
    expect![[r#"422 Invalid: Boat.sea.io "a" is invalid: spec.from: Invalid value: from must be before to"#]]
        .assert_eq(&line);
    assert_eq!(api.post(BOATS, &boat("a", r#"{"from":1,"to":2,"port":"x"}"#)).await.line(), "201");
    let line = api.patch("merge", &format!("{BOATS}/a"), r#"{"spec":{"port":"y"}}"#).await.line();
    expect![[r#"422 Invalid: Boat.sea.io "a" is invalid: spec.port: Invalid value: "y": port is fixed"#]]
        .assert_eq(&line);
    let scaled = api.patch("merge", &format!("{BOATS}/a/scale"), r#"{"spec":{"replicas":5}}"#).await.line();
    assert!(scaled.contains("from must be before to"), "{scaled}");
}

#[tokio::test]
async fn a_schema_of_old_that_has_no_structure_is_told_and_then_mended() {
    use skiff_store::{Expect, Store};
    let store = std::sync::Arc::new(skiff_store::memory::MemoryStore::new(skiff_base::Clock::system()));
    // As apiextensions.k8s.io/v1beta1 took it: no types, and a field that only one branch of anyOf speaks of.
    let old = definition(
        r#"{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"properties":{"spec":{"anyOf":[
        {"properties":{"sails":{"type":"integer"}}}]}}}}}"#,
    );
    let mut old = json::decode_untyped(old.as_bytes()).unwrap();
    old.set(&["metadata", "uid"], "u");
    old.set(&["spec", "preserveUnknownFields"], true);
    let key = bytes::Bytes::from_static(b"test/registry/apiextensions.k8s.io/customresourcedefinitions//boats.sea.io");
    store.put(key, json::encode_untyped(&old).into(), Expect::Any, None).await.unwrap();
    let api = crate::support::api_over(store, |config| config).await;
    let path = format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name=boats.sea.io");
    let object = |event: &Tree| event.get("object").unwrap().clone();
    let told = event(&api, &path, |event| !condition(&object(event), "NonStructuralSchema").is_empty()).await;
    let told = object(&told);
    assert_eq!(condition(&told, "NonStructuralSchema"), "True Violations");
    let conditions = told.list_at(&["status", "conditions"]).iter();
    let messages: String = conditions
        .filter(|one| one.str_at(&["type"]) == "NonStructuralSchema")
        .map(|one| one.str_at(&["message"]))
        .collect();
    for expected in [
        "spec.versions[0].schema.openAPIV3Schema.type: Required value: must not be empty at the root",
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified \
         object fields",
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].anyOf[0].properties[sails].type: Forbidden: must be empty to \
         be structural",
    ] {
        assert!(messages.contains(expected), "{messages}");
    }
    // It is served all the same, and the condition goes with its reason.
    assert_eq!(condition(&told, "Established"), "True InitialNamesAccepted");
    let current = api.get(&format!("{DEFINITIONS}/boats.sea.io")).await.at(&["metadata", "resourceVersion"]);
    let mended = boats().replacen("\"spec\":{", "\"spec\":{\"preserveUnknownFields\":false,", 1);
    let mended = mended.replacen(
        "\"name\":\"boats.sea.io\"",
        &format!("\"name\":\"boats.sea.io\",\"resourceVersion\":\"{current}\""),
        1,
    );
    assert_eq!(api.put(&format!("{DEFINITIONS}/boats.sea.io"), &mended).await.line(), "200");
    event(&api, &path, |event| {
        let object = object(event);
        condition(&object, "NonStructuralSchema").is_empty() && condition(&object, "Established").starts_with("True")
    })
    .await;
}
