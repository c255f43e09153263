//! The ConfigMaps and Secrets that pods of this node refer to: one watch per object, held as long
//! as a pod needs it, so a change reaches the pod's volumes within one event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use skiff_base::{Clock, Shutdown, Tasks};
use skiff_client::{Client, Selection, View};
use tokio::sync::{Notify, watch};

use crate::follow::{Change, follow};

/// How long a pod's start waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    ConfigMap(String, String),
    Secret(String, String),
}

/// What is known about an object: not asked yet, absent, or this version.
type Known<K> = Option<Option<Arc<K>>>;

enum State {
    ConfigMap(watch::Sender<Known<ConfigMap>>),
    Secret(watch::Sender<Known<Secret>>),
}

struct Entry {
    state: State,
    users: BTreeMap<String, Arc<Notify>>,
    stop: Shutdown,
}

/// The objects in use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    clock: Clock,
    tasks: Tasks,
    entries: Arc<Mutex<BTreeMap<Reference, Entry>>>,
}

impl Objects {
    pub(crate) fn new(client: Client, clock: Clock, tasks: Tasks) -> Self {
        Self { client, clock, tasks, entries: Arc::default() }
    }

    /// Keeps exactly `references` for the pod `uid`, which is woken when one changes.
    pub(crate) fn hold(&self, uid: &str, references: &[Reference], wake: &Arc<Notify>) {
        let mut entries = self.entries.lock();
        for reference in references {
            let entry = entries.entry(reference.clone()).or_insert_with(|| self.start(reference));
            entry.users.entry(uid.to_owned()).or_insert_with(|| Arc::clone(wake));
        }
        entries.retain(|reference, entry| {
            if !references.contains(reference) {
                entry.users.remove(uid);
            }
            if entry.users.is_empty() {
                entry.stop.signal();
            }
            !entry.users.is_empty()
        });
    }

    /// The ConfigMap, or `None` when it does not exist.
    pub(crate) async fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        let receiver = match self
            .entries
            .lock()
            .get(&Reference::ConfigMap(namespace.into(), name.into()))
            .map(|entry| &entry.state)
        {
            Some(State::ConfigMap(sender)) => sender.subscribe(),
            _ => return None,
        };
        first_answer(receiver).await
    }

    /// The Secret, or `None` when it does not exist.
    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        let receiver = match self
            .entries
            .lock()
            .get(&Reference::Secret(namespace.into(), name.into()))
            .map(|entry| &entry.state)
        {
            Some(State::Secret(sender)) => sender.subscribe(),
            _ => return None,
        };
        first_answer(receiver).await
    }

    fn start(&self, reference: &Reference) -> Entry {
        let stop = self.tasks.shutdown().child();
        let state = match reference {
            Reference::ConfigMap(namespace, name) => {
                let sender = watch::Sender::new(None);
                self.watch(reference, namespace, name, sender.clone(), stop.clone());
                State::ConfigMap(sender)
            }
            Reference::Secret(namespace, name) => {
                let sender = watch::Sender::new(None);
                self.watch(reference, namespace, name, sender.clone(), stop.clone());
                State::Secret(sender)
            }
        };
        Entry { state, users: BTreeMap::new(), stop }
    }

    fn watch<K: View>(
        &self,
        reference: &Reference,
        namespace: &str,
        name: &str,
        sender: watch::Sender<Known<K>>,
        stop: Shutdown,
    ) {
        let entries = Arc::clone(&self.entries);
        let reference = reference.clone();
        let notify = move || {
            if let Some(entry) = entries.lock().get(&reference) {
                entry.users.values().for_each(|wake| wake.notify_one());
            }
        };
        let tell = move |change: Change<K>| {
            match change {
                Change::Put(object) => sender.send_replace(Some(Some(Arc::new(object)))),
                Change::Gone(_) => sender.send_replace(Some(None)),
                Change::Synced => {
                    sender.send_if_modified(|known| known.is_none() && known.replace(None).is_none());
                    return;
                }
            };
            notify();
        };
        let selection = Selection::fields(format!("metadata.name={name}"));
        let run = follow::<K>(self.client.clone(), self.clock.clone(), namespace.to_owned(), selection, tell);
        self.tasks.spawn("object", async move {
            stop.until(run).await;
        });
    }
}

async fn first_answer<K>(mut receiver: watch::Receiver<Known<K>>) -> Option<Arc<K>> {
    let answer = tokio::time::timeout(FIRST_ANSWER, receiver.wait_for(Option::is_some)).await;
    answer.ok()?.ok()?.clone().flatten()
}
