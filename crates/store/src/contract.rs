//! The contract that every engine keeps and the contract suite checks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream};

/// The global write counter. Every put and every deleted key takes one.
pub type Revision = u64;

/// The revision of a store that was never written, as in etcd: clients read meaning into a
/// resource version of 0, so no store is ever at it.
pub const REVISION_FIRST: Revision = 1;

/// The identity of a lease, unique within a store.
pub type LeaseId = u64;

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value at `mod_revision`.
    pub value: Bytes,
    /// The revision that made the key (again, after a delete).
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How often the key was written since it was made, 1 at first; 0 in the entry of a delete.
    pub version: u64,
    /// The lease that removes the key when it ends.
    pub lease: Option<LeaseId>,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists, in whatever version.
    Present,
    /// The key was last written by this revision.
    Revision(Revision),
}

/// A write that happened.
#[derive(Clone, Debug)]
pub struct Put {
    /// The entry as written.
    pub entry: Entry,
    /// What it replaced.
    pub previous: Option<Entry>,
}

/// A delete that happened.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The revision of the delete.
    pub revision: Revision,
    /// What was deleted.
    pub previous: Entry,
}

/// Writes that happen together or not at all, if everything expected holds.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Keys and what must hold for each, written or not.
    pub expect: Vec<(Bytes, Expect)>,
    /// Ranges of keys (an empty end for no upper bound) in which nothing may have been put later
    /// than the revision.
    pub unwritten: Vec<(Bytes, Bytes, Revision)>,
    /// The writes, in order. No key stands here twice.
    pub writes: Vec<Write>,
}

/// One write of a [`Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Writes the key.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// The lease that removes the key when it ends.
        lease: Option<LeaseId>,
    },
    /// Deletes the key; an absent one is a [`Error::Conflict`].
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A commit that happened.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision of the last write; the store's revision if there was none.
    pub revision: Revision,
    /// What each write replaced or deleted.
    pub previous: Vec<Option<Entry>>,
}

/// One key, read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry, if the key exists at the revision asked for.
    pub entry: Option<Entry>,
    /// The store's revision when it was read.
    pub revision: Revision,
}

/// Which keys to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// The first key.
    pub start: Bytes,
    /// The first key that is no longer wanted; empty for no upper bound.
    pub end: Bytes,
    /// At most so many entries; 0 for all.
    pub limit: usize,
    /// As of this revision; `None` for now.
    pub revision: Option<Revision>,
}

impl Range {
    /// Every key that begins with `prefix`, now.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: Bytes::copy_from_slice(prefix), end: prefix_end(prefix), limit: 0, revision: None }
    }
}

/// The first key after all that begin with `prefix`; empty (no upper bound) when there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else { return Bytes::new() };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Bytes::from(end)
}

/// The keys of a range, in bytewise order.
#[derive(Clone, Debug)]
pub struct RangeResult {
    /// The entries.
    pub entries: Vec<Entry>,
    /// How many keys the whole range holds at that revision, limit or not.
    pub count: usize,
    /// The revision that was read: the one asked for, else the store's.
    pub revision: Revision,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted, or its lease ended.
    Delete,
}

/// One change, or (without entry) the promise that no change up to `revision` is outstanding.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // nearly every event is a change
pub enum Event {
    /// A change.
    Change {
        /// Put or delete.
        kind: EventKind,
        /// The entry written; for a delete, key and revision of the delete with an empty value.
        entry: Entry,
        /// The entry before, unless it was compacted away.
        previous: Option<Entry>,
    },
    /// Everything up to and including this revision has been delivered.
    Progress(Revision),
}

/// A stream of changes in revision order without gaps. It ends after an error, and never between
/// two changes of one revision (an engine may give the keys of an ended lease, or the writes of a
/// [`Commit`], one revision together).
pub struct Watch {
    events: BoxStream<'static, Result<Event, Error>>,
    frontier: Arc<dyn Frontier>,
}

impl Watch {
    /// Puts a stream and what is known about its end together; for engines.
    pub fn new(events: BoxStream<'static, Result<Event, Error>>, frontier: Arc<dyn Frontier>) -> Self {
        Self { events, frontier }
    }

    /// How far this watch has to be read to know the store's present state.
    pub fn frontier(&self) -> Arc<dyn Frontier> {
        self.frontier.clone()
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Stream for Watch {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

/// Where a watch ends: who has read it up to `seen` knows everything up to `current`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// The revision of the last change (or progress) that concerns the watch.
    pub seen: Revision,
    /// The store's revision, at least.
    pub current: Revision,
}

/// The far end of one watch. It makes consistent reads from a cache possible without reading
/// the store again: ask, wait until the cache has applied `seen`, and it is current.
#[async_trait]
pub trait Frontier: Send + Sync {
    /// What a consistent read that starts now has to wait for. Engines in this process answer
    /// at once.
    async fn outstanding(&self) -> Result<Outstanding, Error>;
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its identity.
    pub id: LeaseId,
    /// How long it lives without being kept alive.
    pub ttl: Duration,
}

/// A lease and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The lease.
    pub lease: Lease,
    /// How long it lives if nobody keeps it alive.
    pub remaining: Duration,
    /// The keys it takes along, in order.
    pub keys: Vec<Bytes>,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the process's memory.
    Memory,
    /// Power loss: fdatasync before the acknowledgement.
    Disk,
    /// Power loss of a minority of a quorum.
    Quorum,
}

/// Why the store refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// What the write expected does not hold; this is what is there.
    #[error("the key is not as expected")]
    Conflict {
        /// The entry as it is.
        current: Option<Entry>,
    },
    /// The revision asked for is gone.
    #[error("revision {requested} has been compacted, the oldest is {compacted}")]
    Compacted {
        /// The revision asked for.
        requested: Revision,
        /// The oldest revision that can still be read and watched from.
        compacted: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future {
        /// The revision asked for.
        requested: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// No such lease.
    #[error("lease {0} does not exist")]
    NoLease(LeaseId),
    /// The watcher fell too far behind and was cut.
    #[error("the watcher fell behind and was cut at revision {0}")]
    Lagged(Revision),
    /// Key or value over the limit.
    #[error("{what} of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// "key" or "value".
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The most that is taken.
        max: usize,
    },
    /// A mistake of the caller.
    #[error("{0}")]
    Invalid(String),
    /// The engine failed; nothing was acknowledged.
    #[error("{0}")]
    Unavailable(String),
}

/// A revisioned key-value store with watch.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes `key` if `expect` holds.
    async fn put(&self, key: Bytes, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Put, Error>;

    /// Deletes `key` if `expect` holds. An absent key is a [`Error::Conflict`] with no entry.
    async fn delete(&self, key: Bytes, expect: Expect) -> Result<Deleted, Error>;

    /// Makes several writes as one: whoever reads or watches sees all of them or none, and the
    /// watch gives them without others in between. What does not hold is a [`Error::Conflict`]
    /// and nothing happens.
    async fn commit(&self, commit: Commit) -> Result<Committed, Error>;

    /// Reads one key.
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Found, Error>;

    /// Reads a range of keys.
    async fn range(&self, range: Range) -> Result<RangeResult, Error>;

    /// Changes to keys in `start..end` (an empty `end` for no upper bound) after revision `after`,
    /// then live. `after` = `None` starts with the next change. A progress event follows the
    /// replay of the past; an engine may send more when the watcher has caught up.
    async fn watch(&self, start: Bytes, end: Bytes, after: Option<Revision>) -> Result<Watch, Error>;

    /// Whether the key's value is kept in a form that the next write replaces even when the value is
    /// the same. Engines have one form only; what stands before them may have several.
    async fn is_stale(&self, _key: &[u8]) -> Result<bool, Error> {
        Ok(false)
    }

    /// Forgets versions superseded at or before `revision`. Reads at and watches after an earlier
    /// revision fail with [`Error::Compacted`] from then on; `revision` itself can still be read.
    /// Compacting to where it already is does nothing.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Makes a lease.
    async fn grant(&self, ttl: Duration) -> Result<Lease, Error>;

    /// Starts the lease's time anew.
    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, Error>;

    /// Ends the lease now and deletes its keys, each with a revision of its own.
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;

    /// What is known about a lease.
    async fn lease(&self, lease: LeaseId) -> Result<LeaseStatus, Error>;

    /// All leases, in order.
    async fn leases(&self) -> Result<Vec<LeaseId>, Error>;

    /// Whether the store can be read and written now, for health checks.
    async fn check(&self) -> Result<(), Error>;

    /// The revision of the last write, as far as this engine has heard: others may write to a
    /// store that is shared.
    fn revision(&self) -> Revision;

    /// Where history begins, as far as this engine has heard: earlier revisions cannot be read.
    fn compacted(&self) -> Revision;

    /// What an acknowledged write survives.
    fn durability(&self) -> Durability;
}
