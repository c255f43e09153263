//! The multi-version index that every engine of this process stands on.
//!
//! `current` holds the newest version of every living key in a persistent map, so a consistent
//! view of a million keys is one reference count; `old` holds the versions that are superseded
//! but not yet compacted; `history` holds every change since the last compaction, one per
//! revision without gaps. A version exists once, however many of the three name it.
//!
//! Writing has two steps. [`plan_put`] and [`plan_delete`] decide purely what a write would do;
//! [`Index::apply`] makes a decided [`Change`] visible and tells the watchers. An engine with a
//! log makes the change durable between the two. The index knows neither tasks nor files.

mod commit;
mod lease;
mod read;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use parking_lot::RwLock;

pub(crate) use self::commit::{Overlay, plan_commit};
pub(crate) use self::lease::{LeaseState, Leases};
pub(crate) use self::read::range;
pub use self::watch::WATCH_BUFFER_EVENTS;
pub(crate) use self::watch::Watchers;
use crate::contract::{Entry, Error, EventKind, Expect, LeaseId, REVISION_FIRST, Revision};

/// What one revision did. For a delete, `entry` holds key and revision with an empty value.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) kind: EventKind,
    pub(crate) entry: Arc<Entry>,
    pub(crate) previous: Option<Arc<Entry>>,
}

impl Change {
    pub(crate) fn revision(&self) -> Revision {
        self.entry.mod_revision
    }
}

/// A superseded version: readable at revisions from its own up to before `until`.
#[derive(Debug)]
struct Old {
    entry: Arc<Entry>,
    until: Revision,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Index {
    current: OrdMap<Bytes, Arc<Entry>>,
    old: BTreeMap<(Bytes, Revision), Old>,
    history: Vector<Change>,
    /// Bytes of keys and values that only history holds.
    history_bytes: usize,
    revision: Revision,
    compacted: Revision,
    pub(crate) leases: Leases,
    pub(crate) watchers: Watchers,
}

/// An immutable view of everything an engine must write down to find the same index again.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) current: OrdMap<Bytes, Arc<Entry>>,
    pub(crate) history: Vector<Change>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) leases: Vec<(LeaseId, LeaseState)>,
    pub(crate) lease_last: LeaseId,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            current: OrdMap::new(),
            old: BTreeMap::new(),
            history: Vector::new(),
            history_bytes: 0,
            revision: REVISION_FIRST,
            compacted: REVISION_FIRST,
            leases: Leases::default(),
            watchers: Watchers::default(),
        }
    }
}

/// Decides a put of `key` at revision `next`, given what is there now.
pub(crate) fn plan_put(
    present: Option<&Arc<Entry>>,
    next: Revision,
    (key, value): (&Bytes, &Bytes),
    expect: Expect,
    lease: Option<LeaseId>,
) -> Result<Change, Error> {
    check(present, expect)?;
    // Copies, exactly sized: the caller's bytes may be a slice of a larger buffer that would stay
    // in memory as long as the object. An update keeps the key that is already there.
    let entry = Entry {
        key: present.map_or_else(|| Bytes::copy_from_slice(key), |present| present.key.clone()),
        value: Bytes::copy_from_slice(value),
        create_revision: present.map_or(next, |present| present.create_revision),
        mod_revision: next,
        version: present.map_or(0, |present| present.version) + 1,
        lease,
    };
    Ok(Change { kind: EventKind::Put, entry: Arc::new(entry), previous: present.cloned() })
}

/// Decides a delete at revision `next`, given what is there now.
pub(crate) fn plan_delete(present: Option<&Arc<Entry>>, next: Revision, expect: Expect) -> Result<Change, Error> {
    let Some(previous) = present else { return Err(Error::Conflict { current: None }) };
    check(present, expect)?;
    let entry = tombstone(previous.key.clone(), next);
    Ok(Change { kind: EventKind::Delete, entry: Arc::new(entry), previous: Some(previous.clone()) })
}

/// The entry that stands for a delete.
pub(crate) fn tombstone(key: Bytes, revision: Revision) -> Entry {
    Entry { key, value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0, lease: None }
}

/// Whether `expect` holds for what is there.
pub(crate) fn check(present: Option<&Arc<Entry>>, expect: Expect) -> Result<(), Error> {
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => present.is_none(),
        Expect::Present => present.is_some(),
        Expect::Revision(revision) => present.is_some_and(|entry| entry.mod_revision == revision),
    };
    if holds { Ok(()) } else { Err(Error::Conflict { current: present.map(|entry| Entry::clone(entry)) }) }
}

/// So many compacted changes are freed under one lock: some hundred microseconds.
const SWEEP_CHANGES: usize = 512;

/// Frees what a compaction made needless, letting others in between.
pub(crate) async fn sweep(index: &RwLock<Index>) {
    while index.write().sweep(SWEEP_CHANGES) {
        tokio::task::yield_now().await;
    }
}

impl Index {
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn present(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.current.get(key)
    }

    /// Bytes that the next compaction can free, about.
    pub(crate) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// Makes a change visible. Changes come in revision order without gaps.
    pub(crate) fn apply(&mut self, change: Change) {
        let revision = change.revision();
        assert_eq!(revision, self.revision + 1, "changes are applied one by one");
        let entry = &change.entry;
        if let Some(previous) = &change.previous {
            self.leases.detach(previous);
            self.history_bytes += previous.key.len() + previous.value.len();
            let old = Old { entry: previous.clone(), until: revision };
            self.old.insert((previous.key.clone(), previous.mod_revision), old);
        }
        match change.kind {
            EventKind::Put => {
                self.leases.attach(entry);
                self.current.insert(entry.key.clone(), entry.clone());
            }
            EventKind::Delete => {
                self.current.remove(entry.key.as_ref());
            }
        }
        self.revision = revision;
        self.watchers.publish(&change);
        self.history.push_back(change);
    }

    /// Reads and watches from before `revision` fail from now on. What can be forgotten is freed
    /// by [`Index::sweep`]. Whether there was anything to do.
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<bool, Error> {
        self.check_compact(revision)?;
        let is_later = revision > self.compacted;
        self.compacted = revision;
        Ok(is_later)
    }

    /// Frees up to `count` compacted changes, so that nobody waits long for the lock; whether
    /// there are more.
    pub(crate) fn sweep(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(change) = self.history.front().filter(|change| change.revision() <= self.compacted) else {
                return false;
            };
            if let Some(previous) = &change.previous {
                self.old.remove(&(previous.key.clone(), previous.mod_revision));
                self.history_bytes -= previous.key.len() + previous.value.len();
            }
            self.history.pop_front();
        }
        true
    }

    /// The changes after `revision`, which is not compacted.
    fn history_after(&self, revision: Revision) -> Vector<Change> {
        // One change per revision, without gaps.
        let first = self.history.front().map_or(revision + 1, Change::revision);
        self.history.skip(usize::try_from((revision + 1).saturating_sub(first)).unwrap_or(usize::MAX))
    }

    /// Fills an empty index with the state at `compacted`, before history is applied.
    pub(crate) fn restore(&mut self, entries: Vec<Arc<Entry>>, compacted: Revision) {
        for entry in &entries {
            self.leases.attach(entry);
        }
        self.current = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        self.revision = compacted;
        self.compacted = compacted;
    }

    /// Whether a compaction to `revision` would be accepted.
    pub(crate) fn check_compact(&self, revision: Revision) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        Ok(())
    }

    /// Everything, as it is now, in constant time apart from the leases.
    pub(crate) fn view(&self) -> View {
        View {
            current: self.current.clone(),
            history: self.history.clone(),
            revision: self.revision,
            compacted: self.compacted,
            leases: self.leases.iter().collect(),
            lease_last: self.leases.last(),
        }
    }
}
