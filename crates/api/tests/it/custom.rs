//! Custom resources take the same way as built-in ones.

use std::time::Duration;

use crate::support::api;

const DEFINITION: &str = r#"{"metadata":{"name":"boats.sea.io"},"spec":{"group":"sea.io","scope":"Namespaced",
    "names":{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"},
    "versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{
    "type":"object","properties":{"cargo":{"type":"object","properties":{"metadata":{"type":"object",
    "x-kubernetes-preserve-unknown-fields":true}}},"spec":{"type":"object","properties":{"sails":{"type":"integer",
    "default":2}}},"status":{"type":"object","properties":{"afloat":{"type":"boolean"}}}}}}}]}}"#;

#[tokio::test]
async fn a_definition_is_served_and_forgotten() {
    let api = api().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(api.post(definitions, DEFINITION).await.line(), "201");
    let boats = "/apis/sea.io/v1/namespaces/default/boats";
    tokio::time::timeout(Duration::from_secs(10), async {
        while api.get(boats).await.status != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the definition is served");
    let body =
        r#"{"apiVersion":"sea.io/v1","kind":"Boat","metadata":{"name":"a"},"cargo":{"metadata":{"x":1}},"spec":{}}"#;
    let made = api.post(boats, body).await;
    assert_eq!((made.line(), made.at(&["spec", "sails"])), ("201".into(), "2".into()));
    assert_ne!(made.at(&["metadata", "resourceVersion"]), "-");
    assert_eq!(made.at(&["cargo", "metadata"]), r#"{"x":1}"#);
    let status = api.patch("merge", &format!("{boats}/a/status"), r#"{"status":{"afloat":true}}"#).await;
    assert_eq!((status.line(), status.at(&["status", "afloat"])), ("200".into(), "true".into()));
    let list = api.get(boats).await.tree();
    assert_eq!(list.list_at(&["items"])[0].str_at(&["kind"]), "Boat");
    assert_eq!(api.get("/apis/sea.io/v1").await.status, 200);
    let conditions = api.get(&format!("{definitions}/boats.sea.io")).await.at(&["status", "conditions"]);
    assert!(conditions.contains("Established"), "{conditions}");
    api.delete(&format!("{definitions}/boats.sea.io")).await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while api.get(boats).await.status != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the definition is forgotten");
}
