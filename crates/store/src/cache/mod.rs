//! The watch cache: the objects below one prefix, decoded once, read and watched by everybody.
//!
//! One task follows the store and applies its changes to a persistent map, so a snapshot is one
//! reference count and stays what it is while a client pages through it. A consistent read does
//! not visit the store: the store says which revision this cache must have applied (its
//! [`Frontier`]), and in most cases it already has. Watchers share every event; each has a
//! bounded queue, and one that does not read is cut without delaying the others.
//!
//! The cache starts with its first use. It knows keys and a decoded item `T`; what `T` is and how
//! it is served is the API's business.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), skiff_store::Error> {
//! # use std::sync::Arc;
//! # use skiff_base::{Clock, Shutdown, Tasks};
//! use skiff_store::{Expect, Store, cache::{Cache, Scope}, memory::MemoryStore};
//!
//! let clock = Clock::system();
//! let store = Arc::new(MemoryStore::new(clock.clone()));
//! let tasks = Tasks::new("example", Shutdown::new());
//! let cache = Cache::new(store.clone(), "pods/".into(), |entry| entry.value.clone(), clock, &tasks);
//!
//! store.put("pods/web".into(), "{}".into(), Expect::Absent, None).await?;
//! let pods = cache.current().await?;
//! assert_eq!(pods.get(b"pods/web").map(|item| item.len()), Some(2));
//! let mut watcher = cache.watch(Scope::prefix(b"pods/"), pods.revision()).await?;
//! store.delete("pods/web".into(), Expect::Any).await?;
//! assert_eq!(watcher.next().await?.key, "pods/web");
//! # Ok(())
//! # }
//! ```

mod attributes;
mod feed;
mod index;
mod ring;
mod snapshot;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use skiff_base::{Clock, Tasks};
use tokio::sync::watch;

use self::attributes::Attributes;
pub use self::attributes::{Field, Labels, Wanted};
use self::index::Indexing;
use self::ring::Ring;
use self::snapshot::Kept;
pub use self::snapshot::Snapshot;
use self::watcher::Registry;
pub use self::watcher::{Filter, Scope, WATCHER_QUEUE_EVENTS, Watcher};
use crate::contract::{Entry, Error, EventKind, Frontier, Outstanding, Range, Revision, Store, prefix_end};

/// One change as every watcher sees it.
#[derive(Debug)]
pub struct Change<T> {
    /// Put or delete.
    pub kind: EventKind,
    /// The key.
    pub key: Bytes,
    /// The revision of the change.
    pub revision: Revision,
    /// The item as written; for a delete the last one, built anew with the revision of the
    /// delete as its `mod_revision`.
    pub current: Arc<T>,
    /// What was there before.
    pub previous: Option<Arc<T>>,
}

/// See the [module](self).
pub struct Cache<T> {
    inner: Arc<Inner<T>>,
    tasks: Tasks,
    is_started: AtomicBool,
}

type Build<T> = dyn Fn(&Entry) -> T + Send + Sync;

struct Inner<T> {
    store: Arc<dyn Store>,
    prefix: Bytes,
    build: Box<Build<T>>,
    clock: Clock,
    attributes: Attributes<T>,
    // Lock order: `registry`, then `state`, then `indexing`. The feed holds `registry` while it
    // applies and hands out, so who holds it sees neither a half-told change nor misses one.
    registry: Mutex<Registry<T>>,
    state: RwLock<State<T>>,
    indexing: Mutex<Indexing<T>>,
    /// The revision that has been applied; 0 before the first list.
    applied: watch::Sender<Revision>,
    /// The far end of the watch that is followed now.
    frontier: watch::Sender<Option<Arc<dyn Frontier>>>,
}

struct State<T> {
    items: imbl::OrdMap<Bytes, Arc<T>>,
    /// The last change in `items`, or the list's revision.
    changed: Revision,
    ring: Ring<T>,
    kept: Kept<T>,
}

impl<T> std::fmt::Debug for Cache<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cache").field("prefix", &self.inner.prefix).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// A cache of the keys that begin with `prefix`. `build` runs once for each entry; it should
    /// keep the entry's `value` as it is (shared with the store), not copy it.
    pub fn new(
        store: Arc<dyn Store>,
        prefix: Bytes,
        build: impl Fn(&Entry) -> T + Send + Sync + 'static,
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        Self::with_labels(store, prefix, build, |_, _| {}, clock, tasks)
    }

    /// A cache whose items can be found by their labels, which `labels` tells.
    pub fn with_labels(
        store: Arc<dyn Store>,
        prefix: Bytes,
        build: impl Fn(&Entry) -> T + Send + Sync + 'static,
        labels: impl Fn(&T, &mut dyn FnMut(&str, &str)) + Send + Sync + 'static,
        clock: Clock,
        tasks: &Tasks,
    ) -> Self {
        let state = State { items: imbl::OrdMap::new(), changed: 0, ring: Ring::new(0), kept: Kept::default() };
        let inner = Inner {
            store,
            prefix,
            build: Box::new(build),
            clock,
            attributes: Attributes::new(Box::new(labels)),
            registry: Mutex::default(),
            state: RwLock::new(state),
            indexing: Mutex::default(),
            applied: watch::Sender::new(0),
            frontier: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner), tasks: tasks.group("cache"), is_started: AtomicBool::new(false) }
    }

    /// The items as of now: every write acknowledged before the call is in them. Waits as long
    /// as the store cannot be read; the deadline is the caller's.
    pub async fn current(&self) -> Result<Snapshot<T>, Error> {
        self.start();
        let outstanding = self.inner.caught_up().await?;
        Ok(self.inner.snapshot(outstanding.current))
    }

    /// The items as last heard of, without asking the store; `None` before the first list.
    pub fn latest(&self) -> Option<Snapshot<T>> {
        let applied = *self.inner.applied.borrow();
        (applied > 0).then(|| self.inner.snapshot(applied))
    }

    /// The items as last heard of, but not before the change at `revision`, which is one of theirs.
    /// The store is not asked.
    pub async fn heard(&self, revision: Revision) -> Result<Snapshot<T>, Error> {
        self.start();
        self.inner.wait_for(revision).await?;
        let applied = *self.inner.applied.borrow();
        Ok(self.inner.snapshot(applied))
    }

    /// The items at `revision` or later. A revision that the store has not reached is
    /// [`Error::Future`].
    pub async fn at_least(&self, revision: Revision) -> Result<Snapshot<T>, Error> {
        self.start();
        self.inner.wait_for(1).await?;
        if *self.inner.applied.borrow() >= revision {
            return Ok(self.inner.snapshot(revision));
        }
        let snapshot = self.current().await?;
        if snapshot.revision() < revision {
            return Err(Error::Future { requested: revision, current: snapshot.revision() });
        }
        Ok(snapshot)
    }

    /// The items exactly at `revision`: from a snapshot that was [kept](Cache::keep), else by
    /// taking recent changes back, else from the store's history.
    ///
    /// # Errors
    /// [`Error::Compacted`] before the store's history even where memory has it still: whether a
    /// revision can be read depends on nothing but the store.
    pub async fn at(&self, revision: Revision) -> Result<Snapshot<T>, Error> {
        let compacted = self.inner.store.compacted();
        if revision < compacted {
            return Err(Error::Compacted { requested: revision, compacted });
        }
        let latest = self.at_least(revision).await?;
        if let Some(snapshot) = self.inner.rewind(&latest, revision) {
            self.keep(&snapshot);
            return Ok(snapshot);
        }
        let range = Range { revision: Some(revision), ..Range::prefix(&self.inner.prefix) };
        let entries = self.inner.store.range(range).await?.entries;
        let snapshot = Snapshot::new(revision, revision, self.inner.build_all(&entries));
        self.keep(&snapshot);
        Ok(snapshot)
    }

    /// Remembers a snapshot for a while, so that the next page of a list is cheap.
    pub fn keep(&self, snapshot: &Snapshot<T>) {
        self.inner.state.write().kept.insert(snapshot.clone(), self.inner.clock.instant());
    }

    /// The keys of `snapshot` whose items may fulfil every condition, in order: all that do and
    /// perhaps some that do not. `None` when nothing is faster than to look at every item. A large
    /// cache that is asked for the first time builds what it needs for the next time.
    pub fn candidates(&self, snapshot: &Snapshot<T>, wanted: &[Wanted<T>]) -> Option<Vec<Bytes>> {
        let found = index::find(&self.inner, snapshot, wanted);
        if found.wants_index {
            self.tasks.spawn("index", index::build(Arc::downgrade(&self.inner)));
        }
        found.keys
    }

    /// Changes within `scope` after revision `after`. [`Error::Compacted`] when changes since
    /// then are no longer remembered: the client has to list again.
    pub async fn watch(&self, scope: Scope, after: Revision) -> Result<Watcher<T>, Error> {
        self.watch_filtered(scope, after, None).await
    }

    /// Like [`Cache::watch`], without the changes that `filter` does not want; they do not wake
    /// the watcher.
    pub async fn watch_filtered(
        &self,
        scope: Scope,
        after: Revision,
        filter: Option<Filter<T>>,
    ) -> Result<Watcher<T>, Error> {
        self.at_least(after).await?;
        watcher::open(&self.inner, scope, after, filter)
    }

    fn start(&self) {
        if !self.is_started.swap(true, Ordering::AcqRel) {
            self.tasks.spawn("feed", feed::follow(Arc::downgrade(&self.inner), self.inner.clock.clone()));
        }
    }
}

impl<T> Drop for Cache<T> {
    fn drop(&mut self) {
        self.tasks.shutdown().signal();
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// Waits until everything acknowledged before the call is applied.
    async fn caught_up(&self) -> Result<Outstanding, Error> {
        let mut frontiers = self.frontier.subscribe();
        loop {
            let frontier = frontiers.wait_for(Option::is_some).await.map(|frontier| frontier.clone());
            let Ok(Some(frontier)) = frontier else { return Err(ended()) };
            match frontier.outstanding().await {
                Ok(outstanding) => {
                    // The feed may lose this watch before it has read so far; it then starts
                    // another one or a list, and either takes `applied` beyond `seen`.
                    self.wait_for(outstanding.seen).await?;
                    return Ok(outstanding);
                }
                // The watch was cut; the feed will notice and publish another.
                Err(_) => frontiers.changed().await.map_err(|_| ended())?,
            }
        }
    }

    async fn wait_for(&self, revision: Revision) -> Result<(), Error> {
        if *self.applied.borrow() >= revision.max(1) {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        applied.wait_for(|applied| *applied >= revision.max(1)).await.map(|_| ()).map_err(|_| ended())
    }

    /// The items as they are, known to be current at `current`.
    fn snapshot(&self, current: Revision) -> Snapshot<T> {
        let state = self.state.read();
        Snapshot::new(state.changed, current.max(state.changed), state.items.clone())
    }

    /// The items at `revision`, if that can be had from memory.
    fn rewind(&self, latest: &Snapshot<T>, revision: Revision) -> Option<Snapshot<T>> {
        if latest.holds_at(revision) {
            return Some(latest.at(revision));
        }
        let state = self.state.read();
        if let Some(kept) = state.kept.find(revision) {
            return Some(kept.at(revision));
        }
        state.ring.rewind(state.items.clone(), revision).map(|items| Snapshot::new(revision, revision, items))
    }

    fn build_all(&self, entries: &[Entry]) -> imbl::OrdMap<Bytes, Arc<T>> {
        entries.iter().map(|entry| (entry.key.clone(), Arc::new((self.build)(entry)))).collect()
    }

    fn range(&self) -> Range {
        Range::prefix(&self.prefix)
    }

    fn end(&self) -> Bytes {
        prefix_end(&self.prefix)
    }
}

fn ended() -> Error {
    Error::Unavailable("the watch cache has ended".into())
}
