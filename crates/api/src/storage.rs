//! Where objects live: keys, and reads and writes of whole stored objects.
//!
//! A stored value is the canonical JSON of the object in its storage version without
//! `metadata.resourceVersion`; `kind`, `apiVersion` and `metadata` come first, so that the version
//! is spliced in without parsing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use skiff_kinds::Kind;
use skiff_store::{Entry, Error, Expect, LeaseId, Range, RangeResult, Revision, Store};

use crate::errors::{ApiError, ApiResult, Qualified};

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

/// The first key after all that start with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::new()
}

/// The objects of one resource, in whatever version they are served.
pub struct Collection {
    store: Arc<dyn Store>,
    cluster: Arc<str>,
    group: String,
    plural: String,
}

/// One stored object.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its key, relative to its collection: `namespace/name`.
    pub key: Bytes,
    /// Canonical JSON without `metadata.resourceVersion`.
    pub value: Bytes,
    /// Its resourceVersion.
    pub revision: Revision,
}

impl Stored {
    /// The JSON with its resourceVersion.
    pub fn json(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.value.len() + 48);
        self.write_json(&mut out, true);
        out.freeze()
    }

    /// Appends the JSON with its resourceVersion, with or without `kind` and `apiVersion`.
    pub fn write_json(&self, out: &mut BytesMut, type_meta: bool) {
        const METADATA: &[u8] = b"\"metadata\":{";
        let Some(at) = find(&self.value, METADATA) else {
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
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(itoa(self.revision, &mut [0; 20]));
        out.put_u8(b'"');
        if self.value.get(inside) != Some(&b'}') {
            out.put_u8(b',');
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

/// The first place of `needle`. `metadata` stands within the first hundred bytes, so a plain
/// search is enough.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
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
    pub fn stored(&self, entry: Entry) -> Stored {
        let skip = self.prefix_len().min(entry.key.len());
        Stored { key: entry.key.slice(skip..), value: entry.value, revision: entry.mod_revision }
    }

    fn prefix_len(&self) -> usize {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        self.cluster.len() + "/registry/".len() + group.len() + 1 + self.plural.len() + 1
    }

    /// Reads one object.
    pub async fn get(&self, namespace: &str, name: &str) -> ApiResult<Option<Stored>> {
        let found = self.store.get(&self.key(namespace, name), None).await.map_err(|error| self.failure(error))?;
        Ok(found.entry.map(|entry| self.stored(entry)))
    }

    /// Reads one object or says 404.
    pub async fn require(&self, namespace: &str, name: &str) -> ApiResult<Stored> {
        self.get(namespace, name).await?.ok_or_else(|| ApiError::not_found(self.qualified(), name))
    }

    /// Reads a range; store errors stay what they are because a list answers them differently.
    pub async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.store.range(range).await
    }

    /// All objects of a namespace (all of all namespaces when it is empty), as of now.
    pub async fn list(&self, namespace: &str) -> ApiResult<Vec<Stored>> {
        let start = self.namespace_prefix(namespace);
        let range = Range { end: prefix_end(&start), start, limit: 0, revision: None };
        let found = self.range(range).await.map_err(|error| self.failure(error))?;
        Ok(found.entries.into_iter().map(|entry| self.stored(entry)).collect())
    }

    /// Writes a new object.
    pub async fn create(&self, namespace: &str, name: &str, value: Bytes, lease: Option<LeaseId>) -> ApiResult<Stored> {
        match self.store.put(self.key(namespace, name), value, Expect::Absent, lease).await {
            Ok(put) => Ok(self.stored(put.entry)),
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
        match self.store.put(self.key(namespace, name), value, Expect::Revision(read), lease).await {
            Ok(put) => Ok(Some(self.stored(put.entry))),
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Deletes an object that is still as it was read; gives the revision of the delete, `None`
    /// when it is not.
    pub async fn remove(&self, namespace: &str, name: &str, read: Revision) -> ApiResult<Option<Revision>> {
        match self.store.delete(self.key(namespace, name), Expect::Revision(read)).await {
            Ok(deleted) => Ok(Some(deleted.revision)),
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// What a store failure means to a client.
    pub fn failure(&self, error: Error) -> ApiError {
        match error {
            Error::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
            Error::Future { requested, current } => ApiError::future_version(requested, current),
            Error::Invalid(why) => ApiError::bad_request(why),
            Error::Unavailable(why) => ApiError::unavailable(why),
            other => ApiError::internal(other),
        }
    }
}

/// The collections of a cluster, made when first asked for.
pub struct Collections {
    store: Arc<dyn Store>,
    cluster: Arc<str>,
    made: RwLock<HashMap<String, Arc<Collection>>>,
}

impl Collections {
    /// The collections of `cluster` in `store`.
    pub fn new(store: Arc<dyn Store>, cluster: &str) -> Self {
        Self { store, cluster: cluster.into(), made: RwLock::default() }
    }

    /// Where the objects of a kind are.
    pub fn of(&self, kind: &dyn Kind) -> Arc<Collection> {
        let facts = kind.facts();
        self.named(facts.storage.group.as_str(), facts.plural.as_str())
    }

    /// The collection of a storage group and plural.
    pub fn named(&self, group: &str, plural: &str) -> Arc<Collection> {
        let id = format!("{group}/{plural}");
        if let Some(found) = self.made.read().get(&id) {
            return Arc::clone(found);
        }
        let made = Collection {
            store: Arc::clone(&self.store),
            cluster: Arc::clone(&self.cluster),
            group: group.to_owned(),
            plural: plural.to_owned(),
        };
        Arc::clone(self.made.write().entry(id).or_insert_with(|| Arc::new(made)))
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
        assert_eq!(stored(r#"{"metadata":{}}"#).json(), r#"{"metadata":{"resourceVersion":"42"}}"#);
    }

    #[test]
    fn keys_sort_by_namespace_and_end_after_their_prefix() {
        assert_eq!(storage_key("c", "", "pods", "ns", "a"), "c/registry/core/pods/ns/a");
        assert_eq!(storage_key("c", "apps", "deployments", "", ""), "c/registry/apps/deployments//");
        assert_eq!(prefix_end(b"a/"), "a0");
    }
}
