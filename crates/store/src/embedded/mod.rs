//! The default engine: the index in memory, a log and snapshots on disk.
//!
//! Writes wait in a queue; whoever finds it unattended has it served on a blocking thread, which
//! takes batch after batch (one frame, one `fdatasync` each) until nothing waits. So writers
//! share the cost of the disk, and an idle store has no thread. A batch is decided against the
//! durable state and its own earlier writes, made durable, then made visible, then
//! acknowledged: nobody ever reads what a power cut could take back.
//!
//! When the log has outgrown the state, a snapshot is written from an immutable view while
//! writes go on, and the log before it is removed. Reading order: `queue`, `commit`, `log`,
//! `format`, `snapshot`, `recover`.

mod commit;
pub mod disk;
mod format;
mod log;
mod queue;
mod recover;
#[cfg(any(test, feature = "testing"))]
pub mod simulated_disk;
mod snapshot;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use skiff_base::{Clock, Random};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use self::commit::Writer;
use self::disk::{Disk, DiskLock, MachineDisk};
use self::queue::{Operation, Queue};
pub use self::recover::{Dropped, OpenError, Recovery};
use crate::contract::{
    Commit, Committed, Deleted, Durability, Error, Expect, Found, Lease, LeaseId, LeaseStatus, Put, Range, RangeResult,
    Revision, Store, Watch,
};
use crate::index::{self, Index, sweep};
use crate::keeper::{History, Keeper, Kept};
use crate::limits::Limits;

/// How an embedded store runs.
#[derive(Clone)]
pub struct Options {
    /// What it accepts and how long it remembers.
    pub limits: Limits,
    /// A snapshot is written once the log has this many bytes and is larger than the last
    /// snapshot. It bounds what an opening has to replay and what a small store takes on disk.
    pub snapshot_log_bytes_min: u64,
    /// The log's file is made longer by this at a time, as a hole: it makes the commit of a write
    /// cheaper. 0 to let every write make it longer.
    pub log_ahead_bytes: u64,
    /// The time for leases and compaction.
    pub clock: Clock,
    /// Marks files, so that bytes of one are not taken for another's.
    pub random: Random,
}

impl Options {
    /// The defaults, on the machine's clock.
    pub fn new(clock: Clock, random: Random) -> Self {
        Self { limits: Limits::default(), snapshot_log_bytes_min: 16 << 20, log_ahead_bytes: 1 << 20, clock, random }
    }
}

/// A store in a directory. See the [module](self).
#[derive(Debug)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    keeper: Keeper,
    recovery: Recovery,
}

#[derive(Debug)]
struct Inner {
    index: RwLock<Index>,
    revision: Arc<AtomicU64>,
    queue: Mutex<Queue>,
    /// Told when the writers that the server of the queue waits for have come.
    arrived: Condvar,
    /// Room in the queue, in [`ROOM_UNIT_BYTES`].
    room: Semaphore,
    writer: Mutex<Writer>,
    disk: Arc<dyn Disk>,
    limits: Limits,
    clock: Clock,
    is_closed: AtomicBool,
    /// Set after a failed `fdatasync`: nothing more is written.
    poison: OnceLock<String>,
    /// Jobs on blocking threads: the server of the queue, a snapshot.
    jobs: watch::Sender<usize>,
    lock: Mutex<Option<DiskLock>>,
}

/// Writes beyond this wait outside of the queue.
const QUEUE_BYTES_MAX: usize = 64 << 20;
const ROOM_UNIT_BYTES: usize = 1 << 10;

impl EmbeddedStore {
    /// Opens the store in `directory`, making it if it is missing. Reads everything, so it
    /// should run on a thread that may block, within a tokio runtime.
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        let disk = MachineDisk::open(directory)
            .map_err(|error| OpenError::Io { what: format!("open the directory {}", directory.display()), error })?;
        Self::open_on(Arc::new(disk), options)
    }

    /// Opens the store on a disk of another kind.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let directory = disk.name();
        let lock = disk
            .lock()
            .map_err(|error| OpenError::Io { what: format!("lock {directory}"), error })?
            .map_err(|owner| OpenError::Locked { directory: directory.clone(), owner })?;
        let recovered = recover::recover(&disk, &options.random)?;
        let recovery = recovered.report.clone();
        tracing::info!(directory, "opened");
        if let Some(dropped) = &recovery.dropped {
            tracing::warn!(
                directory,
                file = dropped.file,
                offset = dropped.offset,
                bytes = dropped.bytes,
                "dropped a write that was cut off before it was acknowledged"
            );
        }
        let keeper = Keeper::new(options.clock.clone(), options.limits.history_age);
        let inner = Inner::new(disk, lock, options, recovered);
        let inner = Arc::new(inner);
        // Leases and history that were found have to end some day too.
        keeper.nudge(&inner);
        Ok(Self { inner, keeper, recovery })
    }

    /// What was found when it was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Finishes the writes that wait and a snapshot that is being written, and gives the
    /// directory free. Later writes fail.
    pub async fn close(&self) {
        self.keeper.stop().await;
        {
            // Under the queue's lock: who has looked at the flag has also pushed by now.
            let _queue = self.inner.queue.lock();
            self.inner.is_closed.store(true, Ordering::Release);
        }
        let mut jobs = self.inner.jobs.subscribe();
        // Both ends are here, so this cannot fail.
        let _ = jobs.wait_for(|count| *count == 0).await;
        *self.inner.lock.lock() = None;
    }

    async fn submit<T>(&self, make: impl FnOnce(queue::Reply<T>) -> Operation) -> Result<T, Error> {
        let result = self.inner.submit(make).await;
        let over = self.inner.is_history_over_limit();
        self.keeper.wrote(&self.inner, over);
        result
    }
}

impl Inner {
    /// Puts an operation into the queue and waits until it is durable or refused. Giving up on
    /// the wait does not take the operation back.
    async fn submit<T>(self: &Arc<Self>, make: impl FnOnce(queue::Reply<T>) -> Operation) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let operation = make(reply);
        let room = u32::try_from(operation.bytes().min(QUEUE_BYTES_MAX) / ROOM_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let _room = self.room.acquire_many(room).await.map_err(|_| closed())?;
        let must_serve = {
            let mut queue = self.queue.lock();
            if self.is_closed.load(Ordering::Acquire) {
                return Err(closed());
            }
            let must_serve = queue.push(operation);
            if must_serve {
                self.jobs.send_modify(|count| *count += 1);
            }
            if queue.is_complete() {
                self.arrived.notify_one();
            }
            must_serve
        };
        if must_serve {
            let inner = self.clone();
            tokio::task::spawn_blocking(move || inner.serve());
        }
        answer.await.unwrap_or_else(|_| Err(Error::Unavailable("the store has failed".into())))
    }

    fn is_history_over_limit(&self) -> bool {
        self.index.read().history_bytes() > self.limits.history_bytes_max
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn put(&self, key: Bytes, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Put, Error> {
        self.inner.limits.check(&key, &value)?;
        self.submit(|reply| Operation::Put { key, value, expect, lease, reply }).await
    }

    async fn delete(&self, key: Bytes, expect: Expect) -> Result<Deleted, Error> {
        self.submit(|reply| Operation::Delete { key, expect, reply }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        commit.check(&self.inner.limits)?;
        self.submit(|reply| Operation::Commit { commit, reply }).await
    }

    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Found, Error> {
        self.inner.index.read().get(key, revision)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        index::range(&self.inner.index, &range)
    }

    async fn watch(&self, start: Bytes, end: Bytes, after: Option<Revision>) -> Result<Watch, Error> {
        self.inner.index.write().watch(start, end, after, &self.inner.revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.clone().forget(revision).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, Error> {
        let id = self.inner.submit(|reply| Operation::Grant { ttl, reply }).await?;
        self.keeper.nudge(&self.inner);
        Ok(Lease { id, ttl })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, Error> {
        // Not written down: leases start anew when the store is opened.
        let now = self.inner.clock.instant();
        let kept = self.inner.index.write().leases.renew(lease, now).ok_or(Error::NoLease(lease))?;
        self.keeper.nudge(&self.inner);
        Ok(kept)
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.submit(|reply| Operation::Revoke { lease, expired_by: None, reply }).await
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseStatus, Error> {
        let now = self.inner.clock.instant();
        self.inner.index.read().leases.status(lease, now).ok_or(Error::NoLease(lease))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.inner.index.read().leases.iter().map(|(id, _)| id).collect())
    }

    async fn check(&self) -> Result<(), Error> {
        if self.inner.is_closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        self.inner.poison.get().map_or(Ok(()), |cause| Err(Error::Unavailable(cause.clone())))
    }

    fn revision(&self) -> Revision {
        self.inner.revision.load(Ordering::Acquire)
    }

    fn compacted(&self) -> Revision {
        self.inner.index.read().compacted()
    }

    fn durability(&self) -> Durability {
        Durability::Disk
    }
}

#[async_trait]
impl Kept for Inner {
    fn history(&self) -> History {
        let index = self.index.read();
        History {
            compacted: index.compacted(),
            current: index.revision(),
            is_over_limit: index.history_bytes() > self.limits.history_bytes_max,
        }
    }

    fn lease_deadline(&self) -> Option<Instant> {
        self.index.read().leases.deadline()
    }

    fn lease_expired(&self, now: Instant) -> Option<LeaseId> {
        self.index.read().leases.expired(now)
    }

    async fn end_lease(self: Arc<Self>, lease: LeaseId, now: Instant) -> Result<(), Error> {
        self.submit(|reply| Operation::Revoke { lease, expired_by: Some(now), reply }).await
    }

    async fn forget(self: Arc<Self>, revision: Revision) -> Result<(), Error> {
        self.index.read().check_compact(revision)?;
        self.submit(|reply| Operation::Compact { revision, reply }).await?;
        sweep(&self.index).await;
        Ok(())
    }
}
