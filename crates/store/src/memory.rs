//! The engine without a disk: the index behind a lock. It is what tests of everything above the
//! store run on, so it can be told to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use skiff_base::Clock;
use tokio::time::Instant;

use crate::contract::{
    Commit, Committed, Deleted, Durability, Entry, Error, Expect, Found, Lease, LeaseId, LeaseStatus, Put,
    REVISION_FIRST, Range, RangeResult, Revision, Store, Watch,
};
use crate::index::{self, Change, Index, LeaseState, plan_commit, plan_delete, plan_put, sweep};
use crate::keeper::{History, Keeper, Kept};
use crate::limits::Limits;

/// A store in memory. Nothing survives it.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Arc<Inner>,
    keeper: Keeper,
}

#[derive(Debug)]
struct Inner {
    index: RwLock<Index>,
    revision: Arc<AtomicU64>,
    limits: Limits,
    clock: Clock,
    faults: Mutex<Pending>,
}

/// Faults that wait for their moment.
#[derive(Debug, Default)]
struct Pending {
    failures: usize,
    delay: Option<Duration>,
}

/// Makes a [`MemoryStore`] fail. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

impl Faults {
    /// The next `count` writes fail with [`Error::Unavailable`] and change nothing.
    pub fn fail_writes(&self, count: usize) {
        self.0.faults.lock().failures = count;
    }

    /// Every write from now on waits this long before it begins; zero for no longer.
    pub fn delay_writes(&self, delay: Duration) {
        self.0.faults.lock().delay = (!delay.is_zero()).then_some(delay);
    }

    /// Ends every watch that is open now with [`Error::Unavailable`], as a lost connection does.
    pub fn cut_watches(&self) {
        self.0.index.write().watchers.cut(&Error::Unavailable("the watch was cut by an injected fault".into()));
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        Self::with_limits(clock, Limits::default())
    }

    /// An empty store with other limits.
    pub fn with_limits(clock: Clock, limits: Limits) -> Self {
        let keeper = Keeper::new(clock.clone(), limits.history_age);
        let inner = Inner {
            index: RwLock::default(),
            revision: Arc::new(AtomicU64::new(REVISION_FIRST)),
            limits,
            clock,
            faults: Mutex::default(),
        };
        Self { inner: Arc::new(inner), keeper }
    }

    /// The handle that makes this store fail.
    pub fn faults(&self) -> Faults {
        Faults(self.inner.clone())
    }

    async fn before_write(&self) -> Result<(), Error> {
        let delay = {
            let mut faults = self.inner.faults.lock();
            if faults.failures > 0 {
                faults.failures -= 1;
                return Err(Error::Unavailable("the write failed by an injected fault".into()));
            }
            faults.delay
        };
        if let Some(delay) = delay {
            self.inner.clock.sleep(delay).await;
        }
        Ok(())
    }

    fn after_write(&self) {
        self.keeper.wrote(&self.inner, self.inner.history().is_over_limit);
    }
}

impl Inner {
    fn apply(&self, index: &mut Index, change: Change) {
        let revision = change.revision();
        index.apply(change);
        self.revision.store(revision, Ordering::Release);
    }

    fn revoke(&self, lease: LeaseId, expired_by: Option<Instant>) -> Result<(), Error> {
        let mut index = self.index.write();
        if expired_by.is_some_and(|now| !index.leases.is_expired(lease, now)) {
            return Ok(());
        }
        let keys = index.leases.keys(lease).ok_or(Error::NoLease(lease))?;
        for key in keys {
            let change = plan_delete(index.present(&key), index.revision() + 1, Expect::Any)?;
            self.apply(&mut index, change);
        }
        index.leases.remove(lease);
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, key: Bytes, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Put, Error> {
        self.inner.limits.check(&key, &value)?;
        self.before_write().await?;
        let put = {
            let mut index = self.inner.index.write();
            if let Some(lease) = lease.filter(|lease| !index.leases.contains(*lease)) {
                return Err(Error::NoLease(lease));
            }
            let change = plan_put(index.present(&key), index.revision() + 1, (&key, &value), expect, lease)?;
            self.inner.apply(&mut index, change.clone());
            Put {
                entry: Entry::clone(&change.entry),
                previous: change.previous.map(|previous| Entry::clone(&previous)),
            }
        };
        self.after_write();
        Ok(put)
    }

    async fn delete(&self, key: Bytes, expect: Expect) -> Result<Deleted, Error> {
        self.before_write().await?;
        let deleted = {
            let mut index = self.inner.index.write();
            let previous = index.present(&key).cloned().ok_or(Error::Conflict { current: None })?;
            let change = plan_delete(Some(&previous), index.revision() + 1, expect)?;
            let revision = change.revision();
            self.inner.apply(&mut index, change);
            Deleted { revision, previous: Entry::clone(&previous) }
        };
        self.after_write();
        Ok(deleted)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        commit.check(&self.inner.limits)?;
        self.before_write().await?;
        let committed = {
            let mut index = self.inner.index.write();
            let changes = plan_commit(&index, &Default::default(), index.revision() + 1, &commit)?;
            for change in &changes {
                self.inner.apply(&mut index, change.clone());
            }
            Committed {
                revision: index.revision(),
                previous: changes.iter().map(|change| change.previous.as_deref().cloned()).collect(),
            }
        };
        self.after_write();
        Ok(committed)
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
        self.before_write().await?;
        let id = {
            let deadline = Some(self.inner.clock.instant() + ttl);
            let mut index = self.inner.index.write();
            let id = index.leases.next();
            index.leases.insert(id, LeaseState { ttl, deadline });
            id
        };
        self.keeper.nudge(&self.inner);
        Ok(Lease { id, ttl })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease, Error> {
        let now = self.inner.clock.instant();
        self.inner.index.write().leases.renew(lease, now).ok_or(Error::NoLease(lease))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.before_write().await?;
        self.inner.revoke(lease, None)?;
        self.after_write();
        Ok(())
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseStatus, Error> {
        let now = self.inner.clock.instant();
        self.inner.index.read().leases.status(lease, now).ok_or(Error::NoLease(lease))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.inner.index.read().leases.iter().map(|(id, _)| id).collect())
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn revision(&self) -> Revision {
        self.inner.revision.load(Ordering::Acquire)
    }

    fn compacted(&self) -> Revision {
        self.inner.index.read().compacted()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
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
        self.revoke(lease, Some(now))
    }

    async fn forget(self: Arc<Self>, revision: Revision) -> Result<(), Error> {
        self.index.write().compact(revision)?;
        sweep(&self.index).await;
        Ok(())
    }
}
