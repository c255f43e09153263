//! The pods that wait for a node: by priority, with back-off after a failed attempt.
//!
//! A pod that found no node waits until something happens that could help it, or for
//! [`Config::unschedulable_max`]. It then still serves its back-off, so that a busy cluster does
//! not try the same pod over and over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::config::Config;
use crate::snapshot::uid;

/// How many pods wait where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// To be tried next.
    pub active: usize,
    /// For the end of their back-off.
    pub backoff: usize,
    /// For something that helps them.
    pub unschedulable: usize,
}

/// Pods by uid. Time is an argument everywhere.
#[derive(Debug)]
pub struct Queue {
    backoff_initial: Duration,
    backoff_max: Duration,
    unschedulable_max: Duration,
    /// Ready to be tried: highest priority first, then first come.
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    /// Waiting until a time.
    waiting: BTreeSet<(Instant, String)>,
    pods: BTreeMap<String, Waiting>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    priority: i32,
    arrival: u64,
    attempts: u32,
    backoff_until: Option<Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active,
    /// Until its back-off ends.
    Backoff(Instant),
    /// Until something happens, or this time.
    Unschedulable(Instant),
    /// Being tried; `true` when something happened meanwhile.
    InFlight(bool),
}

impl Queue {
    /// An empty queue.
    pub fn new(config: &Config) -> Self {
        Self {
            backoff_initial: config.backoff_initial,
            backoff_max: config.backoff_max,
            unschedulable_max: config.unschedulable_max,
            active: BTreeSet::new(),
            waiting: BTreeSet::new(),
            pods: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// A pod without a node came, or changed in a way that could make it schedulable.
    pub fn put(&mut self, pod: &Pod, now: Instant) {
        let key = uid(pod).to_owned();
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        if let Some(known) = self.pods.get_mut(&key) {
            known.priority = priority;
            self.wake(&key, now);
            return;
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.pods.insert(
            key.clone(),
            Waiting { since: now, priority, arrival, attempts: 0, backoff_until: None, state: State::Active },
        );
        self.active.insert((Reverse(priority), arrival, key));
    }

    /// A pod was bound or deleted.
    pub fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.forget(uid, &pod);
        }
    }

    /// The next pod to try. It stays known, in flight, until [`Queue::remove`] or
    /// [`Queue::failed`].
    pub fn pop(&mut self, now: Instant) -> Option<String> {
        self.flush(now);
        let (_, _, key) = self.active.pop_first()?;
        if let Some(pod) = self.pods.get_mut(&key) {
            pod.state = State::InFlight(false);
            pod.attempts += 1;
        }
        Some(key)
    }

    /// The pod that was popped found no node (or could not be bound).
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let (initial, most, unschedulable_max) = (self.backoff_initial, self.backoff_max, self.unschedulable_max);
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let factor = 2_u32.saturating_pow(pod.attempts.saturating_sub(1));
        let backoff_until = now + initial.saturating_mul(factor).min(most);
        pod.backoff_until = Some(backoff_until);
        let until = if pod.state == State::InFlight(true) {
            pod.state = State::Backoff(backoff_until);
            backoff_until
        } else {
            let until = now + unschedulable_max;
            pod.state = State::Unschedulable(until);
            until
        };
        self.waiting.insert((until, uid.to_owned()));
    }

    /// Something happened that could help any waiting pod: a node came or changed, a pod went.
    pub fn wake_all(&mut self, now: Instant) {
        let keys: Vec<String> = self.pods.keys().cloned().collect();
        for key in keys {
            self.wake(&key, now);
        }
    }

    /// Since when a pod has been known, and how often it was tried.
    pub fn history(&self, uid: &str) -> Option<(Instant, u32)> {
        self.pods.get(uid).map(|pod| (pod.since, pod.attempts))
    }

    /// How many pods wait where.
    pub fn depths(&self) -> Depths {
        let of = |wanted: fn(&State) -> bool| self.pods.values().filter(|pod| wanted(&pod.state)).count();
        Depths {
            active: self.active.len(),
            backoff: of(|state| matches!(state, State::Backoff(_))),
            unschedulable: of(|state| matches!(state, State::Unschedulable(_))),
        }
    }

    /// When [`Queue::pop`] may have something that it does not have now.
    pub fn next_wake(&self) -> Option<Instant> {
        self.waiting.first().map(|(until, _)| *until)
    }

    fn wake(&mut self, key: &str, now: Instant) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        match pod.state {
            State::InFlight(_) => pod.state = State::InFlight(true),
            State::Active => {
                // The priority may have changed.
                let arrival = pod.arrival;
                let entry = (Reverse(pod.priority), arrival, key.to_owned());
                self.active.retain(|(_, other, _)| *other != arrival);
                self.active.insert(entry);
            }
            State::Backoff(_) => {}
            State::Unschedulable(until) => {
                self.waiting.remove(&(until, key.to_owned()));
                match pod.backoff_until.filter(|until| *until > now) {
                    Some(until) => {
                        pod.state = State::Backoff(until);
                        self.waiting.insert((until, key.to_owned()));
                    }
                    None => {
                        pod.state = State::Active;
                        self.active.insert((Reverse(pod.priority), pod.arrival, key.to_owned()));
                    }
                }
            }
        }
    }

    fn flush(&mut self, now: Instant) {
        while let Some((until, _)) = self.waiting.first() {
            if *until > now {
                break;
            }
            let Some((_, key)) = self.waiting.pop_first() else { break };
            if let Some(pod) = self.pods.get_mut(&key) {
                pod.state = State::Active;
                self.active.insert((Reverse(pod.priority), pod.arrival, key));
            }
        }
    }

    fn forget(&mut self, key: &str, pod: &Waiting) {
        match pod.state {
            State::Active => self.active.retain(|(_, arrival, _)| *arrival != pod.arrival),
            State::Backoff(until) | State::Unschedulable(until) => {
                self.waiting.remove(&(until, key.to_owned()));
            }
            State::InFlight(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::pod;

    fn with_priority(name: &str, priority: i32) -> Pod {
        pod(name, serde_json::json!({ "containers": [], "priority": priority }))
    }

    #[tokio::test(start_paused = true)]
    async fn priority_goes_first_then_arrival() {
        let now = Instant::now();
        let mut queue = Queue::new(&Config::default());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 10), ("d", -1)] {
            queue.put(&with_priority(name, priority), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now)).collect();
        assert_eq!(order, ["b", "c", "a", "d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_pod_waits_for_an_event_and_for_its_backoff() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = Queue::new(&Config::default());
        queue.put(&with_priority("a", 0), start);
        assert_eq!(queue.pop(start).as_deref(), Some("a"));
        queue.failed("a", start);
        assert_eq!(queue.pop(at(100)), None, "nothing happened");
        queue.wake_all(at(100));
        assert_eq!(queue.pop(at(100)).as_deref(), Some("a"));
        queue.failed("a", at(100));
        queue.wake_all(at(101));
        assert_eq!(queue.pop(at(101)), None, "the second back-off is two seconds");
        assert_eq!(queue.next_wake(), Some(at(102)));
        assert_eq!(queue.pop(at(102)).as_deref(), Some("a"));
        queue.failed("a", at(102));
        assert_eq!(queue.pop(at(402)).as_deref(), Some("a"), "tried again after the longest wait");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_attempt_is_not_lost() {
        let start = Instant::now();
        let mut queue = Queue::new(&Config::default());
        queue.put(&with_priority("a", 0), start);
        queue.pop(start);
        queue.wake_all(start);
        queue.failed("a", start);
        assert_eq!(queue.pop(start + Duration::from_secs(1)).as_deref(), Some("a"));
        queue.remove("a");
        assert_eq!(queue.next_wake(), None);
    }
}
