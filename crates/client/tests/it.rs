//! The reflector against a scripted server, under paused time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skiff_base::{Random, Shutdown, Tasks};
use skiff_client::{Body, Client, Endpoint, Informer, Informers, TransportError, View};

/// What the server does with the next request.
enum Answer {
    /// Answers with this code and body.
    Whole(u16, Value),
    /// Streams these lines and ends the stream.
    Ends(Vec<Value>),
    /// Streams these lines and keeps the stream open.
    Stays(Vec<Value>),
    /// Streams these lines and breaks in the middle of another.
    Cut(Vec<Value>),
}

#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<String>>,
}

#[async_trait]
impl Endpoint for Script {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let query = request.uri().query().unwrap_or("");
        let query: Vec<&str> = query.split('&').filter(|part| !part.starts_with("timeoutSeconds")).collect();
        self.requests.lock().push(query.join("&"));
        let refused = || TransportError { attempt: "GET".into(), cause: "refused".into() };
        let answer = self.answers.lock().pop_front().ok_or_else(refused)?;
        let line = |value: Value| Ok(Bytes::from(format!("{value}\n")));
        let (code, body): (u16, Body) = match answer {
            Answer::Whole(code, value) => (code, futures::stream::iter([line(value)]).boxed()),
            Answer::Ends(lines) => (200, futures::stream::iter(lines.into_iter().map(line)).boxed()),
            Answer::Stays(lines) => {
                (200, futures::stream::iter(lines.into_iter().map(line)).chain(futures::stream::pending()).boxed())
            }
            Answer::Cut(lines) => {
                let rest = futures::stream::iter([Ok(Bytes::from_static(b"{\"type\":"))]);
                (200, futures::stream::iter(lines.into_iter().map(line)).chain(rest).boxed())
            }
        };
        Ok(Response::builder().status(code).body(body).unwrap())
    }
}

fn object(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()}})
}

fn event(kind: &str, name: &str, version: u64) -> Value {
    json!({"type": kind, "object": object(name, version)})
}

fn bookmark(version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version.to_string()}}})
}

fn initial_end(version: u64) -> Value {
    json!({"type": "BOOKMARK", "object": {"metadata": {
        "resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}})
}

fn expired() -> Value {
    json!({"type": "ERROR", "object": {"status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}})
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
}

struct Outcome {
    names: Vec<String>,
    changes: Vec<String>,
    requests: Vec<String>,
}

/// Plays `answers` and gives what the informer knows and told after two minutes.
async fn play(answers: Vec<Answer>) -> Outcome {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), requests: Mutex::default() });
    let tasks = Tasks::new("test", Shutdown::new());
    let informers = Informers::new(Client::new(script.clone(), "test"), tasks.clone(), Random::seeded(1));
    let informer: Informer<ConfigMap> = informers.of();
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = changes.clone();
    informer.subscribe(move |change| {
        let kind = match (&change.old, &change.new) {
            (None, _) => "add",
            (_, None) => "delete",
            _ => "update",
        };
        seen.lock().push(format!("{kind} {}", change.key().name));
    });
    tokio::time::timeout(Duration::from_secs(100), informer.synced()).await.expect("the informer syncs");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let names = informer.store().iter().map(|object| object.meta().name.clone().unwrap()).collect();
    tasks.stop().await;
    let changes = changes.lock().clone();
    Outcome { names, changes, requests: script.requests.lock().clone() }
}

const WATCH_LIST: &str = "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

#[tokio::test(start_paused = true)]
async fn the_initial_state_streams_in_and_changes_follow() {
    let outcome = play(vec![Answer::Stays(vec![
        event("ADDED", "a", 1),
        event("ADDED", "b", 2),
        initial_end(3),
        event("MODIFIED", "a", 4),
        event("DELETED", "b", 5),
        event("ADDED", "c", 6),
    ])])
    .await;
    assert_eq!(outcome.names, ["a", "c"]);
    assert_eq!(outcome.changes, ["add a", "add b", "update a", "delete b", "add c"]);
    assert_eq!(outcome.requests, [WATCH_LIST]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_before_the_initial_state_is_complete_starts_over() {
    let outcome = play(vec![
        Answer::Cut(vec![event("ADDED", "a", 1), event("ADDED", "b", 2)]),
        Answer::Stays(vec![event("ADDED", "a", 1), initial_end(3)]),
    ])
    .await;
    assert_eq!(outcome.names, ["a"]);
    assert_eq!(outcome.changes, ["add a"]);
    assert_eq!(outcome.requests, [WATCH_LIST, WATCH_LIST]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_resumes_at_the_last_version_seen() {
    let outcome = play(vec![
        Answer::Ends(vec![event("ADDED", "a", 1), initial_end(3), event("MODIFIED", "a", 4), bookmark(9)]),
        Answer::Cut(vec![event("MODIFIED", "a", 11)]),
        Answer::Stays(vec![event("DELETED", "a", 12)]),
    ])
    .await;
    assert_eq!(outcome.changes, ["add a", "update a", "update a", "delete a"]);
    let resume = |version| format!("watch=1&allowWatchBookmarks=true&resourceVersion={version}");
    assert_eq!(outcome.requests, [WATCH_LIST.to_owned(), resume(9), resume(11)]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_fills_the_cache_anew_and_tells_only_differences() {
    for gone in [Answer::Ends(vec![expired()]), Answer::Whole(410, status(410, "Gone"))] {
        let outcome = play(vec![
            Answer::Ends(vec![event("ADDED", "a", 1), event("ADDED", "b", 2), event("ADDED", "c", 3), initial_end(3)]),
            gone,
            Answer::Stays(vec![event("ADDED", "a", 1), event("ADDED", "c", 8), event("ADDED", "d", 9), initial_end(9)]),
        ])
        .await;
        assert_eq!(outcome.names, ["a", "c", "d"]);
        assert_eq!(outcome.changes, ["add a", "add b", "add c", "delete b", "update c", "add d"]);
        assert_eq!(outcome.requests.len(), 3);
        assert_eq!(outcome.requests[2], WATCH_LIST);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streamed_lists_is_listed_in_pages() {
    let page = |items: Vec<Value>, token: &str| json!({"kind": "ConfigMapList", "metadata": {"resourceVersion": "7", "continue": token}, "items": items});
    let outcome = play(vec![
        Answer::Whole(422, status(422, "Invalid")),
        Answer::Whole(200, page(vec![object("a", 1)], "next")),
        Answer::Whole(200, page(vec![object("b", 2)], "")),
        Answer::Stays(vec![event("ADDED", "c", 8)]),
    ])
    .await;
    assert_eq!(outcome.names, ["a", "b", "c"]);
    assert_eq!(
        outcome.requests,
        [
            WATCH_LIST,
            "limit=500&resourceVersion=0",
            "limit=500&continue=next",
            "watch=1&allowWatchBookmarks=true&resourceVersion=7",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_asked_with_growing_pauses() {
    let script = Arc::new(Script::default());
    let tasks = Tasks::new("test", Shutdown::new());
    let informers = Informers::new(Client::new(script.clone(), "test"), tasks.clone(), Random::seeded(1));
    let _informer: Informer<ConfigMap> = informers.of();
    tokio::time::sleep(Duration::from_secs(600)).await;
    tasks.stop().await;
    let attempts = script.requests.lock().len();
    assert!((14..30).contains(&attempts), "{attempts} attempts in ten minutes");
}
