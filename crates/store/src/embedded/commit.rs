//! Serving the queue: decide a batch, make it durable, make it visible, acknowledge.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use skiff_base::Random;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::disk::{Disk, DiskLock};
use super::format::Frame;
use super::log::{AppendError, Log, segment_name};
use super::queue::{Operation, Queue, Reply};
use super::recover::Recovered;
use super::snapshot::{self, snapshot_name};
use super::{Inner, Options, QUEUE_BYTES_MAX, ROOM_UNIT_BYTES, closed};
use crate::contract::{Commit, Committed, Deleted, Entry, Error, EventKind, Expect, LeaseId, Put, Revision};
use crate::index::{Change, Index, LeaseState, Overlay, plan_commit, plan_delete, plan_put};

/// The next batch waits for its writers for at most this part of what the last one took on the disk …
const LINGER_PART: u32 = 2;
/// … and never longer than this.
const LINGER_MAX: Duration = Duration::from_micros(500);

/// What only the server of the queue touches, and a snapshot when it ends.
pub(super) struct Writer {
    log: Log,
    frame: Frame,
    random: Random,
    /// Bytes of log since the snapshot.
    log_bytes: u64,
    /// A snapshot is due at this size of the log.
    snapshot_due: u64,
    snapshot_log_bytes_min: u64,
    snapshot_bytes: u64,
    /// The first file that is still there.
    oldest: u64,
    is_snapshot_running: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writer").field("log", &self.log).finish_non_exhaustive()
    }
}

/// What a batch comes to, and who waits for it.
enum Outcome {
    Put(Change, Reply<Put>),
    Deleted(Change, Reply<Deleted>),
    /// The revision is what the store is at when nothing is written.
    Committed(Vec<Change>, Revision, Reply<Committed>),
    Granted(LeaseId, Duration, Reply<LeaseId>),
    Revoked(LeaseId, Vec<Change>, Reply<()>),
    Compacted(Revision, Reply<()>),
    /// Refused, for a reason that may rest on a write of the same batch.
    Refused(Operation, Error),
    /// A lease that was to end was kept alive meanwhile.
    Nothing(Reply<()>),
}

impl Inner {
    pub(super) fn new(disk: Arc<dyn Disk>, lock: DiskLock, options: Options, recovered: Recovered) -> Self {
        let Recovered { mut index, log, log_bytes, snapshot_bytes, .. } = recovered;
        index.leases.renew_all(options.clock.instant());
        let min = options.snapshot_log_bytes_min;
        let writer = Writer {
            log: log.with_ahead(options.log_ahead_bytes),
            frame: Frame::new(),
            random: options.random,
            log_bytes,
            snapshot_due: min.max(snapshot_bytes),
            snapshot_log_bytes_min: min,
            snapshot_bytes,
            oldest: recovered.oldest,
            is_snapshot_running: false,
        };
        Self {
            revision: Arc::new(AtomicU64::new(index.revision())),
            index: RwLock::new(index),
            queue: Mutex::new(Queue::default()),
            arrived: Condvar::new(),
            room: Semaphore::new(QUEUE_BYTES_MAX / ROOM_UNIT_BYTES + 1),
            writer: Mutex::new(writer),
            disk,
            limits: options.limits,
            clock: options.clock,
            is_closed: AtomicBool::new(false),
            poison: OnceLock::new(),
            jobs: watch::Sender::new(0),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// Takes batches until nothing waits.
    pub(super) fn serve(self: Arc<Self>) {
        let _job = Job(&self);
        let (mut last, mut took) = (0, Duration::ZERO);
        loop {
            let Some(batch) = self.next_batch(last, took) else { return };
            last = batch.len();
            let began = self.clock.instant();
            self.commit(batch);
            took = began.elapsed();
        }
    }

    /// The next batch, after the writers that were just answered have had the time to come back. Without it the first
    /// of them would get a batch of its own, and all others would wait for two.
    fn next_batch(&self, last: usize, took: Duration) -> Option<Vec<Operation>> {
        let mut queue = self.queue.lock();
        // Asleep, not spinning: the writers need the processor to come back.
        if last > 1 && queue.is_awaiting(last - last / 4) {
            self.arrived.wait_for(&mut queue, (took / LINGER_PART).min(LINGER_MAX));
        }
        queue.batch()
    }

    fn commit(self: &Arc<Self>, batch: Vec<Operation>) {
        let mut writer = self.writer.lock();
        if let Some(cause) = self.poison.get() {
            let error = Error::Unavailable(cause.clone());
            batch.into_iter().for_each(|operation| operation.fail(error.clone()));
            return;
        }
        writer.frame.clear();
        let outcomes = decide(&self.index.read(), batch, &mut writer.frame, self.clock.instant());
        if let Err(error) = writer.append(&self.poison) {
            drop(writer);
            outcomes.into_iter().for_each(|outcome| outcome.fail(&error));
            return;
        }
        self.publish(&outcomes);
        outcomes.into_iter().for_each(Outcome::acknowledge);
        self.maintain(&mut writer);
    }

    /// Makes what is durable visible.
    fn publish(&self, outcomes: &[Outcome]) {
        let mut index = self.index.write();
        for outcome in outcomes {
            match outcome {
                Outcome::Put(change, _) | Outcome::Deleted(change, _) => index.apply(change.clone()),
                Outcome::Committed(changes, ..) => changes.iter().for_each(|change| index.apply(change.clone())),
                Outcome::Granted(lease, ttl, _) => {
                    let deadline = Some(self.clock.instant() + *ttl);
                    index.leases.insert(*lease, LeaseState { ttl: *ttl, deadline });
                }
                Outcome::Revoked(lease, changes, _) => {
                    changes.iter().for_each(|change| index.apply(change.clone()));
                    index.leases.remove(*lease);
                }
                Outcome::Compacted(revision, _) => {
                    // Checked when it was decided, and nothing was decided since.
                    let compacted = index.compact(*revision);
                    assert!(compacted.is_ok(), "{compacted:?}");
                }
                Outcome::Refused(..) | Outcome::Nothing(_) => {}
            }
        }
        self.revision.store(index.revision(), Ordering::Release);
    }

    /// Begins a new segment, and a snapshot, when it is time.
    fn maintain(self: &Arc<Self>, writer: &mut Writer) {
        let is_snapshot_due = !writer.is_snapshot_running && writer.log_bytes >= writer.snapshot_due;
        if !is_snapshot_due && !writer.log.is_full() {
            return;
        }
        let view = self.index.read().view();
        if let Err(error) = writer.log.rotate(view.revision) {
            tracing::warn!(disk = self.disk.name(), %error, "cannot begin a log segment, going on with the old one");
            writer.snapshot_due = writer.log_bytes + writer.snapshot_log_bytes_min;
            return;
        }
        if !is_snapshot_due {
            return;
        }
        writer.is_snapshot_running = true;
        let sequence = writer.log.sequence();
        let covered = writer.log_bytes;
        let random = writer.random.clone();
        self.jobs.send_modify(|count| *count += 1);
        let inner = self.clone();
        tokio::task::spawn_blocking(move || {
            let _job = Job(&inner);
            let result = snapshot::write(inner.disk.as_ref(), &random, sequence, &view);
            drop(view);
            inner.finish_snapshot(sequence, covered, result);
        });
    }

    /// The log up to `covered` bytes is no longer needed, if the snapshot was written.
    fn finish_snapshot(&self, sequence: u64, covered: u64, result: io::Result<u64>) {
        let oldest = {
            let mut writer = self.writer.lock();
            writer.is_snapshot_running = false;
            match result {
                Ok(bytes) => {
                    writer.log_bytes -= covered;
                    writer.snapshot_bytes = bytes;
                    writer.snapshot_due = writer.snapshot_log_bytes_min.max(bytes);
                    std::mem::replace(&mut writer.oldest, sequence)
                }
                Err(error) => {
                    tracing::warn!(disk = self.disk.name(), %error, "cannot write a snapshot, the log goes on growing");
                    writer.snapshot_due = writer.log_bytes + writer.snapshot_log_bytes_min;
                    return;
                }
            }
        };
        for stale in oldest..sequence {
            for name in [segment_name(stale), snapshot_name(stale)] {
                match self.disk.remove(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        // It will be removed when the store is opened.
                        tracing::warn!(disk = self.disk.name(), name, %error, "cannot remove a file");
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Writer {
    fn append(&mut self, poison: &OnceLock<String>) -> Result<(), Error> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let error = match self.log.append(&mut self.frame) {
            Ok(()) => {
                self.log_bytes += self.frame.len() as u64;
                return Ok(());
            }
            Err(AppendError::Write(error)) => format!("cannot write to the log: {error}"),
            Err(AppendError::Sync(error)) => {
                let cause = format!(
                    "the disk failed to make a write durable ({error}); nothing more is written until the store is \
                     opened again"
                );
                tracing::error!(%error, "fdatasync of the log failed, refusing further writes");
                poison.get_or_init(|| cause).clone()
            }
        };
        Err(Error::Unavailable(error))
    }
}

/// Decides a batch and puts what happens into `frame`.
fn decide(index: &Index, batch: Vec<Operation>, frame: &mut Frame, now: Instant) -> Vec<Outcome> {
    let mut round = Round { index, written: Overlay::new(), next: index.revision() + 1, frame };
    batch.into_iter().map(|operation| round.decide(operation, now)).collect()
}

struct Round<'a> {
    index: &'a Index,
    /// The batch's own writes; `None` for a delete.
    written: Overlay,
    next: Revision,
    frame: &'a mut Frame,
}

impl Round<'_> {
    fn decide(&mut self, operation: Operation, now: Instant) -> Outcome {
        match operation {
            Operation::Put { key, value, expect, lease, reply } => match self.put(&key, &value, expect, lease) {
                Ok(change) => Outcome::Put(change, reply),
                Err(error) => Outcome::Refused(Operation::Put { key, value, expect, lease, reply }, error),
            },
            Operation::Delete { key, expect, reply } => match self.delete(&key, expect) {
                Ok(change) => Outcome::Deleted(change, reply),
                Err(error) => Outcome::Refused(Operation::Delete { key, expect, reply }, error),
            },
            Operation::Commit { commit, reply } => match self.commit(&commit) {
                Ok(changes) => Outcome::Committed(changes, self.next - 1, reply),
                Err(error) => Outcome::Refused(Operation::Commit { commit, reply }, error),
            },
            Operation::Grant { ttl, reply } => {
                let lease = self.index.leases.next();
                self.frame.grant(lease, ttl);
                Outcome::Granted(lease, ttl, reply)
            }
            Operation::Revoke { lease, expired_by, reply } => {
                if expired_by.is_some() && !self.index.leases.is_expired(lease, now) {
                    return Outcome::Nothing(reply);
                }
                match self.revoke(lease) {
                    Ok(changes) => Outcome::Revoked(lease, changes, reply),
                    Err(error) => Outcome::Refused(Operation::Revoke { lease, expired_by, reply }, error),
                }
            }
            Operation::Compact { revision, reply } => match self.index.check_compact(revision) {
                Ok(()) if revision == self.index.compacted() => Outcome::Nothing(reply),
                Ok(()) => {
                    self.frame.compact(revision);
                    Outcome::Compacted(revision, reply)
                }
                Err(error) => Outcome::Refused(Operation::Compact { revision, reply }, error),
            },
        }
    }

    fn present(&self, key: &Bytes) -> Option<Arc<Entry>> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.index.present(key).cloned(),
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Change, Error> {
        if let Some(lease) = lease.filter(|lease| !self.index.leases.contains(*lease)) {
            return Err(Error::NoLease(lease));
        }
        let change = plan_put(self.present(key).as_ref(), self.next, (key, value), expect, lease)?;
        self.take(&change);
        Ok(change)
    }

    fn delete(&mut self, key: &Bytes, expect: Expect) -> Result<Change, Error> {
        let change = plan_delete(self.present(key).as_ref(), self.next, expect)?;
        self.take(&change);
        Ok(change)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Vec<Change>, Error> {
        let changes = plan_commit(self.index, &self.written, self.next, commit)?;
        changes.iter().for_each(|change| self.take(change));
        Ok(changes)
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<Vec<Change>, Error> {
        let keys = self.index.leases.keys(lease).ok_or(Error::NoLease(lease))?;
        let changes: Result<Vec<_>, _> = keys.iter().map(|key| self.delete(key, Expect::Any)).collect();
        self.frame.revoke(lease);
        changes
    }

    fn take(&mut self, change: &Change) {
        let stands = (change.kind == EventKind::Put).then(|| change.entry.clone());
        self.written.insert(change.entry.key.clone(), stands);
        self.frame.change(change);
        self.next += 1;
    }
}

impl Outcome {
    fn acknowledge(self) {
        // Nobody waits any more: nobody to tell.
        match self {
            Self::Put(change, reply) => {
                drop(reply.send(Ok(Put {
                    entry: Entry::clone(&change.entry),
                    previous: change.previous.as_deref().cloned(),
                })))
            }
            Self::Deleted(change, reply) => {
                // A delete always has something before it.
                let previous = change.previous.as_deref().cloned();
                let deleted = previous.map(|previous| Deleted { revision: change.revision(), previous });
                drop(reply.send(deleted.ok_or(Error::Conflict { current: None })));
            }
            Self::Committed(changes, revision, reply) => {
                let previous = changes.into_iter().map(|change| change.previous.as_deref().cloned()).collect();
                drop(reply.send(Ok(Committed { revision, previous })));
            }
            Self::Granted(lease, _, reply) => drop(reply.send(Ok(lease))),
            Self::Revoked(_, _, reply) | Self::Compacted(_, reply) | Self::Nothing(reply) => drop(reply.send(Ok(()))),
            Self::Refused(operation, error) => operation.fail(error),
        }
    }

    fn fail(self, error: &Error) {
        let error = error.clone();
        match self {
            Self::Put(_, reply) => drop(reply.send(Err(error))),
            Self::Deleted(_, reply) => drop(reply.send(Err(error))),
            Self::Committed(_, _, reply) => drop(reply.send(Err(error))),
            Self::Granted(_, _, reply) => drop(reply.send(Err(error))),
            Self::Revoked(_, _, reply) | Self::Compacted(_, reply) | Self::Nothing(reply) => {
                drop(reply.send(Err(error)));
            }
            Self::Refused(operation, _) => operation.fail(error),
        }
    }
}

/// A job on a blocking thread. If it panics, the store refuses to go on rather than hang.
struct Job<'a>(&'a Inner);

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.queue.lock();
            self.0.is_closed.store(true, Ordering::Release);
            let waiting = std::mem::take(&mut *queue);
            waiting.fail(&closed());
        }
        self.0.jobs.send_modify(|count| *count -= 1);
    }
}
