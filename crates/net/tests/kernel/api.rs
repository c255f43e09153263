//! An API that streams what the test puts into it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{Request, Response};
use serde_json::{Value, json};
use skiff_base::{Random, Shutdown, Tasks};
use skiff_client::{Body, Client, Endpoint, Informers, TransportError};

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Value>,
    watchers: Vec<(String, UnboundedSender<Result<Bytes, TransportError>>)>,
    version: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Api(Arc<parking_lot::Mutex<State>>);

impl Api {
    /// Creates or changes an object of the collection with this plural name.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.0.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let key = (plural.to_owned(), format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]));
        let kind = if state.objects.insert(key, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.tell(plural, kind, &object);
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.0.lock();
        let key = (plural.to_owned(), format!("{}/{}", json!(namespace), json!(name)));
        let object = state.objects.remove(&key).unwrap();
        state.tell(plural, "DELETED", &object);
    }

    pub(crate) fn informers(&self) -> (Informers, Tasks) {
        let tasks = Tasks::new("test", Shutdown::new());
        let client = Client::new(Arc::new(self.clone()), "test");
        (Informers::new(client, tasks.group("informers"), Random::seeded(1)), tasks)
    }
}

impl State {
    fn tell(&self, plural: &str, kind: &str, object: &Value) {
        for (_, watcher) in self.watchers.iter().filter(|(watched, _)| watched == plural) {
            let _ = watcher.unbounded_send(Ok(line(kind, object)));
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

#[async_trait]
impl Endpoint for Api {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let plural = request.uri().path().rsplit('/').next().unwrap_or("").to_owned();
        assert!(request.uri().query().is_some_and(|query| query.contains("watch=")), "only watches: {}", request.uri());
        let (sender, receiver) = unbounded();
        let mut state = self.0.lock();
        for ((watched, _), object) in &state.objects {
            if *watched == plural {
                let _ = sender.unbounded_send(Ok(line("ADDED", object)));
            }
        }
        let end = json!({"metadata": {
            "resourceVersion": state.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"},
        }});
        let _ = sender.unbounded_send(Ok(line("BOOKMARK", &end)));
        state.watchers.push((plural, sender));
        Ok(Response::new(receiver.boxed()))
    }
}
