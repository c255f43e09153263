//! What a store does by itself: it ends leases and compacts its history.
//!
//! The task starts with the first write and sleeps without a timer while there is neither a
//! lease nor history, so a thousand idle stores cost nothing but their memory. It ends with the
//! store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use skiff_base::{Clock, Shutdown, Tasks};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::contract::{Error, LeaseId, Revision};

/// The store as its keeper sees it.
#[async_trait]
pub(crate) trait Kept: Send + Sync + 'static {
    /// Where history begins, the store's revision, and whether history is over its limit.
    fn history(&self) -> History;
    /// When the next lease ends.
    fn lease_deadline(&self) -> Option<Instant>;
    /// The first lease that has ended by `now`.
    fn lease_expired(&self, now: Instant) -> Option<LeaseId>;
    /// Ends a lease unless it was kept alive meanwhile.
    async fn end_lease(self: Arc<Self>, lease: LeaseId, now: Instant) -> Result<(), Error>;
    /// Compacts.
    async fn forget(self: Arc<Self>, revision: Revision) -> Result<(), Error>;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    pub(crate) compacted: Revision,
    pub(crate) current: Revision,
    pub(crate) is_over_limit: bool,
}

/// How long to wait after a lease or a compaction could not be written down.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The handle that a store owns.
#[derive(Debug)]
pub(crate) struct Keeper {
    clock: Clock,
    interval: Duration,
    tasks: Tasks,
    is_started: AtomicBool,
    signals: Arc<Signals>,
}

#[derive(Debug, Default)]
struct Signals {
    wake: Notify,
    /// Whether the compaction timer runs.
    is_armed: AtomicBool,
}

impl Keeper {
    pub(crate) fn new(clock: Clock, interval: Duration) -> Self {
        let tasks = Tasks::new("store", Shutdown::new());
        Self { clock, interval, tasks, is_started: AtomicBool::new(false), signals: Arc::default() }
    }

    /// A write happened: history has to be compacted some day.
    pub(crate) fn wrote<K: Kept>(&self, store: &Arc<K>, is_over_limit: bool) {
        if is_over_limit || !self.signals.is_armed.load(Ordering::Relaxed) {
            self.signals.is_armed.store(true, Ordering::Relaxed);
            self.nudge(store);
        }
    }

    /// Something is due earlier than it was, perhaps.
    pub(crate) fn nudge<K: Kept>(&self, store: &Arc<K>) {
        if !self.is_started.swap(true, Ordering::Relaxed) {
            let round = Round { mark: store.history().compacted, due: None };
            let run = keep(Arc::downgrade(store), self.clock.clone(), self.interval, self.signals.clone(), round);
            self.tasks.spawn("keeper", run);
        }
        self.signals.wake.notify_one();
    }

    /// Ends the task and waits for its end.
    pub(crate) async fn stop(&self) {
        self.tasks.stop().await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks.shutdown().signal();
    }
}

/// Each interval compacts to the revision that the store had at the interval's beginning.
struct Round {
    mark: Revision,
    due: Option<Instant>,
}

async fn keep<K: Kept>(store: Weak<K>, clock: Clock, interval: Duration, signals: Arc<Signals>, mut round: Round) {
    loop {
        let Some(wait) = work(&store, &clock, interval, &signals, &mut round).await else { return };
        let woken = signals.wake.notified();
        match wait {
            Some(deadline) => {
                tokio::select! {
                    biased;
                    () = woken => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
            }
            None => woken.await,
        }
    }
}

/// Does what is due; `None` when the store is gone, else how long there is nothing to do.
async fn work<K: Kept>(
    store: &Weak<K>,
    clock: &Clock,
    interval: Duration,
    signals: &Signals,
    round: &mut Round,
) -> Option<Option<Instant>> {
    let store = store.upgrade()?;
    let now = clock.instant();
    let mut retry = None;
    while let Some(lease) = store.lease_expired(now) {
        if let Err(error) = store.clone().end_lease(lease, now).await {
            tracing::warn!(lease, %error, "cannot end a lease, will try again");
            retry = Some(now + RETRY_DELAY);
            break;
        }
    }
    if let Err(error) = compact(&store, now, interval, signals, round).await {
        tracing::warn!(%error, "cannot compact history, will try again");
        round.due = Some(now + RETRY_DELAY);
    }
    let lease = retry.or_else(|| store.lease_deadline());
    Some([round.due, lease].into_iter().flatten().min())
}

async fn compact<K: Kept>(
    store: &Arc<K>,
    now: Instant,
    interval: Duration,
    signals: &Signals,
    round: &mut Round,
) -> Result<(), Error> {
    let history = store.history();
    if history.is_over_limit {
        // Half of it, so that this does not happen on every write.
        round.mark = round.mark.max(history.compacted + (history.current - history.compacted) / 2);
        store.clone().forget(round.mark).await?;
    }
    if history.current == history.compacted {
        round.due = None;
        signals.is_armed.store(false, Ordering::Relaxed);
        // A write between the look and the store above has seen the timer as armed.
        if store.history().current == history.current {
            return Ok(());
        }
    }
    match round.due {
        None => round.due = Some(now + interval),
        Some(due) if due <= now => {
            if round.mark > history.compacted {
                store.clone().forget(round.mark).await?;
            }
            round.mark = history.current;
            round.due = Some(now + interval);
        }
        Some(_) => {}
    }
    signals.is_armed.store(true, Ordering::Relaxed);
    Ok(())
}
