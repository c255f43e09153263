//! A queue of keys to work on: each key at most once in the queue and never in two workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skiff_base::metrics::Metrics;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ObjectKey;
use crate::queue_metrics::{Counts, Standing};

/// The first wait after a failure; doubles with each failure in a row.
const RETRY_MIN: Duration = Duration::from_millis(5);

/// The longest wait after failures. Upstream goes up to 1000 s; a minute keeps a repaired cause
/// from looking unrepaired.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A deduplicating work queue with delays and per-key backoff. Cheap to clone.
///
/// Its size is bounded by the number of distinct keys.
pub struct WorkQueue<T = ObjectKey> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    counts: Counts,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys in `ready`, and keys added again while they are worked on; since when.
    dirty: BTreeMap<T, Instant>,
    /// Keys that are worked on; since when.
    working: BTreeMap<T, Instant>,
    delayed: BTreeSet<(Instant, T)>,
    due: BTreeMap<T, Instant>,
    failures: BTreeMap<T, u32>,
}

impl<T: Ord + Clone> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Ord + Clone> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: BTreeMap::new(),
            working: BTreeMap::new(),
            delayed: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new(), counts: Counts::default() }) }
    }

    /// Shows what the queue counts, as the queue of the controller `name`.
    pub fn show(&self, metrics: &Metrics, name: &str)
    where
        T: Send + 'static,
    {
        let queue = Arc::downgrade(&self.shared);
        self.shared.counts.show(metrics, name, move || Some(queue.upgrade()?.state.lock().standing(Instant::now())));
    }

    /// Adds `key` now. While it is being worked on, it is queued again when that is done.
    pub fn add(&self, key: T) {
        if self.shared.state.lock().add(key, Instant::now()) {
            self.shared.counts.adds.increment();
        }
        self.shared.wake.notify_one();
    }

    /// Adds `key` after `delay`; an earlier pending addition stands.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared.counts.retries.increment();
        self.shared.state.lock().delay(key, Instant::now() + delay);
        self.shared.wake.notify_one();
    }

    /// Adds `key` after its backoff: 5 ms, doubling with each call up to a minute.
    pub fn retry(&self, key: T) {
        self.shared.counts.retries.increment();
        let mut state = self.shared.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = RETRY_MIN.saturating_mul(1 << (*failures).min(20)).min(RETRY_MAX);
        *failures = failures.saturating_add(1);
        state.delay(key, Instant::now() + delay);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Ends the backoff of `key`.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often `key` has failed in a row.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// How many keys are ready, and how many wait for their time.
    pub fn len(&self) -> (usize, usize) {
        let state = self.shared.state.lock();
        (state.ready.len(), state.delayed.len())
    }

    /// Whether nothing is ready, waiting or worked on.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.ready.is_empty() && state.delayed.is_empty() && state.working.is_empty()
    }

    /// The next key to work on. Give it back with [`WorkQueue::done`].
    pub async fn next(&self) -> T {
        loop {
            let notified = self.shared.wake.notified();
            let next_due = {
                let mut state = self.shared.state.lock();
                let now = Instant::now();
                for _ in 0..state.release(now) {
                    self.shared.counts.adds.increment();
                }
                if let Some((key, waited)) = state.take(now) {
                    self.shared.counts.waited.observe(waited);
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.shared.wake.notify_one();
                    }
                    return key;
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match next_due {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Says that the work on `key` has ended.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        if let Some(began) = state.working.remove(key) {
            self.shared.counts.worked.observe(began.elapsed());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

impl<T: Ord + Clone> State<T> {
    /// Whether it was not in the queue before.
    fn add(&mut self, key: T, now: Instant) -> bool {
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&(at, key.clone()));
        }
        if self.dirty.contains_key(&key) {
            return false;
        }
        self.dirty.insert(key.clone(), now);
        if !self.working.contains_key(&key) {
            self.ready.push_back(key);
        }
        true
    }

    fn standing(&self, now: Instant) -> Standing {
        let running = || self.working.values().map(|began| now.saturating_duration_since(*began));
        Standing { depth: self.dirty.len(), unfinished: running().sum(), longest: running().max().unwrap_or_default() }
    }

    fn delay(&mut self, key: T, at: Instant) {
        match self.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => {
                let due = *due;
                self.delayed.remove(&(due, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// How many keys came into the queue because their time had come.
    fn release(&mut self, now: Instant) -> usize {
        let mut added = 0;
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                added += usize::from(self.add(key, now));
            }
        }
        added
    }

    /// A key that is ready, and how long it waited.
    fn take(&mut self, now: Instant) -> Option<(T, Duration)> {
        let key = self.ready.pop_front()?;
        let since = self.dirty.remove(&key).unwrap_or(now);
        self.working.insert(key.clone(), now);
        Some((key, now.saturating_duration_since(since)))
    }
}

impl<T> fmt::Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkQueue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_queued_once_and_never_worked_on_twice_at_a_time() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        assert!(tokio::time::timeout(Duration::from_secs(9), queue.next()).await.is_err());
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_keep_the_earliest_and_an_immediate_add_wins() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(20));
        queue.add_after("b", Duration::from_secs(3));
        queue.add("b");
        assert_eq!(queue.next().await, "b");
        assert_eq!(start.elapsed(), Duration::ZERO);
        queue.done(&"b");
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_queue_counts_is_shown_under_upstreams_name() {
        let (queue, metrics) = (WorkQueue::new(), Metrics::default());
        queue.show(&metrics, "deployment-controller");
        let advance = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        queue.add("a");
        queue.add("a");
        queue.add_after("b", Duration::from_secs(60));
        advance(3).await;
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        advance(2).await;
        let shows = |line: &str| {
            let page = metrics.text();
            let name = "name=\"deployment\"";
            assert!(page.contains(&format!("\nworkqueue_{}\n", line.replace("{}", &format!("{{{name}}}")))), "{page}");
        };
        shows("adds_total{} 2");
        shows("depth{} 1");
        shows("retries_total{} 1");
        shows("queue_duration_seconds_sum{} 3");
        shows("unfinished_work_seconds{} 2");
        shows("longest_running_processor_seconds{} 2");
        queue.done(&"a");
        shows("work_duration_seconds_sum{} 2");
        shows("longest_running_processor_seconds{} 0");
        drop(queue);
        shows("depth{} 0");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_back_off_until_forgotten() {
        let queue = WorkQueue::new();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }
}
