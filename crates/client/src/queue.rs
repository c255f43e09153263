//! A queue of keys to work on: each key at most once in the queue and never in two workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ObjectKey;

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
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys in `ready`, and keys added again while they are worked on.
    dirty: BTreeSet<T>,
    working: BTreeSet<T>,
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
            dirty: BTreeSet::new(),
            working: BTreeSet::new(),
            delayed: BTreeSet::new(),
            due: BTreeMap::new(),
            failures: BTreeMap::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// Adds `key` now. While it is being worked on, it is queued again when that is done.
    pub fn add(&self, key: T) {
        self.shared.state.lock().add(key);
        self.shared.wake.notify_one();
    }

    /// Adds `key` after `delay`; an earlier pending addition stands.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared.state.lock().delay(key, Instant::now() + delay);
        self.shared.wake.notify_one();
    }

    /// Adds `key` after its backoff: 5 ms, doubling with each call up to a minute.
    pub fn retry(&self, key: T) {
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
                state.release(Instant::now());
                if let Some(key) = state.take() {
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
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

impl<T: Ord + Clone> State<T> {
    fn add(&mut self, key: T) {
        if let Some(at) = self.due.remove(&key) {
            self.delayed.remove(&(at, key.clone()));
        }
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
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

    fn release(&mut self, now: Instant) {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
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
