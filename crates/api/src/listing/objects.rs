//! The objects of a list, in order.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use skiff_kinds::Kind;
use skiff_store::cache::Snapshot;

use crate::custom::convert;
use crate::errors::ApiResult;
use crate::selection::Selection;
use crate::storage::{Item, Stored};
use crate::verbs::Subject;

/// After so many objects that nobody wants others get their turn.
const LOOKS_MAX: usize = 1_024;
/// The objects of a page up to this size are remembered while it is found out where it ends; those of a larger one
/// are looked at twice.
const PAGE_KEPT_MAX: usize = 8_192;

/// Some objects, and how far they have been gone through. A copy goes through them by itself.
#[derive(Clone)]
pub(crate) struct Objects(Way);

#[derive(Clone)]
enum Way {
    /// What a selection wants of a snapshot.
    Selected(Box<Selected>),
    /// These, from a place on.
    Given(Arc<[Arc<Item>]>, usize),
}

#[derive(Clone)]
struct Selected {
    kind: Arc<dyn Kind>,
    selection: Selection,
    snapshot: Snapshot<Item>,
    /// What every key begins with.
    prefix: Bytes,
    /// The only keys that come into question and how many are done; all of the prefix without.
    keys: Option<(Arc<[Bytes]>, usize)>,
    /// The last key that was looked at.
    after: Option<Bytes>,
    /// The last key to look at.
    until: Option<Bytes>,
}

/// Where a page ends.
#[derive(Debug, Default)]
pub(crate) struct PageEnd {
    /// The last object's key within its collection, when there may be more.
    pub(crate) last: Option<Bytes>,
    /// How many objects there are after it; nothing when that is not known.
    pub(crate) left: Option<usize>,
}

impl Objects {
    /// These, whoever wants them.
    pub(crate) fn given(items: impl IntoIterator<Item = Arc<Item>>) -> Self {
        Self(Way::Given(items.into_iter().collect(), 0))
    }

    /// Stored objects.
    pub(crate) fn stored(stored: Vec<Stored>) -> Self {
        Self::given(stored.into_iter().map(|stored| Arc::new(Item::of(stored))))
    }

    /// What `selection` wants of a snapshot, after a key of the collection.
    pub(crate) fn selected(
        subject: &Subject,
        snapshot: Snapshot<Item>,
        selection: &Selection,
        after: Option<Bytes>,
    ) -> Self {
        let namespace = match selection.namespace().filter(|_| subject.namespace.is_empty()) {
            Some(namespace) if subject.kind.facts().namespaced => namespace,
            _ => &subject.namespace,
        };
        let prefix = subject.collection.namespace_prefix(namespace);
        let mut keys = candidates(subject, &snapshot, selection, (namespace, &prefix));
        if let (Some(keys), Some(after)) = (&mut keys, &after) {
            keys.retain(|key| key > after);
        }
        Self(Way::Selected(Box::new(Selected {
            kind: Arc::clone(&subject.kind),
            selection: selection.clone(),
            snapshot,
            prefix,
            keys: keys.map(|keys| (keys.into(), 0)),
            after,
            until: None,
        })))
    }

    /// Goes on to show wanted objects until `visit` has had enough, there are none left, or so many were looked at
    /// that others should have a turn. Whether there may be more.
    pub(crate) fn each(&mut self, mut visit: impl FnMut(&Arc<Item>) -> ApiResult<ControlFlow<()>>) -> ApiResult<bool> {
        match &mut self.0 {
            Way::Selected(selected) => selected.each(visit),
            Way::Given(items, next) => {
                while let Some(item) = items.get(*next) {
                    *next += 1;
                    if visit(item)?.is_break() {
                        return Ok(*next < items.len());
                    }
                }
                Ok(false)
            }
        }
    }

    /// All that are left.
    pub(crate) async fn collect(mut self) -> ApiResult<Vec<Arc<Item>>> {
        let mut all = Vec::new();
        while self.each(|item| {
            all.push(Arc::clone(item));
            Ok(ControlFlow::Continue(()))
        })? {
            tokio::task::yield_now().await;
        }
        Ok(all)
    }

    /// Leaves only the next `limit`.
    pub(crate) async fn page(&mut self, limit: usize) -> ApiResult<PageEnd> {
        let (mut ahead, mut kept, mut count) = (self.clone(), Some(Vec::new()), 0);
        let (mut last, mut more) = (None, true);
        while more && count < limit {
            more = ahead.each(|item| {
                count += 1;
                last = Some(item.stored.key.clone());
                if count > PAGE_KEPT_MAX {
                    kept = None;
                } else if let Some(kept) = &mut kept {
                    kept.push(Arc::clone(item));
                }
                Ok(if count == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            tokio::task::yield_now().await;
        }
        let end = if more { ahead.end(last) } else { PageEnd::default() };
        match (kept, &mut self.0, ahead.0) {
            (Some(kept), way, _) => *way = Way::Given(kept.into(), 0),
            (None, Way::Selected(selected), Way::Selected(ahead)) => selected.until = ahead.after.filter(|_| more),
            (None, way, Way::Given(items, next)) => {
                let first = next.saturating_sub(count);
                *way = Way::Given(items[first..next].into(), 0);
            }
            (None, Way::Given(..), Way::Selected(_)) => {}
        }
        Ok(end)
    }

    /// Where a page ends of which `self` is the rest.
    fn end(&self, last: Option<Bytes>) -> PageEnd {
        match &self.0 {
            Way::Given(items, next) => PageEnd { last: last.filter(|_| *next < items.len()), left: None },
            Way::Selected(rest) if rest.selection.is_everything() => {
                let left = rest.snapshot.range(&rest.prefix, rest.after.as_deref()).count();
                PageEnd { last: last.filter(|_| left > 0), left: Some(left) }
            }
            Way::Selected(rest) => PageEnd { last: last.filter(|_| rest.has_more()), left: None },
        }
    }
}

impl Selected {
    fn wants(&self, item: &Item) -> bool {
        self.selection.matches(self.kind.as_ref(), item)
    }

    fn is_done(&self, key: &[u8]) -> bool {
        self.until.as_deref().is_some_and(|until| key > until)
    }

    /// Whether there is anything more to look at.
    fn has_more(&self) -> bool {
        match &self.keys {
            Some((keys, next)) => *next < keys.len(),
            None => self.snapshot.range(&self.prefix, self.after.as_deref()).next().is_some(),
        }
    }

    fn each(&mut self, mut visit: impl FnMut(&Arc<Item>) -> ApiResult<ControlFlow<()>>) -> ApiResult<bool> {
        let (mut looks, mut more, mut seen) = (0, false, None);
        if let Some((keys, mut next)) = self.keys.clone() {
            while let Some(key) = keys.get(next).filter(|key| !self.is_done(key)) {
                next += 1;
                looks += 1;
                let is_over = match self.snapshot.get(key).filter(|item| self.wants(item)) {
                    Some(item) => visit(item)?.is_break(),
                    None => false,
                };
                seen = Some(key.clone());
                if is_over || looks == LOOKS_MAX {
                    more = true;
                    break;
                }
            }
            self.keys = Some((keys, next));
        } else {
            for (key, item) in self.snapshot.range(&self.prefix, self.after.as_deref()) {
                if self.is_done(key) {
                    break;
                }
                looks += 1;
                let is_over = self.wants(item) && visit(item)?.is_break();
                if is_over || looks == LOOKS_MAX {
                    seen = Some(key.clone());
                    more = true;
                    break;
                }
            }
        }
        self.after = seen.or_else(|| self.after.take());
        Ok(more)
    }
}

/// The only keys that come into question, in order, if that is known without looking at every object.
fn candidates(
    subject: &Subject,
    snapshot: &Snapshot<Item>,
    selection: &Selection,
    (namespace, prefix): (&str, &Bytes),
) -> Option<Vec<Bytes>> {
    if selection.is_everything() {
        return None;
    }
    if let Some(name) = selection.name() {
        return Some(if subject.kind.facts().namespaced && namespace.is_empty() {
            named(snapshot, prefix, name)
        } else {
            vec![subject.collection.key(namespace, name)]
        });
    }
    // What a webhook makes of labels and fields, no index knows.
    if convert::needs_webhook(subject.kind.as_ref()) {
        return None;
    }
    let mut keys = subject.collection.cache().candidates(snapshot, &selection.wanted(&subject.kind))?;
    keys.retain(|key| key.starts_with(prefix));
    Some(keys)
}

/// The keys of the objects of one name, in every namespace: one look for each namespace.
fn named(snapshot: &Snapshot<Item>, prefix: &Bytes, name: &str) -> Vec<Bytes> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let next = snapshot.range(prefix, after.as_deref()).next().map(|(key, _)| key.clone());
        let Some(key) = next else { break };
        let Some(slash) = key[prefix.len()..].iter().position(|byte| *byte == b'/') else { break };
        let namespace = &key[..prefix.len() + slash];
        let wanted = [namespace, b"/", name.as_bytes()].concat();
        if snapshot.get(&wanted).is_some() {
            found.push(wanted.into());
        }
        // The byte after the slash: beyond everything in the namespace, before every other.
        after = Some([namespace, &[b'/' + 1]].concat());
    }
    found
}
