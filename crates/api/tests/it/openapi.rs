//! The OpenAPI documents: put together from parts, in every form a client asks for.

use std::io::Read;

use http::{Method, header};
use skiff_object::{Tree, json};

use crate::custom::until;
use crate::support::{Api, api};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// Defines a kind in a group and gives the Swagger document once it is in it.
async fn define(api: &Api, group: &str, text: &str) -> Tree {
    let definition = format!(
        r#"{{"metadata":{{"name":"things.{group}"}},"spec":{{"group":"{group}","scope":"Namespaced","names":{{"plural":"things","kind":"Thing"}},"versions":[{{"name":"v1","served":true,"storage":true,"subresources":{{"status":{{}}}},"schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"spec":{{"type":"object","description":"{text}","properties":{{"size":{{"type":"integer","default":3,"maximum":9}}}}}}}}}}}}}}]}}}}"#
    );
    let line = api.post(DEFINITIONS, &definition).await.line();
    if line != "201" {
        let path = format!("{DEFINITIONS}/things.{group}");
        assert_eq!(api.patch("merge", &path, &definition).await.line(), "200", "{line}");
    }
    until(api, &format!("/openapi/v3/apis/{group}/v1"), |answer| String::from_utf8_lossy(&answer.body).contains(text))
        .await;
    let document = swagger(api).await;
    assert_eq!(description(&document, group), text);
    document
}

/// Takes a definition back and gives the Swagger document without it.
async fn remove(api: &Api, group: &str) -> Tree {
    assert_eq!(api.delete(&format!("{DEFINITIONS}/things.{group}")).await.status, 200);
    until(api, &format!("/openapi/v3/apis/{group}/v1"), |answer| answer.status == 404).await;
    swagger(api).await
}

async fn swagger(api: &Api) -> Tree {
    let body = api.get("/openapi/v2").await.body;
    let (tree, issues) = json::decode_untyped_strict(&body).unwrap();
    assert!(issues.is_empty(), "no path and no definition stands twice");
    tree
}

fn model(group: &str) -> String {
    group.split('.').rev().chain(["v1", "Thing"]).collect::<Vec<_>>().join(".")
}

fn description(document: &Tree, group: &str) -> String {
    document.str_at(&["definitions", &model(group), "properties", "spec", "description"]).to_owned()
}

fn count(document: &Tree, section: &str) -> usize {
    document.get(section).and_then(Tree::as_map).map_or(0, skiff_object::Map::len)
}

#[tokio::test]
async fn definitions_come_change_and_go_and_the_rest_stays() {
    let api = api().await;
    let empty = swagger(&api).await;
    let one = define(&api, "one.io", "the first").await;
    let both = define(&api, "two.io", "the second").await;
    assert_eq!(count(&one, "definitions"), count(&empty, "definitions") + 2);
    assert_eq!(count(&both, "definitions"), count(&empty, "definitions") + 4);
    assert_eq!(count(&both, "paths") - count(&one, "paths"), count(&one, "paths") - count(&empty, "paths"));
    let changed = define(&api, "one.io", "the other").await;
    assert_eq!(description(&changed, "two.io"), "the second");
    for key in ["swagger", "info", "security", "securityDefinitions"] {
        assert_eq!(changed.get(key), empty.get(key), "{key}");
    }
    let left = remove(&api, "one.io").await;
    assert_eq!((description(&left, "one.io").as_str(), count(&left, "paths")), ("", count(&one, "paths")));
    assert_eq!(remove(&api, "two.io").await, empty);
}

#[tokio::test]
async fn documents_have_tags_and_are_compressed_once() {
    let api = api().await;
    define(&api, "one.io", "a thing").await;
    for path in ["/openapi/v2", "/openapi/v3/api/v1"] {
        let plain = api.get(path).await;
        let tag = plain.headers[header::ETAG].to_str().unwrap().to_owned();
        assert!(tag.len() == 130 && tag[1..129].bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()));
        let known = api.send(Method::GET, path, &[("if-none-match", &tag)], b"").await;
        assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
        let gzip = api.send(Method::GET, path, &[("accept-encoding", "gzip")], b"").await;
        assert_eq!(gzip.headers[header::CONTENT_ENCODING], "gzip");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut text).unwrap();
        assert_eq!(text, plain.body, "{path}");
    }
}

#[tokio::test]
async fn version_3_is_spoken_as_protobuf_too() {
    let api = api().await;
    define(&api, "one.io", "a thing of protobuf").await;
    for (path, words) in [
        ("/openapi/v3/apis/one.io/v1", &b"a thing of protobuf"[..]),
        ("/openapi/v3/apis/apps/v1", b"#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"),
    ] {
        for accept in
            [V3_PROTOBUF, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf, application/json;q=0.5"]
        {
            let answer = api.send(Method::GET, path, &[("accept", accept)], b"").await;
            assert_eq!(answer.headers[header::CONTENT_TYPE], V3_PROTOBUF);
            assert!(answer.body.starts_with(b"\x0a\x053.0.0"));
            assert!(answer.body.windows(words.len()).any(|window| window == words));
        }
        let json = api.send(Method::GET, path, &[("accept", "application/json")], b"").await;
        assert_eq!(json.headers[header::CONTENT_TYPE], "application/json");
        assert_eq!(json.headers[header::VARY], "Accept");
    }
    let refused = api.send(Method::GET, "/openapi/v3/api/v1", &[("accept", "text/csv")], b"").await;
    assert_eq!(refused.status, 406);
}
