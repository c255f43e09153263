//! Conversion of a custom resource between `v1`, which has `spec.size`, and `v2`, which calls it `spec.capacity`.
//!
//! | path | behaviour |
//! | --- | --- |
//! | `/convert` | converts; fails with the text of an object's annotation `conversion.example.com/fail` |
//! | `/fewer` | loses one object |
//! | `/renames` | changes names |
//! | `/other-version` | forgets to set `apiVersion` |
//! | `/other-uid` | answers another question |
//! | `/labels` | converts and adds a label, which a conversion may |
//! | `/error` | fails with 500 and a text |
//!
//! `GET /calls` tells how many objects were asked for in each version.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use http::{Method, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::serve::{Body, Call, Identity, answer, body, json_answer, serve};

/// Objects by the version that was asked for.
type Counts = Mutex<BTreeMap<String, usize>>;

/// Serves until the pod ends.
pub(crate) async fn run(folder: &Path, port: u16) -> Result<()> {
    let counts: Arc<Counts> = Arc::default();
    println!("serving conversion on port {port}");
    serve(port, Identity::new(folder), move |call| {
        let counts = Arc::clone(&counts);
        async move { handle(&counts, call).await }
    })
    .await
}

async fn handle(counts: &Counts, call: Call) -> Response<Body> {
    let path = call.request.uri().path().trim_matches('/').to_owned();
    match (call.request.method(), path.as_str()) {
        (&Method::GET, "readyz") => return json_answer(StatusCode::OK, &json!("ok")),
        (&Method::GET, "calls") => return json_answer(StatusCode::OK, &json!(*counts.lock())),
        (&Method::POST, "error") => {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the webhook is out of order");
        }
        (&Method::POST, _) => {}
        _ => return answer(StatusCode::NOT_FOUND, "text/plain", "no such behaviour"),
    }
    let Some(review) = body(call.request).await else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", "the body is no ConversionReview");
    };
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    *counts.lock().entry(wanted.to_owned()).or_default() += objects.len();
    let mut response = convert(&path, wanted, objects);
    response["uid"] = if path == "other-uid" { json!("another") } else { request["uid"].clone() };
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    json_answer(StatusCode::OK, &answer)
}

fn convert(behaviour: &str, wanted: &str, mut objects: Vec<Value>) -> Value {
    let failure = objects.iter().find_map(|object| {
        object["metadata"]["annotations"]["conversion.example.com/fail"].as_str().map(str::to_owned)
    });
    if let Some(message) = failure {
        return json!({"result": {"status": "Failure", "message": message}});
    }
    let (from, to) = if wanted.ends_with("/v2") { ("size", "capacity") } else { ("capacity", "size") };
    for object in &mut objects {
        if let Some(spec) = object["spec"].as_object_mut()
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.to_owned(), value);
        }
        match behaviour {
            "other-version" => {}
            _ => object["apiVersion"] = json!(wanted),
        }
        match behaviour {
            "renames" => object["metadata"]["name"] = json!("renamed"),
            "labels" => object["metadata"]["labels"]["converted-to"] = json!(wanted.rsplit('/').next()),
            _ => {}
        }
    }
    if behaviour == "fewer" {
        objects.pop();
    }
    json!({"result": {"status": "Success"}, "convertedObjects": objects})
}
