//! Reads of what this server has heard of, for what looks at other objects on every request.
//!
//! One engine's own reads are of now and cost nothing. To a store that several servers share each
//! is a round trip, and a pod's way through admission is ten of them; there the watch caches answer
//! as upstream's informers do, with one promise more: what this server has answered is in them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use skiff_store::cache::Snapshot;
use skiff_store::{Durability, Revision};

use crate::errors::ApiResult;
use crate::storage::{Collection, Item, Stored};

impl Collection {
    /// Remembers a write of this server.
    pub(crate) fn wrote(&self, revision: Revision) {
        self.written.fetch_max(revision, Ordering::AcqRel);
    }

    fn is_shared(&self) -> bool {
        self.store().durability() == Durability::Quorum
    }

    /// All objects: every write that this server has answered, and what it has heard of others'.
    pub(crate) async fn known(&self) -> ApiResult<Snapshot<Item>> {
        let snapshot = if self.is_shared() {
            self.cache().heard(self.written.load(Ordering::Acquire)).await
        } else {
            self.cache().current().await
        };
        snapshot.map_err(|error| self.failure(error))
    }

    /// The [known](Self::known) objects of a namespace, of all when it is empty.
    pub(crate) async fn known_list(&self, namespace: &str) -> ApiResult<Vec<Arc<Item>>> {
        let (snapshot, prefix) = (self.known().await?, self.namespace_prefix(namespace));
        Ok(snapshot.range(&prefix, None).map(|(_, item)| Arc::clone(item)).collect())
    }

    /// One object: the [known](Self::known) one, else what the store has, since another server may
    /// just have made it.
    pub(crate) async fn known_get(&self, namespace: &str, name: &str) -> ApiResult<Option<Stored>> {
        if self.is_shared()
            && let Some(item) = self.known().await?.get(&self.key(namespace, name))
        {
            return Ok(Some(item.stored.clone()));
        }
        self.get(namespace, name).await
    }
}
