//! Waiting for the server to have done something, by watching.

use futures::StreamExt;
use http::Method;
use skiff_object::{Tree, json};

use crate::support::Api;

/// Waits until an object is as `wanted`, by watching it.
pub(crate) async fn until(api: &Api, collection: &str, name: &str, wanted: impl Fn(&Tree) -> bool) -> Tree {
    let path = format!("{collection}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion=0");
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
