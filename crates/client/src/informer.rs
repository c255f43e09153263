//! Informers: a local copy of a kind, kept current by one watch.

use std::any::TypeId;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use skiff_base::{Random, Tasks};
use tokio::sync::watch;

use crate::reflector;
use crate::store::{Codec, Erased, Shelf, Snapshot, typed};
use crate::{Client, ObjectKey, Resource, Selection, View};

/// The index by the uid of every owner: `Informer::with_owner_index`.
pub const INDEX_OWNER: &str = "owner";

/// A change of one object, as seen by the cache. At least one side is present.
#[derive(Debug)]
pub struct Change<K> {
    /// The state before; `None` for a new object.
    pub old: Option<Arc<K>>,
    /// The state now; `None` for a deleted object.
    pub new: Option<Arc<K>>,
}

impl<K: View> Change<K> {
    /// The newest known state.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// The key of the object.
    pub fn key(&self) -> ObjectKey {
        self.object().map_or_else(|| ObjectKey::new("", ""), |object| ObjectKey::of(object.meta()))
    }
}

type Handler = Box<dyn Fn(Option<&Erased>, Option<&Erased>) + Send + Sync>;

/// What one informer is about, and its cache. Not generic: see [`crate::store`].
pub(crate) struct Core {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) selection: Selection,
    pub(crate) metadata_only: bool,
    pub(crate) codec: Codec,
    shelf: RwLock<Shelf>,
    /// Held while a change is applied and told, so a new handler misses and repeats nothing.
    handlers: Mutex<Vec<Handler>>,
    synced: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

impl Core {
    /// Puts `object` (decoded) into the cache and tells the handlers.
    pub(crate) fn put(&self, object: Erased) {
        let Some(key) = self.key(&object) else { return };
        let handlers = self.handlers.lock();
        let old = self.shelf.write().insert(key, object.clone());
        for handler in handlers.iter() {
            handler(old.as_ref(), Some(&object));
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Removes the object with the key of `object` from the cache and tells the handlers.
    pub(crate) fn remove(&self, object: &Erased) {
        let Some(key) = self.key(object) else { return };
        let handlers = self.handlers.lock();
        if self.shelf.write().remove(&key).is_none() {
            return;
        }
        for handler in handlers.iter() {
            // The event's own object: it carries the state at deletion.
            handler(Some(object), None);
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Makes the cache exactly `objects` and tells the handlers the differences.
    pub(crate) fn replace(&self, objects: Vec<Erased>) {
        let handlers = self.handlers.lock();
        let mut gone: Vec<(ObjectKey, Erased)> = {
            let kept: std::collections::BTreeSet<ObjectKey> = objects.iter().filter_map(|o| self.key(o)).collect();
            let shelf = self.shelf.read();
            shelf.iter().filter(|(key, _)| !kept.contains(*key)).map(|(k, o)| (k.clone(), o.clone())).collect()
        };
        for (key, object) in gone.drain(..) {
            self.shelf.write().remove(&key);
            for handler in handlers.iter() {
                handler(Some(&object), None);
            }
        }
        for object in objects {
            let Some(key) = self.key(&object) else { continue };
            let old = self.shelf.write().insert(key, object.clone());
            let unchanged = old.as_ref().is_some_and(|old| self.same_version(old, &object));
            if !unchanged {
                for handler in handlers.iter() {
                    handler(old.as_ref(), Some(&object));
                }
            }
        }
        drop(handlers);
        self.changes.send_modify(|count| *count += 1);
        self.synced.send_replace(true);
    }

    /// Drops the handlers, which may hold other informers, once no more changes can come.
    pub(crate) fn close(&self) {
        self.handlers.lock().clear();
    }

    fn same_version(&self, one: &Erased, other: &Erased) -> bool {
        let version = |object| (self.codec.meta)(object).and_then(|meta| meta.resource_version.as_deref());
        version(one).is_some() && version(one) == version(other)
    }

    fn key(&self, object: &Erased) -> Option<ObjectKey> {
        (self.codec.meta)(object).map(ObjectKey::of)
    }
}

/// A shared local copy of one kind. Cheap to clone.
pub struct Informer<K> {
    core: Arc<Core>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), kind: PhantomData }
    }
}

impl<K: View> Informer<K> {
    /// What is known now.
    pub fn store(&self) -> Snapshot<K> {
        Snapshot::new(self.core.shelf.read().clone())
    }

    /// One object as known now.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.core.shelf.read().get(&ObjectKey::new(namespace, name)).and_then(typed)
    }

    /// Calls `handler` for every change from now on, and first with every object known now (as
    /// new). It runs on the informer's own task, in the order of the changes, after the cache has
    /// taken them: it must be quick (enqueue a key) and must not subscribe to the same informer.
    pub fn subscribe(&self, handler: impl Fn(Change<K>) + Send + Sync + 'static) {
        let handler: Handler = Box::new(move |old, new| {
            handler(Change { old: old.and_then(typed), new: new.and_then(typed) });
        });
        let mut handlers = self.core.handlers.lock();
        let known = self.core.shelf.read().clone();
        for (_, object) in known.iter() {
            handler(None, Some(object));
        }
        handlers.push(handler);
    }

    /// A counter that moves with every change; for consumers that recompute everything at once.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.changes.subscribe()
    }

    /// Waits until the first complete state has arrived.
    pub async fn synced(&self) {
        let mut synced = self.core.synced.subscribe();
        // The sender lives in `core`, which we hold: this cannot fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether the first complete state has arrived.
    pub fn is_synced(&self) -> bool {
        *self.core.synced.borrow()
    }

    /// Files every object under the values that `of` gives. Adding an index twice is fine.
    #[must_use]
    pub fn with_index(self, name: &'static str, of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Self {
        let of = move |object: &Erased| object.downcast_ref::<K>().map(&of).unwrap_or_default();
        self.core.shelf.write().add_index(name, Arc::new(of));
        self
    }

    /// Files every object under the uids of its owners ([`INDEX_OWNER`]).
    #[must_use]
    pub fn with_owner_index(self) -> Self {
        let meta = self.core.codec.meta;
        let of = move |object: &Erased| {
            let owners = meta(object).and_then(|meta| meta.owner_references.as_deref()).unwrap_or_default();
            owners.iter().map(|owner| owner.uid.clone()).collect()
        };
        self.core.shelf.write().add_index(INDEX_OWNER, Arc::new(of));
        self
    }
}

type InformerKey = (TypeId, Resource, String, Selection);

/// The informers of a process: one per kind and selection, started when first asked for.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    random: Random,
    cores: Arc<Mutex<HashMap<InformerKey, Arc<Core>>>>,
}

impl Informers {
    /// Informers that read with `client` and run under `tasks`.
    pub fn new(client: Client, tasks: Tasks, random: Random) -> Self {
        Self { client, tasks, random, cores: Arc::default() }
    }

    /// All objects of a kind.
    pub fn of<K: View>(&self) -> Informer<K> {
        self.selected("", Selection::default())
    }

    /// The selected objects of a kind, in one namespace or (empty) in all.
    pub fn selected<K: View>(&self, namespace: &str, selection: Selection) -> Informer<K> {
        self.start(K::RESOURCE, namespace, selection, Metadata::No)
    }

    /// The metadata of all objects of any resource.
    pub fn metadata(&self, resource: &Resource) -> Informer<crate::PartialObject> {
        self.metadata_as(resource)
    }

    /// The metadata of all objects of any resource, read as `K` from `PartialObjectMetadata`: for
    /// those who keep even less of it.
    pub fn metadata_as<K: View>(&self, resource: &Resource) -> Informer<K> {
        self.start(resource.clone(), "", Selection::default(), Metadata::Only)
    }

    fn start<K: View>(
        &self,
        resource: Resource,
        namespace: &str,
        selection: Selection,
        metadata: Metadata,
    ) -> Informer<K> {
        let core = self.core(TypeId::of::<K>(), resource, namespace, selection, metadata, Codec::of::<K>());
        Informer { core, kind: PhantomData }
    }

    fn core(
        &self,
        kind: TypeId,
        resource: Resource,
        namespace: &str,
        selection: Selection,
        metadata: Metadata,
        codec: Codec,
    ) -> Arc<Core> {
        let mut cores = self.cores.lock();
        let key = (kind, resource.clone(), namespace.to_owned(), selection.clone());
        if let Some(core) = cores.get(&key) {
            return core.clone();
        }
        let core = Arc::new(Core {
            resource,
            namespace: namespace.to_owned(),
            selection,
            metadata_only: matches!(metadata, Metadata::Only),
            codec,
            shelf: RwLock::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
            changes: watch::Sender::new(0),
        });
        let task = format!("informer {}", core.resource);
        self.tasks.spawn(&task, reflector::run(core.clone(), self.client.clone(), self.random.clone()));
        cores.insert(key, core.clone());
        core
    }
}

#[derive(Clone, Copy)]
enum Metadata {
    No,
    Only,
}
