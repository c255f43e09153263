//! Reading the index now and at past revisions.

use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::RwLock;

use super::{Index, Old};
use crate::contract::{Entry, Error, Found, Range, RangeResult, Revision};

/// The keys of a range now or at a past revision. The lock is not held while living keys are
/// read: a list of everything must not stop the writers.
pub(crate) fn range(index: &RwLock<Index>, range: &Range) -> Result<RangeResult, Error> {
    let index = index.read();
    let at = index.readable(range.revision)?;
    let mut taken =
        Taken { entries: Vec::new(), count: 0, limit: if range.limit == 0 { usize::MAX } else { range.limit } };
    if at == index.revision {
        let current = index.current.clone();
        drop(index);
        living(&current, range).for_each(|entry| taken.take(entry));
    } else {
        index.past(range, at, &mut taken);
    }
    Ok(RangeResult { entries: taken.entries, count: taken.count, revision: at })
}

struct Taken {
    entries: Vec<Entry>,
    count: usize,
    limit: usize,
}

impl Taken {
    fn take(&mut self, entry: &Arc<Entry>) {
        self.count += 1;
        if self.count <= self.limit {
            self.entries.push(Entry::clone(entry));
        }
    }
}

fn living<'a>(current: &'a OrdMap<Bytes, Arc<Entry>>, range: &Range) -> impl Iterator<Item = &'a Arc<Entry>> {
    let bounds = if is_empty(range) { None } else { Some(bounds(&range.start, &range.end)) };
    bounds.into_iter().flat_map(|bounds| current.range::<_, [u8]>(bounds)).map(|(_, entry)| entry)
}

impl Index {
    /// One key now or at a past revision.
    pub(crate) fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Found, Error> {
        let at = self.readable(revision)?;
        let entry = match self.current.get(key) {
            Some(entry) if entry.mod_revision <= at => Some(entry),
            _ => self.superseded(key, at),
        };
        Ok(Found { entry: entry.map(|entry| Entry::clone(entry)), revision: self.revision })
    }

    /// The revision to read at, if it can be read.
    pub(crate) fn readable(&self, revision: Option<Revision>) -> Result<Revision, Error> {
        let requested = revision.unwrap_or(self.revision);
        if requested > self.revision {
            return Err(Error::Future { requested, current: self.revision });
        }
        if requested < self.compacted {
            return Err(Error::Compacted { requested, compacted: self.compacted });
        }
        Ok(requested)
    }

    /// The version of `key` that was superseded later than `at` but written no later.
    fn superseded(&self, key: &[u8], at: Revision) -> Option<&Arc<Entry>> {
        let key = Bytes::copy_from_slice(key);
        let (_, old) = self.old.range((key.clone(), 0)..=(key, at)).next_back()?;
        (at < old.until).then_some(&old.entry)
    }

    /// A living key of a range that was put later than `revision`.
    pub(super) fn put_after<'a>(
        &'a self,
        start: &Bytes,
        end: &Bytes,
        revision: Revision,
        overlay: &'a super::commit::Overlay,
    ) -> Option<&'a Arc<Entry>> {
        let range = Range { start: start.clone(), end: end.clone(), ..Range::default() };
        let within = |key: &Bytes| key >= start && (end.is_empty() || key < end);
        let written = overlay.iter().filter(|(key, _)| within(key)).filter_map(|(_, entry)| entry.as_ref());
        let found = written.chain(living(&self.current, &range).filter(|entry| !overlay.contains_key(&entry.key)));
        found.into_iter().find(|entry| entry.mod_revision > revision)
    }

    /// Merges the living keys that are old enough with the superseded ones that were valid.
    fn past(&self, range: &Range, at: Revision, taken: &mut Taken) {
        let mut living = living(&self.current, range).filter(|entry| entry.mod_revision <= at).peekable();
        let mut old = self.old_range(range).filter(|old| old.entry.mod_revision <= at && at < old.until).peekable();
        loop {
            // A key is valid in one version only, so the two never hold the same key.
            let older_first = match (living.peek(), old.peek()) {
                (Some(living), Some(old)) => old.entry.key < living.key,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => break,
            };
            let next = if older_first { old.next().map(|old| &old.entry) } else { living.next() };
            next.into_iter().for_each(|entry| taken.take(entry));
        }
    }

    fn old_range(&self, range: &Range) -> impl Iterator<Item = &Old> {
        let end = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded((range.end.clone(), 0)) };
        let found: Option<btree_map::Range<'_, _, _>> =
            (!is_empty(range)).then(|| self.old.range((Bound::Included((range.start.clone(), 0)), end)));
        found.into_iter().flatten().map(|(_, old)| old)
    }
}

fn is_empty(range: &Range) -> bool {
    !range.end.is_empty() && range.start >= range.end
}

fn bounds<'a>(start: &'a [u8], end: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(start), if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) })
}
