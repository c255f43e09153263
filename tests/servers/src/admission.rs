//! Admission webhooks, mutating and validating: what one does is its path, and what was asked can be read back.
//!
//! | path | behaviour |
//! | --- | --- |
//! | `/allow` | allows |
//! | `/deny` | refuses everything |
//! | `/rules` | refuses what the object (of a delete, the old one) asks for by the annotation `admission.example.com/deny`, with the code of `admission.example.com/code` |
//! | `/label/NAME` | adds the label NAME=yes |
//! | `/order/NAME` | appends NAME to the annotation `admission.example.com/order` |
//! | `/sidecar` | adds a container to a pod that has none of that name |
//! | `/field/NAME` | adds the field `spec.NAME: added` |
//! | `/slow/SECONDS` | allows after a while |
//! | `/warn` | allows with two warnings and an audit annotation |
//! | `/error` | fails with 500 and a text |
//! | `/garbage` | answers what is no review |
//! | `/other-uid` | answers another question |
//! | `/bad-patch` | answers a patch that cannot be applied |
//!
//! `GET /calls` lists the reviews that came, one in each line, oldest first; `DELETE /calls` forgets them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::serve::{Body, Call, Identity, answer, body, json_answer, serve};

/// Reviews that are kept: a test that asks for more has lost its way.
const CALLS_MAX: usize = 512;
const PREFIX: &str = "admission.example.com";

/// Every review with the path it came to.
type Calls = Mutex<VecDeque<(String, Value)>>;

/// Serves until the pod ends.
pub(crate) async fn run(folder: &Path, port: u16) -> Result<()> {
    let calls: Arc<Calls> = Arc::default();
    println!("serving admission webhooks on port {port}");
    serve(port, Identity::new(folder), move |call| {
        let calls = Arc::clone(&calls);
        async move { handle(&calls, call).await }
    })
    .await
}

async fn handle(calls: &Calls, call: Call) -> Response<Body> {
    let path = call.request.uri().path().trim_matches('/').to_owned();
    match (call.request.method(), path.as_str()) {
        (&Method::GET, "readyz") => return json_answer(StatusCode::OK, &json!("ok")),
        (&Method::GET, "calls") => return listing(calls),
        (&Method::DELETE, "calls") => {
            calls.lock().clear();
            return json_answer(StatusCode::OK, &json!({}));
        }
        (&Method::POST, _) => {}
        _ => return answer(StatusCode::NOT_FOUND, "text/plain", "no such behaviour"),
    }
    let Some(review) = body(call.request).await else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", "the body is no AdmissionReview");
    };
    remember(calls, &path, &review);
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["error"] => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the webhook is out of order"),
        ["garbage"] => answer(StatusCode::OK, "application/json", "this is no review"),
        behaviour => reply(&review, judge(behaviour, &review["request"]).await),
    }
}

fn remember(calls: &Calls, path: &str, review: &Value) {
    let mut calls = calls.lock();
    if calls.len() == CALLS_MAX {
        calls.pop_front();
    }
    calls.push_back((path.to_owned(), review.clone()));
}

fn listing(calls: &Calls) -> Response<Body> {
    let lines = calls.lock().iter().fold(String::new(), |lines, (path, review)| lines + &line(path, review));
    answer(StatusCode::OK, "text/plain", lines)
}

/// What a test can ask for by a pattern: who was asked what about which object, then the review itself.
fn line(path: &str, review: &Value) -> String {
    let request = &review["request"];
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    let resource = &request["resource"];
    let sub = request["subResource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
    let part = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    let (group, version, plural) = (part("group"), part("version"), part("resource"));
    let (operation, name) = (text("operation"), text("name"));
    format!("{path} {operation} {group}/{version}/{plural}{sub} {name} {review}\n")
}

fn reply(review: &Value, mut response: Value) -> Response<Body> {
    if response["uid"].is_null() {
        response["uid"] = review["request"]["uid"].clone();
    }
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    json_answer(StatusCode::OK, &answer)
}

async fn judge(behaviour: &[&str], request: &Value) -> Value {
    let object = &request["object"];
    match behaviour {
        ["allow"] => json!({"allowed": true}),
        ["deny"] => deny("this webhook denies all requests", 403),
        ["rules"] => rules(if request["operation"] == "DELETE" { &request["oldObject"] } else { object }),
        ["label", name] => patch(add(object, "labels", name, "yes")),
        ["order", name] => {
            let before = object["metadata"]["annotations"][format!("{PREFIX}/order")].as_str().unwrap_or_default();
            patch(add(object, "annotations", &format!("{PREFIX}/order"), &format!("{before}{name}.")))
        }
        ["sidecar"] => sidecar(object),
        ["field", name] => patch(json!([{"op": "add", "path": format!("/spec/{name}"), "value": "added"}])),
        ["slow", seconds] => {
            tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap_or_default())).await; // as it is told
            json!({"allowed": true})
        }
        ["warn"] => json!({
            "allowed": true,
            "warnings": ["this is the first warning", "and this the second"],
            "auditAnnotations": {"looked-at": object["metadata"]["name"].as_str().unwrap_or("nothing")},
        }),
        ["other-uid"] => json!({"allowed": true, "uid": "another"}),
        ["bad-patch"] => patch(json!([{"op": "remove", "path": "/nowhere/at/all"}])),
        _ => deny("no such behaviour", 404),
    }
}

fn deny(message: &str, code: u64) -> Value {
    json!({"allowed": false, "status": {"message": message, "code": code}})
}

fn rules(object: &Value) -> Value {
    let note = |name: &str| object["metadata"]["annotations"][format!("{PREFIX}/{name}")].as_str();
    match note("deny") {
        Some(message) => deny(message, note("code").and_then(|code| code.parse().ok()).unwrap_or(403)),
        None => json!({"allowed": true}),
    }
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

/// Sets a key of the labels or annotations, which may not be there yet.
fn add(object: &Value, map: &str, key: &str, value: &str) -> Value {
    if object["metadata"][map].is_object() {
        let key = key.replace('~', "~0").replace('/', "~1");
        return json!([{"op": "add", "path": format!("/metadata/{map}/{key}"), "value": value}]);
    }
    json!([{"op": "add", "path": format!("/metadata/{map}"), "value": {(key): value}}])
}

fn sidecar(pod: &Value) -> Value {
    let containers = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
    if containers.iter().any(|container| container["name"] == "sidecar") {
        return json!({"allowed": true});
    }
    let image = containers.first().map(|container| container["image"].clone()).unwrap_or_default();
    let container = json!({"name": "sidecar", "image": image, "command": ["sleep", "3600"]});
    patch(json!([{"op": "add", "path": "/spec/containers/-", "value": container}]))
}
