//! Waiting for the server to have done something, by watching.

use futures::StreamExt;
use http::Method;
use skiff_object::{Tree, json};

use crate::support::Api;

/// Waits until an object is as `wanted`, by watching it.
pub(crate) async fn until(api: &Api, collection: &str, name: &str, wanted: impl Fn(&Tree) -> bool) -> Tree {
    after(api, collection, name, "0", wanted).await
}

/// Waits until an object as it was seen is gone, which may have happened meanwhile.
pub(crate) async fn until_gone(api: &Api, collection: &str, seen: &Tree) {
    let [name, revision] = ["name", "resourceVersion"].map(|field| seen.str_at(&["metadata", field]));
    after(api, collection, name, revision, |object| object.str_at(&["event"]) == "DELETED").await;
}

async fn after(api: &Api, collection: &str, name: &str, revision: &str, wanted: impl Fn(&Tree) -> bool) -> Tree {
    let path = format!("{collection}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={revision}");
    let mut events = api.open(Method::GET, &path, &[], b"").await.into_body().into_stream();
    let mut buffer = Vec::new();
    loop {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(20), events.next()).await;
        buffer.extend_from_slice(&chunk.expect("the object never became what is wanted").unwrap().unwrap());
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event = json::decode_untyped(&line).unwrap();
            let mut object = event.get("object").cloned().unwrap_or_default();
            object.set(&["event"], event.str_at(&["type"]));
            if wanted(&object) {
                return object;
            }
        }
    }
}
