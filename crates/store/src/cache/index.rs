//! Finding items without looking at each.
//!
//! Every item has a number, its slot; for every term (a label with its value, a label, a field
//! that somebody has asked for with its value) there is the set of the slots that have it. The
//! index follows the newest state only. What it finds for an older snapshot is completed by the
//! keys that have changed since, so it never misses an item of any snapshot; it may name too many,
//! and who asks compares each with what it wants.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::attributes::{Attributes, Field, Term, Wanted};
use super::{Change, Inner, Snapshot};
use crate::contract::{EventKind, Revision};

/// Fewer items are looked at faster than an index is worth its memory.
const INDEXED_ITEMS_MIN: usize = 2_048;

/// Of the fields that are asked for so many are remembered: more than any kind has.
const FIELDS_MAX: usize = 16;

/// When more than one item in so many may be wanted, going through them in order is faster than
/// sorting what was found.
const SELECTIVE_PART: usize = 4;

/// Between two yields while an index is built: some hundred microseconds.
const BUILD_ITEMS: usize = 512;

/// An index that is not further behind than this is brought up to date while the feed waits.
const CATCH_UP_CHANGES: usize = 128;

/// The index of a cache, and what becomes of it.
pub(super) struct Indexing<T> {
    index: Option<Index<T>>,
    /// The fields that have been asked for, the latest last.
    fields: Vec<Field<T>>,
    is_building: bool,
}

impl<T> Default for Indexing<T> {
    fn default() -> Self {
        Self { index: None, fields: Vec::new(), is_building: false }
    }
}

impl<T> Indexing<T> {
    /// The items are others now.
    pub(super) fn forget(&mut self) {
        self.index = None;
    }

    pub(super) fn apply(&mut self, attributes: &Attributes<T>, changes: &[Arc<Change<T>>]) {
        if let Some(index) = &mut self.index {
            changes.iter().for_each(|change| index.apply(attributes, change));
        }
    }

    /// Notes what is asked for; whether an index has to be built for it.
    fn ask(&mut self, wanted: &[Wanted<T>]) -> bool {
        for wanted in wanted {
            let Wanted::Field { field, .. } = wanted else { continue };
            if self.fields.iter().all(|known| known.name != field.name) {
                if self.fields.len() == FIELDS_MAX {
                    self.fields.remove(0);
                }
                self.fields.push(field.clone());
            }
        }
        !self.is_building && self.index.as_ref().is_none_or(|index| !self.is_complete(index))
    }

    fn is_complete(&self, index: &Index<T>) -> bool {
        self.fields.iter().all(|field| index.knows(field))
    }
}

struct Index<T> {
    /// The key of every slot; empty for one that is free.
    slots: Vec<Bytes>,
    free: Vec<u32>,
    /// The slots by their keys.
    places: HashTable<u32>,
    postings: HashMap<Term, Posting>,
    fields: Vec<Field<T>>,
    /// The last change that is in it.
    applied: Revision,
}

/// The slots that have a term. Most terms of a large collection are one item's own.
enum Posting {
    One(u32),
    Many(Box<RoaringBitmap>),
}

impl Posting {
    fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Many(slots) => slots.len(),
        }
    }

    fn insert(&mut self, slot: u32) {
        match self {
            Self::One(only) if *only == slot => {}
            Self::One(only) => *self = Self::Many(Box::new([*only, slot].into_iter().collect())),
            Self::Many(slots) => {
                slots.insert(slot);
            }
        }
    }

    /// Whether any are left.
    fn remove(&mut self, slot: u32) -> bool {
        match self {
            Self::One(only) => *only != slot,
            Self::Many(slots) => {
                slots.remove(slot);
                !slots.is_empty()
            }
        }
    }

    fn add_to(&self, all: &mut RoaringBitmap) {
        match self {
            Self::One(only) => drop(all.insert(*only)),
            Self::Many(slots) => *all |= &**slots,
        }
    }
}

impl<T> Index<T> {
    fn new(fields: Vec<Field<T>>) -> Self {
        let (slots, free, places) = (Vec::new(), Vec::new(), HashTable::new());
        Self { slots, free, places, postings: HashMap::new(), fields, applied: 0 }
    }

    fn knows(&self, field: &Field<T>) -> bool {
        self.fields.iter().any(|known| known.name == field.name)
    }

    fn terms(&self, attributes: &Attributes<T>, item: Option<&T>) -> Vec<Term> {
        let mut terms = Vec::new();
        if let Some(item) = item {
            attributes.terms(item, self.fields.iter(), &mut terms);
            terms.sort_unstable();
            terms.dedup();
        }
        terms
    }

    fn apply(&mut self, attributes: &Attributes<T>, change: &Change<T>) {
        self.applied = change.revision;
        let old = self.terms(attributes, change.previous.as_deref());
        let put = (change.kind == EventKind::Put).then_some(&*change.current);
        let new = self.terms(attributes, put);
        match change.kind {
            EventKind::Put => {
                let slot = self.slot(attributes, &change.key);
                self.change(slot, &old, &new);
            }
            EventKind::Delete => {
                let Some(slot) = self.free(attributes, &change.key) else { return };
                self.change(slot, &old, &new);
            }
        }
    }

    fn change(&mut self, slot: u32, old: &[Term], new: &[Term]) {
        for term in old.iter().filter(|term| new.binary_search(term).is_err()) {
            if self.postings.get_mut(term).is_some_and(|posting| !posting.remove(slot)) {
                self.postings.remove(term);
            }
        }
        for term in new.iter().filter(|term| old.binary_search(term).is_err()) {
            self.postings.entry(*term).and_modify(|posting| posting.insert(slot)).or_insert(Posting::One(slot));
        }
    }

    /// The slot of a key, which gets one when it has none.
    fn slot(&mut self, attributes: &Attributes<T>, key: &Bytes) -> u32 {
        let (hash, slots) = (attributes.key(key), &mut self.slots);
        if let Some(slot) = self.places.find(hash, |slot| slots[*slot as usize] == *key) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or(slots.len() as u32);
        match slots.get_mut(slot as usize) {
            Some(place) => *place = key.clone(),
            None => slots.push(key.clone()),
        }
        self.places.insert_unique(hash, slot, |slot| attributes.key(&slots[*slot as usize]));
        slot
    }

    /// Gives up the slot of a key.
    fn free(&mut self, attributes: &Attributes<T>, key: &Bytes) -> Option<u32> {
        let slots = &mut self.slots;
        let found = self.places.find_entry(attributes.key(key), |slot| slots[*slot as usize] == *key);
        let (slot, _) = found.ok()?.remove();
        slots[slot as usize] = Bytes::new();
        self.free.push(slot);
        Some(slot)
    }

    /// The keys that fulfil every condition that the index knows, and perhaps a few more; `None`
    /// when it knows none of them or too many fulfil them.
    fn find(&self, attributes: &Attributes<T>, wanted: &[Wanted<T>]) -> Option<Vec<Bytes>> {
        let is_known = |wanted: &&Wanted<T>| match wanted {
            Wanted::Field { field, .. } => self.knows(field),
            _ => true,
        };
        let mut conditions: Vec<Vec<&Posting>> = Vec::new();
        for wanted in wanted.iter().filter(is_known) {
            let terms = attributes.any_of(wanted);
            conditions.push(terms.iter().filter_map(|term| self.postings.get(term)).collect());
        }
        let count = |postings: &Vec<&Posting>| postings.iter().map(|posting| posting.len()).sum::<u64>();
        conditions.sort_by_cached_key(count);
        let mut conditions = conditions.into_iter();
        let mut found = union(&conditions.next()?);
        for other in conditions {
            if found.is_empty() {
                break;
            }
            found &= union(&other);
        }
        let items = self.slots.len() - self.free.len();
        if found.len() > (items / SELECTIVE_PART) as u64 {
            return None;
        }
        Some(found.iter().map(|slot| self.slots[slot as usize].clone()).collect())
    }
}

fn union(postings: &[&Posting]) -> RoaringBitmap {
    let mut all = RoaringBitmap::new();
    postings.iter().for_each(|posting| posting.add_to(&mut all));
    all
}

/// What [`find`] has found out.
pub(super) struct Found {
    /// The keys, in order; `None` when there is no way but to look at every item.
    pub(super) keys: Option<Vec<Bytes>>,
    /// Whether an index should be built for the next who asks.
    pub(super) wants_index: bool,
}

/// The keys of `snapshot` whose items may fulfil every condition.
pub(super) fn find<T>(cache: &Inner<T>, snapshot: &Snapshot<T>, wanted: &[Wanted<T>]) -> Found {
    let nothing = Found { keys: None, wants_index: false };
    if wanted.is_empty() || snapshot.len() < INDEXED_ITEMS_MIN {
        return nothing;
    }
    let (wants_index, found) = {
        let mut indexing = cache.indexing.lock();
        let wants_index = indexing.ask(wanted);
        indexing.is_building |= wants_index;
        let found = indexing.index.as_ref().map(|index| (index.find(&cache.attributes, wanted), index.applied));
        (wants_index, found)
    };
    let Some((Some(mut keys), applied)) = found else { return Found { keys: None, wants_index } };
    let state = cache.state.read();
    let known = applied.min(snapshot.changed());
    if known < state.ring.floor() {
        return Found { keys: None, wants_index };
    }
    keys.extend(state.ring.after(known).map(|change| change.key.clone()));
    drop(state);
    if keys.len() > snapshot.len() / SELECTIVE_PART {
        return Found { keys: None, wants_index };
    }
    keys.sort_unstable();
    keys.dedup();
    Found { keys: Some(keys), wants_index }
}

/// Builds the index that has been asked for, letting others work in between.
pub(super) async fn build<T: Send + Sync + 'static>(cache: Weak<Inner<T>>) {
    loop {
        let Some(cache) = cache.upgrade() else { return };
        let fields = cache.indexing.lock().fields.clone();
        let snapshot = cache.snapshot(0);
        let mut index = Index::new(fields);
        index.applied = snapshot.changed();
        let mut after: Option<Bytes> = None;
        loop {
            let batch = snapshot.range(b"", after.as_deref()).take(BUILD_ITEMS);
            let mut last = None;
            for (key, item) in batch {
                let terms = index.terms(&cache.attributes, Some(item));
                let slot = index.slot(&cache.attributes, key);
                index.change(slot, &[], &terms);
                last = Some(key.clone());
            }
            let Some(last) = last else { break };
            after = Some(last);
            tokio::task::yield_now().await;
        }
        drop(snapshot);
        while cache.behind(&index).is_some_and(|changes| changes.len() > CATCH_UP_CHANGES) {
            for change in cache.behind(&index).unwrap_or_default() {
                index.apply(&cache.attributes, &change);
            }
            tokio::task::yield_now().await;
        }
        // The feed applies under this lock.
        let _registry = cache.registry.lock();
        let Some(changes) = cache.behind(&index) else { continue };
        changes.iter().for_each(|change| index.apply(&cache.attributes, change));
        let mut indexing = cache.indexing.lock();
        let is_complete = indexing.is_complete(&index);
        indexing.index = Some(index);
        if is_complete {
            indexing.is_building = false;
            return;
        }
    }
}

impl<T> Inner<T> {
    /// The changes that an index lacks; `None` when they are no longer remembered.
    fn behind(&self, index: &Index<T>) -> Option<Vec<Arc<Change<T>>>> {
        let state = self.state.read();
        (index.applied >= state.ring.floor()).then(|| state.ring.after(index.applied).cloned().collect())
    }
}
