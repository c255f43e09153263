//! An aggregated API server: one group, one resource, everything in memory.
//!
//! It believes the front proxy that the ConfigMap `kube-system/extension-apiserver-authentication`
//! names, and nobody else. It speaks the old discovery only, as servers built years ago do.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::cluster;
use crate::serve::{Body, Identity, body, json_answer, serve};

const GROUP: &str = "wardle.example.com";
const VERSION: &str = "v1alpha1";
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
/// Changes a slow watcher may be behind.
const CHANGES_MAX: usize = 256;

struct Server {
    /// Names of front proxies; empty for any that its authority signed.
    allowed: Vec<String>,
    state: Mutex<State>,
    changes: broadcast::Sender<(String, Value)>,
}

#[derive(Default)]
struct State {
    version: u64,
    flunders: BTreeMap<(String, String), Value>,
}

/// Serves until the pod ends.
pub(crate) async fn run(folder: &Path, port: u16) -> Result<()> {
    let map = cluster::get(CONFIG_MAP).await.context("find out who may speak for others")?;
    let data = |key: &str| map["data"][key].as_str().unwrap_or_default().to_owned();
    let allowed = serde_json::from_str(&data("requestheader-allowed-names")).unwrap_or_default();
    let identity = Identity::new(folder).believing(data("requestheader-client-ca-file"));
    let server = Arc::new(Server { allowed, state: Mutex::default(), changes: broadcast::channel(CHANGES_MAX).0 });
    println!("serving {GROUP}/{VERSION} on port {port}");
    serve(port, identity, move |call| {
        let server = Arc::clone(&server);
        async move { server.answer(call.request, call.client.as_deref()).await }
    })
    .await
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    json_answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
            "message": message, "code": code.as_u16()}),
    )
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, proxy: Option<&str>) -> Response<Body> {
        let Some(user) = self.user(request.headers(), proxy) else {
            return failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
        };
        let path = request.uri().path().trim_matches('/').to_owned();
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["healthz" | "readyz" | "livez"] => json_answer(StatusCode::OK, &json!("ok")),
            ["apis"] => json_answer(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
            ["apis", GROUP, VERSION] => json_answer(StatusCode::OK, &resources()),
            ["apis", GROUP, VERSION, "flunders"] => self.collection("", &user, request).await,
            ["apis", GROUP, VERSION, "namespaces", namespace, "flunders"] => {
                self.collection(namespace, &user, request).await
            }
            ["apis", GROUP, VERSION, "namespaces", namespace, "flunders", name] => {
                self.one(namespace, name, request).await
            }
            _ => failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource"),
        }
    }

    /// The user a believed front proxy speaks for.
    fn user(&self, headers: &HeaderMap, proxy: Option<&str>) -> Option<String> {
        let proxy = proxy?;
        let believed = self.allowed.is_empty() || self.allowed.iter().any(|name| name == proxy);
        let user = headers.get("x-remote-user")?.to_str().ok()?;
        believed.then(|| user.to_owned())
    }

    async fn collection(&self, namespace: &str, user: &str, request: Request<Incoming>) -> Response<Body> {
        match *request.method() {
            Method::GET if request.uri().query().is_some_and(|query| query.contains("watch=")) => self.watch(namespace),
            Method::GET => {
                let state = self.state.lock();
                let mine = state.flunders.iter().filter(|((of, _), _)| namespace.is_empty() || of == namespace);
                let items: Vec<&Value> = mine.map(|(_, flunder)| flunder).collect();
                let metadata = json!({"resourceVersion": state.version.to_string()});
                json_answer(
                    StatusCode::OK,
                    &json!({"kind": "FlunderList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata, "items": items}),
                )
            }
            Method::POST => self.create(namespace, user, request).await,
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "method not allowed"),
        }
    }

    async fn create(&self, namespace: &str, user: &str, request: Request<Incoming>) -> Response<Body> {
        let Some(mut flunder) = body(request).await else {
            return failure(StatusCode::BAD_REQUEST, "BadRequest", "the body is no object");
        };
        let name = flunder["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = (namespace.to_owned(), name.clone());
        let mut state = self.state.lock();
        if name.is_empty() || state.flunders.contains_key(&key) {
            let message = format!("flunders.{GROUP} \"{name}\" already exists");
            return failure(StatusCode::CONFLICT, "AlreadyExists", &message);
        }
        state.version += 1;
        flunder["kind"] = json!("Flunder");
        flunder["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
        flunder["metadata"]["namespace"] = json!(namespace);
        flunder["metadata"]["uid"] = json!(format!("flunder-{}", state.version));
        flunder["metadata"]["resourceVersion"] = json!(state.version.to_string());
        flunder["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        flunder["metadata"]["annotations"]["wardle.example.com/creator"] = json!(user);
        state.flunders.insert(key, flunder.clone());
        drop(self.changes.send(("ADDED".into(), flunder.clone())));
        json_answer(StatusCode::CREATED, &flunder)
    }

    async fn one(&self, namespace: &str, name: &str, request: Request<Incoming>) -> Response<Body> {
        let key = (namespace.to_owned(), name.to_owned());
        let method = request.method().clone();
        let change = if method == Method::PUT { body(request).await } else { None };
        let mut state = self.state.lock();
        let Some(found) = state.flunders.get(&key).cloned() else {
            let message = format!("flunders.{GROUP} \"{name}\" not found");
            return failure(StatusCode::NOT_FOUND, "NotFound", &message);
        };
        match (method, change) {
            (Method::GET, _) => json_answer(StatusCode::OK, &found),
            (Method::PUT, Some(mut flunder)) => {
                state.version += 1;
                flunder["metadata"]["resourceVersion"] = json!(state.version.to_string());
                state.flunders.insert(key, flunder.clone());
                drop(self.changes.send(("MODIFIED".into(), flunder.clone())));
                json_answer(StatusCode::OK, &flunder)
            }
            (Method::DELETE, _) => {
                state.flunders.remove(&key);
                drop(self.changes.send(("DELETED".into(), found)));
                json_answer(
                    StatusCode::OK,
                    &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
                )
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "method not allowed"),
        }
    }

    /// What changes from now on, after what is there.
    fn watch(&self, namespace: &str) -> Response<Body> {
        let state = self.state.lock();
        let receiver = self.changes.subscribe();
        let first: Vec<(String, Value)> =
            state.flunders.values().map(|flunder| ("ADDED".to_owned(), flunder.clone())).collect();
        drop(state);
        let later = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.ok().map(|change| (change, receiver))
        });
        let namespace = namespace.to_owned();
        let wanted = move |(_, flunder): &(String, Value)| {
            std::future::ready(namespace.is_empty() || flunder["metadata"]["namespace"] == namespace.as_str())
        };
        let lines = futures::stream::iter(first).chain(later).filter(wanted).map(|(ty, object)| {
            let line = format!("{}\n", json!({"type": ty, "object": object}));
            Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
        });
        let mut answer = Response::new(StreamBody::new(lines).boxed_unsync());
        answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        answer
    }
}

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [{
        "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
        "verbs": ["create", "delete", "get", "list", "update", "watch"],
    }]})
}
