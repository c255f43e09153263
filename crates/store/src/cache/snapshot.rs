//! Immutable views of a cache.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;
use tokio::time::Instant;

use crate::contract::Revision;

/// The items of a cache at one revision. Cheap to clone and to hold for a moment.
pub struct Snapshot<T> {
    /// The last change that is in it.
    changed: Revision,
    /// The newest revision it is known to be complete at.
    revision: Revision,
    items: OrdMap<Bytes, Arc<T>>,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { changed: self.changed, revision: self.revision, items: self.items.clone() }
    }
}

impl<T> std::fmt::Debug for Snapshot<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}

impl<T> Snapshot<T> {
    pub(super) fn new(changed: Revision, revision: Revision, items: OrdMap<Bytes, Arc<T>>) -> Self {
        Self { changed, revision, items }
    }

    /// The revision this is the state of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The last change that is in it.
    pub(super) fn changed(&self) -> Revision {
        self.changed
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// One item.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<T>> {
        self.items.get(key)
    }

    /// The items whose keys begin with `prefix`, in bytewise order, from after the key `after`
    /// (which need not exist) on.
    pub fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Arc<T>)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let items = self.items.range::<_, [u8]>((start, Bound::Unbounded));
        items.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Whether this is also the state at `revision`.
    pub(super) fn holds_at(&self, revision: Revision) -> bool {
        (self.changed..=self.revision).contains(&revision)
    }

    /// The same items under another revision that they hold at.
    pub(super) fn at(&self, revision: Revision) -> Self {
        Self { revision, ..self.clone() }
    }
}

/// So many paged lists can be under way; a further one costs the oldest its cheap next page.
const SNAPSHOTS_KEPT: usize = 32;

/// A client that asks for its next page later than this pays for the rebuild; a snapshot keeps
/// every object in memory that was changed since.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(60);

/// Snapshots that a next page will ask for, the oldest first.
pub(super) struct Kept<T>(VecDeque<(Instant, Snapshot<T>)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Kept<T> {
    pub(super) fn insert(&mut self, snapshot: Snapshot<T>, now: Instant) {
        self.expire(now);
        self.0.retain(|(_, kept)| kept.changed != snapshot.changed || kept.revision > snapshot.revision);
        if self.0.len() == SNAPSHOTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, snapshot));
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(kept, _)| now.duration_since(*kept) > SNAPSHOT_AGE_MAX) {
            self.0.pop_front();
        }
    }

    pub(super) fn find(&self, revision: Revision) -> Option<&Snapshot<T>> {
        self.0.iter().map(|(_, snapshot)| snapshot).find(|snapshot| snapshot.holds_at(revision))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
