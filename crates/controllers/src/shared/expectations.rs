//! Expectations: what a controller has asked for and not yet seen in its cache.
//!
//! Without them a controller that runs again before its own writes come back through the watch
//! would create or delete twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use skiff_client::ObjectKey;
use tokio::time::Instant;

/// After this long an expectation is given up: the event must have been missed.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What is outstanding, by key of the owner.
#[derive(Default)]
pub(crate) struct Expectations {
    entries: Mutex<BTreeMap<ObjectKey, Entry>>,
}

struct Entry {
    creations: usize,
    deletions: BTreeSet<String>,
    since: Instant,
}

impl Expectations {
    /// `count` more objects will appear.
    pub(crate) fn expect_creations(&self, key: &ObjectKey, count: usize) {
        self.entry(key, |entry| entry.creations += count);
    }

    /// The objects with these uids will disappear.
    pub(crate) fn expect_deletions(&self, key: &ObjectKey, uids: impl Iterator<Item = String>) {
        self.entry(key, |entry| entry.deletions.extend(uids));
    }

    /// An object appeared, or its creation failed.
    pub(crate) fn created(&self, key: &ObjectKey) {
        self.created_many(key, 1);
    }

    pub(crate) fn created_many(&self, key: &ObjectKey, count: usize) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.creations = entry.creations.saturating_sub(count);
        }
    }

    /// The object with this uid is going, is gone, or its deletion failed.
    pub(crate) fn deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.deletions.remove(uid);
        }
    }

    /// Whether everything asked for has been seen (or was waited for long enough).
    pub(crate) fn satisfied(&self, key: &ObjectKey) -> bool {
        let entries = self.entries.lock();
        entries
            .get(key)
            .is_none_or(|entry| (entry.creations == 0 && entry.deletions.is_empty()) || entry.since.elapsed() > TIMEOUT)
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.entries.lock().remove(key);
    }

    fn entry(&self, key: &ObjectKey, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        let fresh = || Entry { creations: 0, deletions: BTreeSet::new(), since: Instant::now() };
        let entry = entries.entry(key.clone()).or_insert_with(fresh);
        if entry.creations == 0 && entry.deletions.is_empty() || entry.since.elapsed() > TIMEOUT {
            *entry = fresh();
        }
        change(entry);
    }
}
