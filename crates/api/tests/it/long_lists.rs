//! Lists that are sent as they are read, and what selectors find in large collections.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, header};
use skiff_api::Config;
use skiff_api::body::Body;
use skiff_api::limits::Limits;
use skiff_object::{Tree, json, protobuf};
use skiff_store::{Expect, Store};

use crate::support::{Api, api, api_of};

const COUNT: usize = 3_000;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIG_MAP_LIST: &str = "application/vnd.kubernetes.protobuf";
/// What a chunk may have: its own size and the object that took it there.
const CHUNK_BYTES_MAX: usize = 66 * 1024;

/// Puts objects where the API would, without its way of doing it.
async fn fill(api: &Api) {
    for number in 0..COUNT {
        let namespace = if number % 3 == 0 { "other" } else { "default" };
        let value = format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"c{number:05}","namespace":"{namespace}","labels":{{"app":"a{}","n":"{number}"}}}},"data":{{"text":"{}"}}}}"#,
            number % 50,
            "x".repeat(900)
        );
        let key = format!("test/registry/core/configmaps/{namespace}/c{number:05}");
        api.store.put(key.into(), value.into(), Expect::Absent, None).await.unwrap();
    }
}

/// The chunks of an answer.
async fn chunks(api: &Api, path: &str, headers: &[(&str, &str)]) -> (http::HeaderMap, Vec<Bytes>) {
    let (head, body) = api.open(Method::GET, path, headers, b"").await.into_parts();
    assert_eq!(head.status, 200);
    let Body::Stream(stream) = body else { panic!("{path} is not sent as it is read") };
    (head.headers, stream.map(|chunk| chunk.unwrap()).collect().await)
}

fn names(list: &Tree, items: &str) -> Vec<String> {
    let named = |item: &Tree| {
        let object = if items == "rows" { item.get("object").unwrap() } else { item };
        object.str_at(&["metadata", "name"]).to_owned()
    };
    list.list_at(&[items]).iter().map(named).collect()
}

#[tokio::test]
async fn a_long_list_is_sent_in_small_chunks_in_every_form() {
    let api = api().await;
    fill(&api).await;
    let path = "/api/v1/configmaps";
    let mut expected: Option<Vec<String>> = None;
    for (accept, query, items) in [
        ("application/json", "", "items"),
        ("application/json", "?pretty=true", "items"),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "", "items"),
        ("application/json;as=Table;g=meta.k8s.io;v=v1", "", "rows"),
    ] {
        let (headers, chunks) = chunks(&api, &format!("{path}{query}"), &[("accept", accept)]).await;
        assert!(headers.get(header::CONTENT_LENGTH).is_none());
        assert!(chunks.len() > 3, "{accept}");
        // The first holds what was made before it was known that the list is long.
        let largest = chunks.iter().skip(1).map(Bytes::len).max().unwrap();
        assert!(largest <= if query.is_empty() { CHUNK_BYTES_MAX } else { 2 * CHUNK_BYTES_MAX }, "{accept}: {largest}");
        let whole = chunks.concat();
        let tree = json::decode_untyped(&whole).unwrap();
        assert!(tree.str_at(&["kind"]).ends_with(if items == "rows" { "Table" } else { "List" }));
        assert!(tree.list_at(&[items]).len() >= COUNT);
        let names = names(&tree, items);
        assert_eq!(*expected.get_or_insert_with(|| names.clone()), names, "{accept}");
        if !query.is_empty() {
            assert!(whole.starts_with(b"{\n  \"kind\": \"ConfigMapList\",\n"), "indented");
        }
    }
    let (headers, chunks) = chunks(&api, path, &[("accept-encoding", "gzip")]).await;
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&chunks.concat()[..]).read_to_end(&mut text).unwrap();
    assert_eq!(names(&json::decode_untyped(&text).unwrap(), "items"), expected.unwrap());
}

#[tokio::test]
async fn a_long_protobuf_list_says_its_length_first() {
    let api = api().await;
    fill(&api).await;
    let plain = names(&api.get("/api/v1/configmaps").await.tree(), "items");
    for (accept, ty, api_version) in [
        (CONFIG_MAP_LIST, "ConfigMapList", "v1"),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            "PartialObjectMetadataList",
            "meta.k8s.io/v1",
        ),
    ] {
        // Once with lengths that nobody knows yet, once with those that are remembered.
        for _ in 0..2 {
            let whole = api.send(Method::GET, "/api/v1/configmaps", &[("accept", accept)], b"").await.body;
            let envelope = protobuf::envelope::decode(&whole).unwrap();
            assert_eq!((envelope.api_version, envelope.kind), (api_version, ty));
            let ty = skiff_kinds::type_of(api_version, ty).unwrap();
            let list = protobuf::decode(envelope.raw, skiff_kinds::schema(), ty).unwrap();
            assert_eq!(names(&list, "items"), plain);
        }
    }
    // A change is of another length.
    let body = r#"{"data":{"text":"short"}}"#;
    assert_eq!(api.patch("merge", &format!("{CONFIG_MAPS}/c00001"), body).await.line(), "200");
    let (_, chunks) = chunks(&api, "/api/v1/configmaps", &[("accept", CONFIG_MAP_LIST)]).await;
    let whole = chunks.concat();
    let ty = skiff_kinds::type_of("v1", "ConfigMapList").unwrap();
    let raw = protobuf::envelope::decode(&whole).unwrap().raw;
    assert_eq!(names(&protobuf::decode(raw, skiff_kinds::schema(), ty).unwrap(), "items"), plain);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_loses_its_list() {
    let request_timeout = Duration::from_secs(60);
    let api = api_of(|config| Config { limits: Limits { request_timeout, ..Limits::default() }, ..config }).await;
    fill(&api).await;
    let body = api.open(Method::GET, "/api/v1/configmaps", &[], b"").await.into_body();
    let Body::Stream(mut stream) = body else { panic!("a short list") };
    assert!(stream.next().await.unwrap().is_ok());
    tokio::time::sleep(request_timeout - Duration::from_secs(1)).await;
    assert!(stream.next().await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the list was not read within the time of a request");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn selectors_find_in_a_large_collection_what_a_look_at_every_object_finds() {
    let api = api().await;
    fill(&api).await;
    let all = api.get("/api/v1/configmaps").await.tree();
    let label = |item: &Tree, key: &str| item.str_at(&["metadata", "labels", key]).to_owned();
    let namespace = |item: &Tree| item.str_at(&["metadata", "namespace"]).to_owned();
    let name = |item: &Tree| item.str_at(&["metadata", "name"]).to_owned();
    type Check<'a> = Box<dyn Fn(&Tree) -> bool + 'a>;
    let cases: Vec<(&str, Check<'_>)> = vec![
        ("labelSelector=app%3Da7", Box::new(|item| label(item, "app") == "a7")),
        ("labelSelector=app+in+(a7,a8,zz)", Box::new(|item| ["a7", "a8"].contains(&&*label(item, "app")))),
        ("labelSelector=app%3Da7,n%3D57", Box::new(|item| label(item, "n") == "57")),
        ("labelSelector=app%3Da7,n!%3D57", Box::new(|item| label(item, "app") == "a7" && label(item, "n") != "57")),
        ("labelSelector=app%3Dnone", Box::new(|_| false)),
        ("labelSelector=none", Box::new(|_| false)),
        ("labelSelector=app", Box::new(|item| !label(item, "app").is_empty())),
        ("labelSelector=!app", Box::new(|item| label(item, "app").is_empty())),
        (
            "labelSelector=app%3Da7&fieldSelector=metadata.namespace%3Dother",
            Box::new(|item| label(item, "app") == "a7" && namespace(item) == "other"),
        ),
        ("fieldSelector=metadata.name%3Dc00009", Box::new(|item| name(item) == "c00009")),
        ("fieldSelector=metadata.name%3Dc00009,metadata.namespace%3Ddefault", Box::new(|_| false)),
    ];
    for round in 0..2 {
        for (query, wanted) in &cases {
            let expected: Vec<String> = all.list_at(&["items"]).iter().filter(|item| wanted(item)).map(name).collect();
            let found = names(&api.get(&format!("/api/v1/configmaps?{query}")).await.tree(), "items");
            assert_eq!(found, expected, "{query}, round {round}");
            // In pages it is the same.
            let (mut paged, mut token) = (Vec::new(), String::new());
            loop {
                let page = api.get(&format!("/api/v1/configmaps?{query}&limit=700&continue={token}")).await.tree();
                paged.extend(names(&page, "items"));
                token = page.str_at(&["metadata", "continue"]).to_owned();
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(paged, expected, "{query} in pages, round {round}");
        }
    }
    // What changes is found as it is now.
    let body = r#"{"metadata":{"labels":{"app":"fresh"}}}"#;
    assert_eq!(api.patch("merge", &format!("{CONFIG_MAPS}/c00001"), body).await.line(), "200");
    assert_eq!(api.delete(&format!("{CONFIG_MAPS}/c00007")).await.line(), "200");
    let fresh = api.get("/api/v1/configmaps?labelSelector=app%3Dfresh").await.tree();
    assert_eq!(names(&fresh, "items"), ["c00001"]);
    let left = api.get("/api/v1/configmaps?labelSelector=n+in+(1,7,8)").await.tree();
    assert_eq!(names(&left, "items"), ["c00001", "c00008"]);
}
