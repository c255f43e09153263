//! Leases: which exist, when each ends, which keys it takes along.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::contract::{Entry, Lease, LeaseId, LeaseStatus};

/// One lease as it is written down. Its time starts anew when the store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseState {
    pub(crate) ttl: Duration,
    /// `None` only while a log is replayed.
    pub(crate) deadline: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    state: LeaseState,
    keys: BTreeSet<Bytes>,
}

/// All leases of a store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: BTreeMap<LeaseId, Held>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    last: LeaseId,
}

impl Leases {
    /// The identity for a new lease.
    pub(crate) fn next(&self) -> LeaseId {
        self.last + 1
    }

    /// The newest identity that was ever given out.
    pub(crate) fn last(&self) -> LeaseId {
        self.last
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.held.contains_key(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, LeaseState)> {
        self.held.iter().map(|(id, held)| (*id, held.state))
    }

    /// Never gives out an identity up to `last` again.
    pub(crate) fn reserve(&mut self, last: LeaseId) {
        self.last = self.last.max(last);
    }

    pub(crate) fn insert(&mut self, id: LeaseId, state: LeaseState) {
        self.reserve(id);
        self.deadlines.extend(state.deadline.map(|deadline| (deadline, id)));
        self.held.insert(id, Held { state, keys: BTreeSet::new() });
    }

    /// Starts the lease's time anew; `None` if there is no such lease.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Lease> {
        let held = self.held.get_mut(&id)?;
        let ttl = held.state.ttl;
        if let Some(deadline) = held.state.deadline.replace(now + ttl) {
            self.deadlines.remove(&(deadline, id));
        }
        self.deadlines.insert((now + ttl, id));
        Some(Lease { id, ttl })
    }

    /// Starts every lease's time anew.
    pub(crate) fn renew_all(&mut self, now: Instant) {
        let all: Vec<LeaseId> = self.held.keys().copied().collect();
        for id in all {
            self.renew(id, now);
        }
    }

    /// What is known about a lease at `now`; `None` if there is no such lease.
    pub(crate) fn status(&self, id: LeaseId, now: Instant) -> Option<LeaseStatus> {
        let held = self.held.get(&id)?;
        let remaining = held.state.deadline.map_or(held.state.ttl, |deadline| deadline.saturating_duration_since(now));
        Some(LeaseStatus {
            lease: Lease { id, ttl: held.state.ttl },
            remaining,
            keys: held.keys.iter().cloned().collect(),
        })
    }

    /// The keys a lease takes along, in order; `None` if there is no such lease.
    pub(crate) fn keys(&self, id: LeaseId) -> Option<Vec<Bytes>> {
        self.held.get(&id).map(|held| held.keys.iter().cloned().collect())
    }

    pub(crate) fn remove(&mut self, id: LeaseId) {
        if let Some(deadline) = self.held.remove(&id).and_then(|held| held.state.deadline) {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// When the next lease ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The first lease that has ended by `now`.
    pub(crate) fn expired(&self, now: Instant) -> Option<LeaseId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// Whether `id` has ended by `now`.
    pub(crate) fn is_expired(&self, id: LeaseId, now: Instant) -> bool {
        self.held.get(&id).and_then(|held| held.state.deadline).is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn attach(&mut self, entry: &Entry) {
        if let Some(held) = entry.lease.and_then(|id| self.held.get_mut(&id)) {
            held.keys.insert(entry.key.clone());
        }
    }

    pub(super) fn detach(&mut self, entry: &Entry) {
        if let Some(held) = entry.lease.and_then(|id| self.held.get_mut(&id)) {
            held.keys.remove(&entry.key);
        }
    }
}
