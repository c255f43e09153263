//! Watchers of a cache: every one has a queue of shared changes, and changes find the watchers
//! they concern by the prefixes of their key.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::attributes::{Attributes, Field, Term, Wanted};
use super::{Change, Inner, ended};
use crate::contract::{Error, Revision};

/// A watcher with more undelivered changes is cut and has to list again: one slow client must
/// not hold memory. kube-apiserver's per-watcher buffers are of this order.
pub const WATCHER_QUEUE_EVENTS: usize = 1_024;

/// Which keys a watcher wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    key: Bytes,
    is_exact: bool,
}

impl Scope {
    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { key: Bytes::copy_from_slice(prefix), is_exact: false }
    }

    /// One key.
    pub fn key(key: &[u8]) -> Self {
        Self { key: Bytes::copy_from_slice(key), is_exact: true }
    }

    fn contains(&self, key: &[u8]) -> bool {
        if self.is_exact { *key == *self.key } else { key.starts_with(&self.key) }
    }
}

type Wants<T> = Box<dyn Fn(&Change<T>) -> bool + Send + Sync>;

/// Decides which changes a watcher is woken for.
pub struct Filter<T> {
    wants: Wants<T>,
    wanted: Option<Wanted<T>>,
}

impl<T> Filter<T> {
    /// The changes for which `wants` is true. When only items that fulfil `wanted`, before the
    /// change or after it, can be among them, then the others cost nothing.
    pub fn new(wants: impl Fn(&Change<T>) -> bool + Send + Sync + 'static, wanted: Option<Wanted<T>>) -> Self {
        Self { wants: Box::new(wants), wanted }
    }
}

/// A stream of changes in revision order. Dropping it ends the watch.
pub struct Watcher<T: Send + Sync + 'static> {
    slot: Arc<Slot<T>>,
    cache: Weak<Inner<T>>,
    /// Taken from the queue all at once, so that the lock is rare.
    taken: VecDeque<Arc<Change<T>>>,
    /// Everything up to this revision has been handed to the caller.
    delivered: Revision,
}

struct Slot<T> {
    scope: Scope,
    after: Revision,
    filter: Option<Filter<T>>,
    /// The one term that an item must have, before a change or after it, for the change to be wanted.
    term: Option<Term>,
    queue: Mutex<Queue<T>>,
    waker: AtomicWaker,
}

struct Queue<T> {
    changes: VecDeque<Arc<Change<T>>>,
    end: Option<Error>,
}

impl<T> Slot<T> {
    fn wants(&self, change: &Change<T>) -> bool {
        change.revision > self.after && self.filter.as_ref().is_none_or(|filter| (filter.wants)(change))
    }

    /// Whether the watcher stays.
    fn offer(&self, change: &Arc<Change<T>>) -> bool {
        if !self.wants(change) {
            return true;
        }
        let (stays, was_empty) = {
            let mut queue = self.queue.lock();
            let was_empty = queue.changes.is_empty();
            if queue.changes.len() < WATCHER_QUEUE_EVENTS {
                queue.changes.push_back(change.clone());
                (true, was_empty)
            } else {
                queue.end = Some(Error::Lagged(change.revision));
                (false, true)
            }
        };
        if was_empty {
            self.waker.wake();
        }
        stays
    }

    /// The field that makes its term.
    fn field(&self) -> Option<&Field<T>> {
        match self.filter.as_ref()?.wanted.as_ref()? {
            Wanted::Field { field, .. } if self.term.is_some() => Some(field),
            _ => None,
        }
    }

    fn end(&self, error: Error) {
        self.queue.lock().end = Some(error);
        self.waker.wake();
    }
}

/// All watchers of a cache.
pub(super) struct Registry<T> {
    /// By the length and then the bytes of their scope.
    scopes: BTreeMap<usize, HashMap<Bytes, Listeners<T>>>,
    /// The fields that make the terms of watchers, and of how many.
    fields: Vec<(Field<T>, usize)>,
}

/// The watchers of a scope.
struct Listeners<T> {
    /// Those that must be asked about every change.
    all: Vec<Arc<Slot<T>>>,
    /// Those that only want items with a term.
    by_term: HashMap<Term, Vec<Arc<Slot<T>>>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { scopes: BTreeMap::new(), fields: Vec::new() }
    }
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Self { all: Vec::new(), by_term: HashMap::new() }
    }
}

impl<T> Registry<T> {
    /// Hands a change to everybody who wants it.
    pub(super) fn publish(&mut self, change: &Arc<Change<T>>, attributes: &Attributes<T>) {
        let mut terms = None;
        for (length, scopes) in self.scopes.range_mut(..=change.key.len()) {
            let Some(listeners) = scopes.get_mut(&change.key[..*length]) else { continue };
            let offer = |slot: &mut Arc<Slot<T>>| !slot.scope.contains(&change.key) || slot.offer(change);
            listeners.all.retain_mut(offer);
            if listeners.by_term.is_empty() {
                continue;
            }
            let fields = self.fields.iter().map(|(field, _)| field);
            for term in terms.get_or_insert_with(|| attributes.around(change, fields)) {
                if let Some(slots) = listeners.by_term.get_mut(term) {
                    slots.retain_mut(offer);
                }
            }
        }
    }

    /// Ends every watch. Its field still counts until its owner drops it.
    pub(super) fn end(&mut self, error: &Error) {
        for listeners in std::mem::take(&mut self.scopes).into_values().flat_map(HashMap::into_values) {
            for slot in listeners.all.into_iter().chain(listeners.by_term.into_values().flatten()) {
                slot.end(error.clone());
            }
        }
    }

    fn insert(&mut self, slot: Arc<Slot<T>>) {
        if let Some(field) = slot.field() {
            match self.fields.iter_mut().find(|(known, _)| known.name == field.name) {
                Some((_, count)) => *count += 1,
                None => self.fields.push((field.clone(), 1)),
            }
        }
        let scopes = self.scopes.entry(slot.scope.key.len()).or_default();
        let listeners = scopes.entry(slot.scope.key.clone()).or_default();
        match slot.term {
            Some(term) => listeners.by_term.entry(term).or_default().push(slot),
            None => listeners.all.push(slot),
        }
    }

    fn remove(&mut self, slot: &Arc<Slot<T>>) {
        if let Some(field) = slot.field() {
            self.fields.iter_mut().filter(|(known, _)| known.name == field.name).for_each(|(_, count)| *count -= 1);
            self.fields.retain(|(_, count)| *count > 0);
        }
        let length = slot.scope.key.len();
        let Some(scopes) = self.scopes.get_mut(&length) else { return };
        let Some(listeners) = scopes.get_mut(&slot.scope.key) else { return };
        match slot.term {
            Some(term) => {
                if listeners.by_term.get_mut(&term).is_some_and(|slots| !take_out(slots, slot)) {
                    listeners.by_term.remove(&term);
                }
            }
            None => drop(take_out(&mut listeners.all, slot)),
        }
        if listeners.all.is_empty() && listeners.by_term.is_empty() {
            scopes.remove(&slot.scope.key);
        }
        if scopes.is_empty() {
            self.scopes.remove(&length);
        }
    }
}

/// Whether any are left.
fn take_out<T>(slots: &mut Vec<Arc<Slot<T>>>, slot: &Arc<Slot<T>>) -> bool {
    if let Some(index) = slots.iter().position(|other| Arc::ptr_eq(other, slot)) {
        slots.swap_remove(index);
    }
    !slots.is_empty()
}

impl<T> Drop for Registry<T> {
    fn drop(&mut self) {
        self.end(&ended());
    }
}

/// Starts a watch; the cache has applied `after` already.
pub(super) fn open<T: Send + Sync + 'static>(
    cache: &Arc<Inner<T>>,
    scope: Scope,
    after: Revision,
    filter: Option<Filter<T>>,
) -> Result<Watcher<T>, Error> {
    let wanted = filter.as_ref().and_then(|filter| filter.wanted.as_ref());
    // An item that changes from one value to another that is wanted too must not be told twice.
    let term = wanted.map(|wanted| cache.attributes.any_of(wanted)).filter(|terms| terms.len() == 1);
    let mut slot = Slot {
        scope,
        after,
        term: term.map(|terms| terms[0]),
        filter,
        queue: Mutex::new(Queue { changes: VecDeque::new(), end: None }),
        waker: AtomicWaker::new(),
    };
    let mut registry = cache.registry.lock();
    let past: VecDeque<_> = {
        let state = cache.state.read();
        if after < state.ring.floor() {
            return Err(Error::Compacted { requested: after, compacted: state.ring.floor() });
        }
        let wanted = |change: &&Arc<Change<T>>| slot.scope.contains(&change.key) && slot.wants(change);
        state.ring.after(after).filter(wanted).cloned().collect()
    };
    slot.queue.get_mut().changes = past;
    let slot = Arc::new(slot);
    registry.insert(slot.clone());
    drop(registry);
    Ok(Watcher { slot, cache: Arc::downgrade(cache), taken: VecDeque::new(), delivered: after })
}

impl<T: Send + Sync + 'static> Watcher<T> {
    /// The next change. After an error there is nothing more: [`Error::Lagged`] and
    /// [`Error::Compacted`] mean that the client has to list again. Cancel-safe.
    pub async fn next(&mut self) -> Result<Arc<Change<T>>, Error> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// See [`Watcher::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Arc<Change<T>>, Error>> {
        if self.taken.is_empty() {
            // Registered first: a change between the look and the registration would be slept over.
            self.slot.waker.register(context.waker());
            let mut queue = self.slot.queue.lock();
            std::mem::swap(&mut queue.changes, &mut self.taken);
            if self.taken.is_empty() {
                return match &queue.end {
                    Some(error) => Poll::Ready(Err(error.clone())),
                    None => Poll::Pending,
                };
            }
        }
        let Some(change) = self.taken.pop_front() else { return Poll::Pending };
        self.delivered = change.revision;
        Poll::Ready(Ok(change))
    }

    /// The next change if there is one already; it does not wake anybody later.
    pub fn try_next(&mut self) -> Option<Arc<Change<T>>> {
        if self.taken.is_empty() {
            std::mem::swap(&mut self.slot.queue.lock().changes, &mut self.taken);
        }
        let change = self.taken.pop_front()?;
        self.delivered = change.revision;
        Some(change)
    }

    /// A revision up to which the caller has seen everything it will ever see on this watch: for
    /// bookmarks. It grows also while nothing within the scope changes.
    pub async fn progress(&self) -> Revision {
        let Some(cache) = self.cache.upgrade() else { return self.delivered };
        let frontier = cache.frontier.borrow().clone();
        let outstanding = match frontier {
            Some(frontier) => frontier.outstanding().await.ok(),
            None => None,
        };
        // The feed applies and hands out under this lock.
        let _registry = cache.registry.lock();
        let queue = self.slot.queue.lock();
        if !self.taken.is_empty() || !queue.changes.is_empty() || queue.end.is_some() {
            return self.delivered;
        }
        let applied = *cache.applied.borrow();
        let current =
            outstanding.filter(|outstanding| applied >= outstanding.seen).map(|outstanding| outstanding.current);
        applied.max(current.unwrap_or(0)).max(self.delivered)
    }
}

impl<T: Send + Sync + 'static> Drop for Watcher<T> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.registry.lock().remove(&self.slot);
        }
    }
}

impl<T: Send + Sync + 'static> std::fmt::Debug for Watcher<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watcher").field("scope", &self.slot.scope).finish_non_exhaustive()
    }
}
