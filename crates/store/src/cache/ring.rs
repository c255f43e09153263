//! The recent changes of a cache: what a watcher resumes from and an old revision is rebuilt
//! with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;
use tokio::time::Instant;

use super::Change;
use crate::contract::Revision;

/// At least so many changes are remembered.
const RING_EVENTS_MIN: usize = 1_024;

/// At most so many: each holds up to two versions of an object.
const RING_EVENTS_MAX: usize = 32_768;

/// Between the two bounds, changes younger than this are remembered: a client that has just
/// listed a large collection must find its place (kube-apiserver uses the same 75 s).
const RING_AGE: Duration = Duration::from_secs(75);

pub(super) struct Ring<T> {
    changes: VecDeque<(Instant, Arc<Change<T>>)>,
    /// Every change after this revision is in the ring.
    floor: Revision,
}

impl<T> Ring<T> {
    pub(super) fn new(floor: Revision) -> Self {
        Self { changes: VecDeque::new(), floor }
    }

    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn push(&mut self, change: Arc<Change<T>>, now: Instant) {
        self.changes.push_back((now, change));
        // Two for one, so that a ring that has grown in a burst shrinks again.
        for _ in 0..2 {
            let is_over = self.changes.len() > RING_EVENTS_MAX;
            let is_old = |(at, _): &(Instant, _)| now.duration_since(*at) > RING_AGE;
            if is_over || (self.changes.len() > RING_EVENTS_MIN && self.changes.front().is_some_and(is_old)) {
                let dropped = self.changes.pop_front();
                self.floor = dropped.map_or(self.floor, |(_, change)| change.revision);
            }
        }
    }

    /// The changes after `revision`, oldest first.
    pub(super) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Change<T>>> {
        let start = self.changes.partition_point(|(_, change)| change.revision <= revision);
        self.changes.range(start..).map(|(_, change)| change)
    }

    /// Takes the changes after `revision` back; `None` if not all of them are remembered.
    pub(super) fn rewind(&self, mut items: OrdMap<Bytes, Arc<T>>, revision: Revision) -> Option<OrdMap<Bytes, Arc<T>>> {
        if revision < self.floor {
            return None;
        }
        let newer = self.changes.iter().rev().map(|(_, change)| change);
        for change in newer.take_while(|change| change.revision > revision) {
            match &change.previous {
                Some(previous) => items.insert(change.key.clone(), previous.clone()),
                None => items.remove(change.key.as_ref()),
            };
        }
        Some(items)
    }
}
