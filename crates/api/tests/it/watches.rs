//! Watches: what is sent, in which order, and how they end.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use skiff_object::{Tree, json};

use crate::support::{Api, CONFIG_MAPS, api};

/// The lines of a body; several may come in one chunk, and no chunk ends within one.
struct Stream(futures::stream::BoxStream<'static, Result<bytes::Bytes, skiff_api::body::BodyError>>, bytes::Bytes);

impl Stream {
    async fn next(&mut self) -> Option<Tree> {
        if self.1.is_empty() {
            let chunk =
                tokio::time::timeout(Duration::from_secs(10), self.0.next()).await.expect("an event in time")?;
            self.1 = chunk.unwrap();
        }
        let end = self.1.iter().position(|byte| *byte == b'\n').expect("whole lines");
        Some(json::decode_untyped(&self.1.split_to(end + 1)).unwrap())
    }

    /// Type and name of the next event.
    async fn line(&mut self) -> String {
        match self.next().await {
            None => "end".into(),
            Some(event) => {
                format!("{} {}", event.str_at(&["type"]), event.str_at(&["object", "metadata", "name"]))
            }
        }
    }
}

async fn watch(api: &Api, query: &str) -> Stream {
    let response = api.open(Method::GET, &format!("{CONFIG_MAPS}?watch=true{query}"), &[], b"").await;
    assert_eq!(response.status(), 200);
    Stream(response.into_body().into_stream(), bytes::Bytes::new())
}

async fn put(api: &Api, name: &str, label: &str) {
    let body = format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#);
    if api.post(CONFIG_MAPS, &body).await.status == 409 {
        assert_eq!(api.put(&format!("{CONFIG_MAPS}/{name}"), &body).await.line(), "200");
    }
}

#[tokio::test]
async fn a_watch_without_version_begins_with_what_is_there() {
    let api = api().await;
    put(&api, "a", "x").await;
    let mut events = watch(&api, "").await;
    assert_eq!(events.line().await, "ADDED a");
    put(&api, "a", "y").await;
    assert_eq!(events.line().await, "MODIFIED a");
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(events.line().await, "DELETED a");
}

#[tokio::test]
async fn a_watch_resumes_after_its_version() {
    let api = api().await;
    put(&api, "a", "x").await;
    let version = api.get(CONFIG_MAPS).await.at(&["metadata", "resourceVersion"]);
    put(&api, "b", "x").await;
    let mut events = watch(&api, &format!("&resourceVersion={version}")).await;
    assert_eq!(events.line().await, "ADDED b");
}

#[tokio::test]
async fn entering_and_leaving_a_selector_is_added_and_deleted() {
    let api = api().await;
    put(&api, "a", "no").await;
    let mut events = watch(&api, "&labelSelector=l%3Dyes").await;
    put(&api, "a", "yes").await;
    put(&api, "a", "no").await;
    put(&api, "other", "no").await;
    put(&api, "a", "yes").await;
    api.delete(&format!("{CONFIG_MAPS}/a")).await;
    for expected in ["ADDED a", "DELETED a", "ADDED a", "DELETED a"] {
        assert_eq!(events.line().await, expected);
    }
}

#[tokio::test]
async fn initial_events_end_with_an_annotated_bookmark() {
    let api = api().await;
    put(&api, "a", "x").await;
    let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = watch(&api, query).await;
    assert_eq!(events.line().await, "ADDED a");
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark.str_at(&["type"]), "BOOKMARK");
    assert_eq!(bookmark.str_at(&["object", "metadata", "annotations", "k8s.io/initial-events-end"]), "true");
    let version = api.get(CONFIG_MAPS).await.at(&["metadata", "resourceVersion"]);
    assert_eq!(bookmark.str_at(&["object", "metadata", "resourceVersion"]), version);
}

#[tokio::test]
async fn a_watch_ends_when_it_should_with_a_bookmark() {
    let api = api().await;
    let mut events = watch(&api, "&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=1").await;
    let mut last = String::new();
    while let Some(event) = events.next().await {
        last = event.str_at(&["type"]).to_owned();
    }
    assert_eq!(last, "BOOKMARK");
}

#[tokio::test]
async fn a_version_that_is_gone_ends_the_watch_with_an_error() {
    use skiff_store::Store;
    let api = api().await;
    // The cache of this resource starts after the compaction, so it remembers nothing older.
    let current = api.store.revision();
    api.store.compact(current).await.unwrap();
    let response = api.open(Method::GET, "/apis/batch/v1/jobs?watch=1&resourceVersion=1", &[], b"").await;
    let mut events = Stream(response.into_body().into_stream(), bytes::Bytes::new());
    let event = events.next().await.unwrap();
    assert_eq!((event.str_at(&["type"]), event.str_at(&["object", "reason"])), ("ERROR", "Expired"));
    assert_eq!(event.int_at(&["object", "code"]), Some(410));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn two_watchers_see_the_same_bytes_in_the_same_order() {
    let api = api().await;
    let (mut one, mut two) = (watch(&api, "&resourceVersion=1").await, watch(&api, "&resourceVersion=1").await);
    for index in 0..20 {
        put(&api, &format!("c{}", index % 3), &index.to_string()).await;
    }
    for _ in 0..20 {
        assert_eq!(one.next().await, two.next().await);
    }
}
