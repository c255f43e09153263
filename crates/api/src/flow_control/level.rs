//! A priority level: its seats, and the way in and out of them.
//!
//! While seats are free nobody waits, and a request takes its seats with one compare-and-swap. Only
//! when a request has to wait do the queues and their lock come in. Seats in use and the number of
//! waiting requests stand in one word: who gives seats back sees whether somebody waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use skiff_base::{Clock, Tasks};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queues::{Place, QueueSet, Shape, Work};
use super::shares::{Demand, Seats};
use super::stats::{Refusal, SchemaStats};

/// The count of waiting requests stands above this bit.
const WAITING_SHIFT: u32 = 32;
const ONE_WAITING: u64 = 1 << WAITING_SHIFT;

/// The longest time between two tries that a refusal suggests, in seconds.
const RETRY_AFTER_SECONDS_MAX: u32 = 32;

/// A request that waits: what is told when it may go, and what the dump shows.
pub(crate) struct Waiter {
    go: oneshot::Sender<()>,
    pub(crate) stats: Arc<SchemaStats>,
    pub(crate) flow: String,
    pub(crate) since: Instant,
}

/// A priority level. It outlives changes of its configuration: what runs in it goes on.
pub(crate) struct Level {
    pub(crate) name: String,
    pub(crate) is_exempt: bool,
    clock: Clock,
    tasks: Tasks,
    began: Instant,
    /// Waiting requests above [`WAITING_SHIFT`], seats in use below it.
    state: AtomicU64,
    limit: AtomicU32,
    /// The most seats that were asked for at once since the last look.
    high_watermark: AtomicU32,
    /// Seat-nanoseconds that were asked for since the last look, as far as they are over.
    busy: AtomicU64,
    set: Mutex<QueueSet<Waiter>>,
    pub(crate) lending: Mutex<Lending>,
    drops: Mutex<Drops>,
    pub(crate) dispatched: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) timed_out: AtomicU64,
}

/// What a level has, may have and asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lending {
    pub(crate) seats: Seats,
    pub(crate) demand: Demand,
    pub(crate) target: f64,
}

/// How often requests were refused, for `Retry-After`.
#[derive(Debug, Default)]
struct Drops {
    retry_after: u32,
    in_this_second: u32,
    in_this_interval: u32,
    second: u64,
    raised: u64,
}

/// Seats that a request holds until it is dropped.
pub(crate) struct Seat {
    level: Arc<Level>,
    stats: Arc<SchemaStats>,
    work: Work,
    queue: Option<usize>,
    began: Instant,
    is_watch: bool,
}

/// A request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// When to try again.
    pub(crate) retry_after_seconds: u32,
}

impl Level {
    pub(crate) fn new(name: &str, is_exempt: bool, shape: Shape, clock: Clock, tasks: Tasks) -> Self {
        let began = clock.instant();
        Self {
            name: name.to_owned(),
            is_exempt,
            clock,
            tasks,
            began,
            state: AtomicU64::new(0),
            limit: AtomicU32::new(if is_exempt { u32::MAX } else { 0 }),
            high_watermark: AtomicU32::new(0),
            busy: AtomicU64::new(0),
            set: Mutex::new(QueueSet::new(shape, Duration::ZERO)),
            lending: Mutex::default(),
            drops: Mutex::default(),
            dispatched: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        }
    }

    /// Gives the level another number of seats; who waits for them goes at once.
    pub(crate) fn set_limit(&self, seats: u32) {
        if self.is_exempt {
            return;
        }
        self.limit.store(seats, Ordering::SeqCst);
        if self.state.load(Ordering::SeqCst) >= ONE_WAITING {
            self.dispatch();
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn reshape(&self, shape: Shape) {
        self.set.lock().reshape(shape);
        self.dispatch();
    }

    pub(crate) fn seats_in_use(&self) -> u32 {
        self.state.load(Ordering::Relaxed) as u32
    }

    pub(crate) fn waiting(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> WAITING_SHIFT) as u32
    }

    /// Whether nothing runs and nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.load(Ordering::SeqCst) == 0
    }

    /// The queues, for the dump.
    pub(crate) fn with_queues<R>(&self, look: impl FnOnce(&QueueSet<Waiter>) -> R) -> R {
        look(&self.set.lock())
    }

    /// What was asked for since the last look: the most at once, and on average.
    pub(crate) fn take_demand(&self, period: Duration) -> (u32, f64) {
        let now = self.seats_in_use();
        let high = self.high_watermark.swap(now, Ordering::Relaxed);
        let busy = self.busy.swap(0, Ordering::Relaxed) as f64 / period.as_nanos().max(1) as f64;
        // What has run for longer than the period is in no sum yet.
        (high, busy.max(f64::from(now.min(high))).min(f64::from(high)))
    }

    /// Takes seats, waiting for them for up to `longest` where the level has queues.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        stats: &Arc<SchemaStats>,
        work: Work,
        flow: Flow<'_>,
        longest: Duration,
        is_watch: bool,
    ) -> Result<Seat, Rejected> {
        stats.estimated(work.seats());
        if self.try_take(work.seats(), NobodyWaits) {
            if !self.is_exempt {
                stats.waited(Duration::ZERO, true);
            }
            return Ok(self.seat(stats, work, None, self.clock.instant(), is_watch));
        }
        let since = self.clock.instant();
        let waiting = match self.enqueue(stats, work, flow, since) {
            Ok(waiting) => waiting,
            Err(refusal) => return Err(self.refuse(stats, refusal)),
        };
        let queue = waiting.place.queue;
        let outcome = waiting.until(longest).await;
        let now = self.clock.instant();
        stats.waited(now - since, outcome.is_ok());
        self.busy.fetch_add(seat_nanos(now - since, work.seats()), Ordering::Relaxed);
        match outcome {
            Ok(()) => Ok(self.seat(stats, work, Some(queue), now, is_watch)),
            Err(()) => Err(self.refuse(stats, Refusal::TimeOut)),
        }
    }

    fn seat(
        self: &Arc<Self>,
        stats: &Arc<SchemaStats>,
        work: Work,
        queue: Option<usize>,
        began: Instant,
        is_watch: bool,
    ) -> Seat {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        stats.started(work.seats());
        Seat { level: Arc::clone(self), stats: Arc::clone(stats), work, queue, began, is_watch }
    }

    fn refuse(&self, stats: &SchemaStats, refusal: Refusal) -> Rejected {
        stats.refused(refusal);
        self.rejected.fetch_add(1, Ordering::Relaxed);
        if refusal == Refusal::TimeOut {
            self.timed_out.fetch_add(1, Ordering::Relaxed);
        }
        let second = (self.clock.instant() - self.began).as_secs();
        Rejected { retry_after_seconds: self.drops.lock().count(second) }
    }

    /// Takes seats if they are free, or if nobody has any and the request wants more than there are.
    fn try_take(&self, seats: u32, waiting: impl MayPass) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            let in_use = state as u32;
            let fits = in_use.checked_add(seats).is_some_and(|sum| sum <= limit) || (in_use == 0 && seats > limit);
            if !fits || !waiting.may_pass(state) {
                return false;
            }
            match self.state.compare_exchange_weak(state, state + u64::from(seats), Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => {
                    self.note_demand(in_use + seats);
                    return true;
                }
                Err(now) => state = now,
            }
        }
    }

    fn note_demand(&self, seats: u32) {
        if seats > self.high_watermark.load(Ordering::Relaxed) {
            self.high_watermark.fetch_max(seats, Ordering::Relaxed);
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        stats: &Arc<SchemaStats>,
        work: Work,
        flow: Flow<'_>,
        since: Instant,
    ) -> Result<Queued, Refusal> {
        let (go, going) = oneshot::channel();
        let place = {
            let mut set = self.set.lock();
            if set.shape().queues == 0 {
                // Somebody may have left since the first try.
                return Err(Refusal::ConcurrencyLimit);
            }
            let limit = self.limit();
            set.advance(since - self.began, limit);
            let waiter = Waiter { go, stats: Arc::clone(stats), flow: flow.name.to_owned(), since };
            let is_full = self.seats_in_use() >= limit;
            let place = set.enqueue(flow.hash, work, is_full, waiter).map_err(|_| Refusal::QueueFull)?;
            stats.queued(work.seats(), set.queues()[place.queue].waiting.len());
            // From here on nobody overtakes, and who leaves looks after the queues.
            let before = self.state.fetch_add(ONE_WAITING, Ordering::SeqCst);
            let seats_waiting: u64 = set.queues().iter().map(super::queues::Queue::seats_waiting).sum();
            self.note_demand((before as u32).saturating_add(u32::try_from(seats_waiting).unwrap_or(u32::MAX)));
            place
        };
        self.dispatch();
        Ok(Queued { level: Arc::clone(self), stats: Arc::clone(stats), work, place, going: Some(going) })
    }

    /// Lets go who may go now.
    fn dispatch(&self) {
        let mut set = self.set.lock();
        set.advance(self.clock.instant() - self.began, self.limit());
        while let Some((queue, request)) = set.dispatch(|work| self.try_take(work.seats(), Anybody)) {
            self.state.fetch_sub(ONE_WAITING, Ordering::SeqCst);
            request.item.stats.dequeued(request.work.seats());
            if request.item.go.send(()).is_err() {
                // It gave up at this very moment.
                set.finish(queue, &request.work, Duration::ZERO);
                set.release(queue, &request.work);
                self.state.fetch_sub(u64::from(request.work.seats()), Ordering::SeqCst);
            }
        }
        if set.waiting() > 0
            && let Some(stats) = set.next_up().map(|next| Arc::clone(&next.item.stats))
        {
            stats.not_accommodated();
        }
    }

    /// Gives seats back.
    fn release(&self, work: &Work, queue: Option<usize>) {
        if let Some(queue) = queue {
            self.set.lock().release(queue, work);
        }
        let before = self.state.fetch_sub(u64::from(work.seats()), Ordering::SeqCst);
        if before >= ONE_WAITING {
            self.dispatch();
        }
    }
}

/// The flow a request belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow<'a> {
    pub(crate) name: &'a str,
    pub(crate) hash: u64,
}

/// Who may take seats while others wait.
trait MayPass {
    fn may_pass(&self, state: u64) -> bool;
}

/// A request that comes in: only when nobody waits.
struct NobodyWaits;
/// One of those who wait.
struct Anybody;

impl MayPass for NobodyWaits {
    fn may_pass(&self, state: u64) -> bool {
        state < ONE_WAITING
    }
}

impl MayPass for Anybody {
    fn may_pass(&self, _: u64) -> bool {
        true
    }
}

/// A request in a queue; dropped, it leaves the queue.
struct Queued {
    level: Arc<Level>,
    stats: Arc<SchemaStats>,
    work: Work,
    place: Place,
    going: Option<oneshot::Receiver<()>>,
}

impl Queued {
    /// Waits for the seats; an error when it took too long.
    async fn until(mut self, longest: Duration) -> Result<(), ()> {
        let Some(going) = self.going.as_mut() else { return Err(()) };
        match tokio::time::timeout(longest, going).await {
            Ok(Ok(())) => {
                self.going = None;
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let Some(mut going) = self.going.take() else { return };
        let cancelled = self.level.set.lock().cancel(self.place).is_some();
        if cancelled {
            self.level.state.fetch_sub(ONE_WAITING, Ordering::SeqCst);
            self.stats.dequeued(self.work.seats());
            self.level.dispatch();
        } else if going.try_recv().is_ok() {
            // It was let go and did not notice any more.
            self.level.set.lock().finish(self.place.queue, &self.work, Duration::ZERO);
            self.level.release(&self.work, Some(self.place.queue));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let took = self.level.clock.instant() - self.began;
        self.stats.ended(self.work.seats(), took, self.is_watch);
        let held = took + self.work.additional_latency;
        self.level.busy.fetch_add(seat_nanos(held, self.work.seats()), Ordering::Relaxed);
        if let Some(queue) = self.queue {
            self.level.set.lock().finish(queue, &self.work, took);
        }
        if self.work.additional_latency.is_zero() {
            self.level.release(&self.work, self.queue);
            return;
        }
        // Watchers are still being told: the seats stay taken, the client does not wait for it.
        let (level, work, queue) = (Arc::clone(&self.level), self.work, self.queue);
        self.level.tasks.spawn("flow-control-linger", async move {
            let lingering = Lingering { level, work, queue };
            lingering.level.clock.sleep(lingering.work.additional_latency).await;
        });
    }
}

/// Seats that are held a little longer.
struct Lingering {
    level: Arc<Level>,
    work: Work,
    queue: Option<usize>,
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.level.release(&self.work, self.queue);
    }
}

impl Drops {
    /// Counts a refusal; gives the seconds after which to try again. They double while refusals go
    /// on and shrink one by one when they end.
    fn count(&mut self, second: u64) -> u32 {
        let now = self.retry_after.max(1);
        if second != self.second {
            let quiet = second.saturating_sub(self.second) > u64::from(now);
            self.in_this_interval = if quiet { 0 } else { self.in_this_interval + self.in_this_second };
            if second - self.raised >= u64::from(now) {
                self.retry_after = match self.in_this_interval {
                    many if many >= 3 * now => (now * 2).min(RETRY_AFTER_SECONDS_MAX),
                    few if few < now => now.saturating_sub(1).max(1),
                    _ => now,
                };
                self.raised = second;
                self.in_this_interval = 0;
            }
            (self.second, self.in_this_second) = (second, 0);
        }
        self.in_this_second += 1;
        self.retry_after.max(1)
    }
}

fn seat_nanos(time: Duration, seats: u32) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_mul(u64::from(seats))
}
