//! The one task that follows the store for a cache.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use skiff_base::Clock;

use super::{Change, Inner, Ring};
use crate::contract::{Entry, Error, Event, EventKind, Revision, Watch};

/// So many changes are applied under one lock: enough to make the lock cheap, few enough that a
/// new watcher does not wait noticeably.
const BATCH_EVENTS: usize = 64;

/// How long to wait before the store is asked again after it failed.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Lists, then follows; starts over where it left off when the watch is cut, and from a new list
/// when that is too late.
pub(super) async fn follow<T: Send + Sync + 'static>(cache: Weak<Inner<T>>, clock: Clock) {
    loop {
        let Some(watch) = connect(&cache).await else { return };
        let error = match watch {
            Ok(watch) => consume(&cache, watch).await,
            Err(error) => Some(error),
        };
        // Also after a lag: who lags needs the pause most.
        if let Some(error) = error {
            tracing::debug!(%error, "the watch cache lost the store, will try again");
            clock.sleep(RETRY_DELAY).await;
        }
    }
}

/// Opens a watch from where the cache is; `None` when the cache is gone.
async fn connect<T: Send + Sync + 'static>(cache: &Weak<Inner<T>>) -> Option<Result<Watch, Error>> {
    let cache = cache.upgrade()?;
    let mut after = *cache.applied.borrow();
    if after == 0 {
        match list(&cache).await {
            Ok(revision) => after = revision,
            Err(error) => return Some(Err(error)),
        }
    }
    let watch = cache.store.watch(cache.prefix.clone(), cache.end(), Some(after)).await;
    match watch {
        Ok(watch) => {
            cache.frontier.send_replace(Some(watch.frontier()));
            Some(Ok(watch))
        }
        Err(error @ Error::Compacted { .. }) => {
            // Readers go on with what there is until the list has come.
            Some(list(&cache).await.and(Err(error)))
        }
        Err(error) => Some(Err(error)),
    }
}

async fn list<T: Send + Sync + 'static>(cache: &Inner<T>) -> Result<Revision, Error> {
    let result = cache.store.range(cache.range()).await?;
    let items = cache.build_all(&result.entries);
    let mut registry = cache.registry.lock();
    {
        let mut state = cache.state.write();
        state.items = items;
        state.changed = result.revision;
        state.ring = Ring::new(result.revision);
        state.kept.clear();
    }
    cache.indexing.lock().forget();
    registry.end(&Error::Compacted { requested: *cache.applied.borrow(), compacted: result.revision });
    cache.applied.send_replace(result.revision);
    Ok(result.revision)
}

/// Applies changes until the watch ends; `None` when the cache is gone.
async fn consume<T: Send + Sync + 'static>(cache: &Weak<Inner<T>>, watch: Watch) -> Option<Error> {
    let mut batches = watch.ready_chunks(BATCH_EVENTS);
    while let Some(batch) = batches.next().await {
        let cache = cache.upgrade()?;
        let mut events = Vec::with_capacity(batch.len());
        let mut error = None;
        for event in batch {
            match event {
                Ok(event) => events.push(event),
                Err(cause) => error = Some(cause),
            }
        }
        apply(&cache, events);
        if error.is_some() {
            return error;
        }
    }
    Some(Error::Unavailable("the store ended the watch".into()))
}

fn apply<T: Send + Sync + 'static>(cache: &Inner<T>, events: Vec<Event>) {
    let mut progress = 0;
    let mut built = Vec::with_capacity(events.len());
    for event in events {
        match event {
            Event::Progress(revision) => progress = revision,
            Event::Change { kind, entry, previous } => {
                progress = entry.mod_revision;
                let item = build(cache, kind, &entry, previous);
                built.push((kind, entry, item));
            }
        }
    }
    let now = cache.clock.instant();
    let mut registry = cache.registry.lock();
    let changes: Vec<Arc<Change<T>>> = {
        let mut state = cache.state.write();
        state.kept.expire(now);
        built
            .into_iter()
            .filter_map(|(kind, entry, item)| {
                let Entry { key, mod_revision: revision, .. } = entry;
                let previous = match (kind, &item) {
                    (EventKind::Put, Some(item)) => state.items.insert(key.clone(), item.clone()),
                    _ => state.items.remove(key.as_ref()),
                };
                let current = item.or_else(|| previous.clone())?;
                state.changed = revision;
                let change = Arc::new(Change { kind, key, revision, current, previous });
                state.ring.push(change.clone(), now);
                Some(change)
            })
            .collect()
    };
    cache.indexing.lock().apply(&cache.attributes, &changes);
    for change in &changes {
        registry.publish(change, &cache.attributes);
    }
    cache.applied.send_if_modified(|applied| {
        let is_later = progress > *applied;
        *applied = progress.max(*applied);
        is_later
    });
}

/// The item of a change; `None` for a delete of which the engine does not know what was there.
fn build<T>(cache: &Inner<T>, kind: EventKind, entry: &Entry, previous: Option<Entry>) -> Option<Arc<T>> {
    let item = match (kind, previous) {
        (EventKind::Put, _) => (cache.build)(entry),
        (EventKind::Delete, Some(previous)) => (cache.build)(&Entry { mod_revision: entry.mod_revision, ..previous }),
        (EventKind::Delete, None) => return None,
    };
    Some(Arc::new(item))
}
