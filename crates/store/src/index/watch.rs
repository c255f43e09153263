//! Watchers: each has a bounded buffer, and one that does not read is cut without delaying
//! anybody.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Change, Index};
use crate::contract::{Entry, Error, Event, Frontier, Outstanding, Revision, Watch};

/// A watcher this many changes behind is cut with [`Error::Lagged`]: the past is kept for a
/// resume anyway, and one reader that hangs must not hold memory.
pub const WATCH_BUFFER_EVENTS: usize = 4_096;

/// The live watchers of a store.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Vec<Watcher>);

#[derive(Clone, Debug)]
struct Bounds {
    start: Bytes,
    end: Bytes,
}

impl Bounds {
    fn contain(&self, key: &Bytes) -> bool {
        *key >= self.start && (self.end.is_empty() || *key < self.end)
    }
}

#[derive(Debug)]
struct Watcher {
    bounds: Bounds,
    sender: mpsc::Sender<Change>,
    shared: Arc<Shared>,
}

/// What the two ends of a watch share besides the buffer.
#[derive(Debug)]
struct Shared {
    /// The last revision put into the buffer.
    sent: AtomicU64,
    /// The store's revision; owned by the engine.
    current: Arc<AtomicU64>,
    /// Whether changes are missing after `sent`.
    cut: AtomicBool,
    /// Why the watch ends, once the buffer is read out.
    end: Mutex<Option<Error>>,
}

impl Watchers {
    /// Hands a change to everybody who waits for it.
    pub(super) fn publish(&mut self, change: &Change) {
        let key = &change.entry.key;
        self.0.retain(|watcher| {
            if !watcher.bounds.contain(key) {
                // The receiver's end is noticed here too, so that watches that come and go on a
                // quiet range leave nothing behind.
                return !watcher.sender.is_closed();
            }
            let revision = change.revision();
            match watcher.sender.try_send(change.clone()) {
                Ok(()) => watcher.shared.sent.store(revision, Ordering::Release),
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    watcher.cut(Error::Lagged(revision));
                    return false;
                }
            }
            true
        });
    }

    /// Ends every watch with `error`.
    pub(crate) fn cut(&mut self, error: &Error) {
        for watcher in self.0.drain(..) {
            watcher.cut(error.clone());
        }
    }
}

impl Watcher {
    fn cut(&self, error: Error) {
        *self.shared.end.lock() = Some(error);
        self.shared.cut.store(true, Ordering::Release);
    }
}

impl Index {
    /// Starts a watch; see [`crate::Store::watch`]. `current` follows the store's revision.
    pub(crate) fn watch(
        &mut self,
        start: Bytes,
        end: Bytes,
        after: Option<Revision>,
        current: &Arc<AtomicU64>,
    ) -> Result<Watch, Error> {
        let after = self.readable(after)?;
        // Not filtered here: that would keep everybody waiting for the lock.
        let past = self.history_after(after).into_iter();
        let (sender, receiver) = mpsc::channel(WATCH_BUFFER_EVENTS);
        let shared = Arc::new(Shared {
            sent: AtomicU64::new(self.revision),
            current: current.clone(),
            cut: AtomicBool::new(false),
            end: Mutex::new(None),
        });
        let bounds = Bounds { start, end };
        self.watchers.0.push(Watcher { bounds: bounds.clone(), sender, shared: shared.clone() });
        let feed = Feed { past: Some(past), bounds, caught_up: Some(self.revision), receiver, shared: shared.clone() };
        Ok(Watch::new(Box::pin(feed), shared))
    }
}

#[async_trait]
impl Frontier for Shared {
    async fn outstanding(&self) -> Result<Outstanding, Error> {
        // In this order: what was sent up to `current` is then certainly counted in `sent`.
        let current = self.current.load(Ordering::Acquire);
        if self.cut.load(Ordering::Acquire) {
            return Err(Error::Lagged(self.sent.load(Ordering::Acquire)));
        }
        Ok(Outstanding { seen: self.sent.load(Ordering::Acquire), current })
    }
}

/// The reader's end: first the past, then one progress event, then what happens.
struct Feed {
    past: Option<imbl::vector::ConsumingIter<Change, imbl::shared_ptr::DefaultSharedPtr>>,
    bounds: Bounds,
    caught_up: Option<Revision>,
    receiver: mpsc::Receiver<Change>,
    shared: Arc<Shared>,
}

impl Stream for Feed {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let feed = &mut *self;
        let bounds = &feed.bounds;
        if let Some(change) = feed.past.iter_mut().flatten().find(|change| bounds.contain(&change.entry.key)) {
            return Poll::Ready(Some(Ok(event(change))));
        }
        if let Some(revision) = self.caught_up.take() {
            self.past = None;
            return Poll::Ready(Some(Ok(Event::Progress(revision))));
        }
        match self.receiver.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(change)) => Poll::Ready(Some(Ok(event(change)))),
            Poll::Ready(None) => Poll::Ready(self.shared.end.lock().take().map(Err)),
        }
    }
}

fn event(change: Change) -> Event {
    let previous = change.previous.map(|previous| Entry::clone(&previous));
    Event::Change { kind: change.kind, entry: Entry::clone(&change.entry), previous }
}
