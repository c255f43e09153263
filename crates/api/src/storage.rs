//! Where objects live: keys, and reads and writes of whole stored objects.
//!
//! A stored value is the canonical JSON of the object in its storage version without
//! `metadata.resourceVersion`; `kind`, `apiVersion` and `metadata` come first, so that the version
//! is spliced in without parsing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use skiff_base::{Clock, Tasks};
use skiff_kinds::Kind;
use skiff_store::cache::{Cache, Change};
use skiff_store::{Entry, Error, EventKind, Expect, LeaseId, Revision, Store};

use crate::errors::{ApiError, ApiResult, Qualified};
use crate::metrics::histogram::{Histogram, SECONDS};
use crate::scan;

/// The one place that makes storage keys:
/// `<cluster>/registry/<group or core>/<plural>/<namespace or nothing>/<name>`.
pub fn storage_key(cluster: &str, group: &str, plural: &str, namespace: &str, name: &str) -> Bytes {
    let group = if group.is_empty() { "core" } else { group };
    let mut key = String::with_capacity(cluster.len() + group.len() + plural.len() + namespace.len() + name.len() + 14);
    for part in [cluster, "/registry/", group, "/", plural, "/", namespace, "/", name] {
        key.push_str(part);
    }
    Bytes::from(key)
}

/// The objects of one resource, in whatever version they are served.
pub struct Collection {
    store: Arc<dyn Store>,
    cluster: Arc<str>,
    group: String,
    plural: String,
    cache: Cache<Item>,
    /// Watch events that were just encoded, for the other watchers.
    pub(crate) encoded: crate::frame::Encoded,
    /// How long the store took.
    pub(crate) timings: Timings,
    /// How many watches look at more than one object.
    pub(crate) watchers: std::sync::atomic::AtomicU64,
    /// The last write of this server.
    pub(crate) written: std::sync::atomic::AtomicU64,
    clock: Clock,
}

/// What a collection asks of the store, in upstream's words.
#[derive(Clone, Copy)]
enum Operation {
    Get,
    Create,
    Update,
    Delete,
}

const OPERATIONS: [&str; 4] = ["get", "create", "update", "delete"];

/// How long the store took, by what was asked of it.
pub(crate) struct Timings([Histogram; OPERATIONS.len()]);

impl Default for Timings {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Histogram::new(&SECONDS)))
    }
}

impl Timings {
    /// Every operation that was asked for.
    pub(crate) fn each(&self, mut visit: impl FnMut(&'static str, &Histogram)) {
        for (operation, histogram) in OPERATIONS.into_iter().zip(&self.0) {
            if histogram.cumulative().last().is_some_and(|(_, count)| count > 0) {
                visit(operation, histogram);
            }
        }
    }
}

/// An object in the watch cache.
#[derive(Debug)]
pub struct Item {
    /// The object.
    pub stored: Stored,
    /// How long it is in protobuf, and its metadata alone, in the stored version; 0 while nobody has asked.
    pub(crate) lengths: [std::sync::atomic::AtomicU32; 2],
}

impl Item {
    /// An object as it is stored.
    pub(crate) fn of(stored: Stored) -> Self {
        Self { stored, lengths: Default::default() }
    }
}

/// One stored object.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key, relative to its collection: `namespace/name`.
    pub key: Bytes,
    /// Canonical JSON without `metadata.resourceVersion`.
    pub value: Bytes,
    /// Its resourceVersion; 0 for what was not stored (`dryRun`).
    pub revision: Revision,
}

const METADATA: &[u8] = b"\"metadata\":{";

impl Stored {
    /// The JSON with its resourceVersion.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.value.len() + 48);
        self.write_json(&mut out, true);
        out.freeze()
    }

    /// Appends the JSON with its resourceVersion, with or without `kind` and `apiVersion`.
    pub fn write_json(&self, out: &mut BytesMut, type_meta: bool) {
        let Some(at) = find_metadata(&self.value) else {
            out.extend_from_slice(&self.value);
            return;
        };
        let inside = at + METADATA.len();
        if type_meta {
            out.extend_from_slice(&self.value[..inside]);
        } else {
            out.put_u8(b'{');
            out.extend_from_slice(METADATA);
        }
        if self.revision > 0 {
            out.extend_from_slice(b"\"resourceVersion\":\"");
            out.extend_from_slice(itoa(self.revision, &mut [0; 20]));
            out.put_u8(b'"');
            if self.value.get(inside) != Some(&b'}') {
                out.put_u8(b',');
            }
        }
        out.extend_from_slice(&self.value[inside..]);
    }
}

fn itoa(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// Where the object's own `"metadata":{` stands. It comes within the first hundred bytes, except
/// in custom resources whose fields sort before it.
fn find_metadata(json: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' if depth == 1 && json[at..].starts_with(METADATA) => return Some(at),
            b'"' => {
                at += 1;
                while json.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

impl Collection {
    /// The key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> Bytes {
        storage_key(&self.cluster, &self.group, &self.plural, namespace, name)
    }

    /// What every key starts with.
    pub fn prefix(&self) -> Bytes {
        let mut prefix = storage_key(&self.cluster, &self.group, &self.plural, "", "").to_vec();
        prefix.pop(); // the slash between namespace and name
        prefix.into()
    }

    /// What every key of a namespace starts with; of the collection when it is empty.
    pub fn namespace_prefix(&self, namespace: &str) -> Bytes {
        if namespace.is_empty() { self.prefix() } else { self.key(namespace, "") }
    }

    /// `deployments.apps`
    pub fn qualified(&self) -> Qualified<'_> {
        Qualified { group: &self.group, name: &self.plural }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// An entry as an object.
    fn stored(&self, entry: Entry) -> Stored {
        relative(&entry, self.prefix_len())
    }

    fn prefix_len(&self) -> usize {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        self.cluster.len() + "/registry/".len() + group.len() + 1 + self.plural.len() + 1
    }

    /// A change from the store's history, as the watch cache tells it. A delete whose last
    /// version was compacted away tells nobody anything.
    pub fn change(&self, kind: EventKind, entry: Entry, previous: Option<Entry>) -> Option<Change<Item>> {
        let revision = entry.mod_revision;
        let key = entry.key.clone();
        let previous = previous.filter(|_| kind == EventKind::Delete || entry.create_revision != revision);
        let current = match kind {
            EventKind::Put => self.item(self.stored(entry)),
            EventKind::Delete => self.item(Stored { revision, ..self.stored(previous.clone()?) }),
        };
        let previous = previous.map(|entry| self.item(self.stored(entry)));
        Some(Change { kind, key, revision, current, previous })
    }

    fn item(&self, stored: Stored) -> Arc<Item> {
        Arc::new(Item::of(stored))
    }

    /// Reads one object.
    pub async fn get(&self, namespace: &str, name: &str) -> ApiResult<Option<Stored>> {
        let key = self.key(namespace, name);
        let found =
            self.timed(Operation::Get, self.store.get(&key, None)).await.map_err(|error| self.failure(error))?;
        Ok(found.entry.map(|entry| self.stored(entry)))
    }

    /// Reads one object or says 404.
    pub async fn require(&self, namespace: &str, name: &str) -> ApiResult<Stored> {
        self.get(namespace, name).await?.ok_or_else(|| ApiError::not_found(self.qualified(), name))
    }

    /// Whether an object is stored in a form that the next write replaces, changed or not.
    pub async fn is_stale(&self, namespace: &str, name: &str) -> ApiResult<bool> {
        self.store.is_stale(&self.key(namespace, name)).await.map_err(|error| self.failure(error))
    }

    /// The watch cache: everything that reads more than one object reads it.
    pub fn cache(&self) -> &Cache<Item> {
        &self.cache
    }

    /// All objects of a namespace (all of all namespaces when it is empty), as of now.
    pub async fn list(&self, namespace: &str) -> ApiResult<Vec<Arc<Item>>> {
        let prefix = self.namespace_prefix(namespace);
        let snapshot = self.cache.current().await.map_err(|error| self.failure(error))?;
        Ok(snapshot.range(&prefix, None).map(|(_, item)| Arc::clone(item)).collect())
    }

    /// Writes a new object.
    pub async fn create(&self, namespace: &str, name: &str, value: Bytes, lease: Option<LeaseId>) -> ApiResult<Stored> {
        let put = self.store.put(self.key(namespace, name), value, Expect::Absent, lease);
        match self.timed(Operation::Create, put).await {
            Ok(put) => {
                self.wrote(put.entry.mod_revision);
                Ok(self.stored(put.entry))
            }
            Err(Error::Conflict { .. }) => Err(ApiError::already_exists(self.qualified(), name)),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Writes a new version of an object that is still as it was read; `None` when it is not.
    pub async fn replace(
        &self,
        namespace: &str,
        name: &str,
        value: Bytes,
        read: Revision,
        lease: Option<LeaseId>,
    ) -> ApiResult<Option<Stored>> {
        let put = self.store.put(self.key(namespace, name), value, Expect::Revision(read), lease);
        match self.timed(Operation::Update, put).await {
            Ok(put) => {
                self.wrote(put.entry.mod_revision);
                Ok(Some(self.stored(put.entry)))
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Deletes an object that is still as it was read; gives the revision of the delete, `None`
    /// when it is not.
    pub async fn remove(&self, namespace: &str, name: &str, read: Revision) -> ApiResult<Option<Revision>> {
        let delete = self.store.delete(self.key(namespace, name), Expect::Revision(read));
        match self.timed(Operation::Delete, delete).await {
            Ok(deleted) => {
                self.wrote(deleted.revision);
                Ok(Some(deleted.revision))
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    async fn timed<T>(&self, operation: Operation, work: impl Future<Output = T>) -> T {
        let _span = crate::traces::span(match operation {
            Operation::Get => "Get etcd3",
            Operation::Create => "Create etcd3",
            Operation::Update => "GuaranteedUpdate etcd3",
            Operation::Delete => "Delete etcd3",
        });
        let began = self.clock.instant();
        let outcome = work.await;
        self.timings.0[operation as usize].observe(self.clock.instant() - began);
        outcome
    }

    /// What a store failure means to a client.
    pub fn failure(&self, error: Error) -> ApiError {
        match error {
            Error::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
            Error::Future { requested, current } => ApiError::future_version(requested, current),
            Error::Invalid(why) => ApiError::bad_request(why),
            Error::TooLarge { max, .. } => ApiError::too_large(max),
            Error::Unavailable(why) => ApiError::unavailable(why),
            other => ApiError::internal(other),
        }
    }
}

/// An entry as an object whose key has lost its first `prefix` bytes.
fn relative(entry: &Entry, prefix: usize) -> Stored {
    let skip = prefix.min(entry.key.len());
    Stored { key: entry.key.slice(skip..), value: entry.value.clone(), revision: entry.mod_revision }
}

/// Collections by plural; few plurals stand in more than one group.
type Made = HashMap<String, Vec<Arc<Collection>>>;

/// The collections of a cluster, made when first asked for.
pub struct Collections {
    store: Arc<dyn Store>,
    cluster: Arc<str>,
    clock: Clock,
    tasks: Tasks,
    made: RwLock<Made>,
}

impl Collections {
    /// The collections of `cluster` in `store`.
    pub fn new(store: Arc<dyn Store>, cluster: &str, clock: Clock, tasks: Tasks) -> Self {
        Self { store, cluster: cluster.into(), clock, tasks, made: RwLock::default() }
    }

    /// Where the objects of a kind are.
    pub fn of(&self, kind: &dyn Kind) -> Arc<Collection> {
        let facts = kind.facts();
        self.named(facts.storage.group.as_str(), facts.plural.as_str())
    }

    /// Every collection that somebody has asked for, in order.
    pub fn all(&self) -> Vec<Arc<Collection>> {
        let mut all: Vec<_> = self.made.read().values().flatten().map(Arc::clone).collect();
        all.sort_by(|one, other| (&one.group, &one.plural).cmp(&(&other.group, &other.plural)));
        all
    }

    /// The collection of a storage group and plural.
    pub fn named(&self, group: &str, plural: &str) -> Arc<Collection> {
        let found = |made: &Made| made.get(plural)?.iter().find(|one| one.group == group).map(Arc::clone);
        if let Some(collection) = found(&self.made.read()) {
            return collection;
        }
        let mut made = self.made.write();
        if let Some(collection) = found(&made) {
            return collection;
        }
        let collection = Arc::new(self.make(group, plural));
        made.entry(plural.to_owned()).or_default().push(Arc::clone(&collection));
        collection
    }

    fn make(&self, group: &str, plural: &str) -> Collection {
        let mut prefix = storage_key(&self.cluster, group, plural, "", "").to_vec();
        prefix.pop();
        let length = prefix.len();
        let build = move |entry: &Entry| Item::of(relative(entry, length));
        let labels = |item: &Item, tell: &mut dyn FnMut(&str, &str)| scan::labels(&item.stored.value, tell);
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        Collection {
            cache: Cache::with_labels(store, prefix.into(), build, labels, clock, &self.tasks),
            store: Arc::clone(&self.store),
            cluster: Arc::clone(&self.cluster),
            group: group.to_owned(),
            plural: plural.to_owned(),
            encoded: crate::frame::Encoded::default(),
            timings: Timings::default(),
            watchers: Default::default(),
            written: Default::default(),
            clock: self.clock.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_spliced_into_the_metadata() {
        let stored = |value: &'static str| Stored { key: Bytes::new(), value: Bytes::from(value), revision: 42 };
        let pod = stored(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#);
        assert_eq!(pod.json(), r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"42","name":"a"}}"#);
        let mut item = BytesMut::new();
        pod.write_json(&mut item, false);
        assert_eq!(item, r#"{"metadata":{"resourceVersion":"42","name":"a"}}"#);
        let custom = stored(r#"{"data":{"a\"":["metadata",{"metadata":{}}]},"metadata":{"name":"a"}}"#);
        assert!(custom.json().ends_with(br#","metadata":{"resourceVersion":"42","name":"a"}}"#));
        assert_eq!(stored(r#"{"metadata":{}}"#).json(), r#"{"metadata":{"resourceVersion":"42"}}"#);
    }

    #[test]
    fn keys_name_cluster_group_resource_namespace_and_name() {
        assert_eq!(storage_key("c", "", "pods", "ns", "a"), "c/registry/core/pods/ns/a");
        assert_eq!(storage_key("c", "apps", "deployments", "", ""), "c/registry/apps/deployments//");
    }
}
