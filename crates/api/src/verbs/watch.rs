//! `watch`: initial events, then changes as they happen, in the client's form.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Response, StatusCode, header};
use skiff_kinds::Kind;
use skiff_store::cache::{Change, Filter, Scope, Snapshot, Watcher};
use skiff_store::{Error, Event, EventKind, prefix_end};
use tokio::time::Instant;

use super::Subject;
use crate::body::{Body, BodyError};
use crate::chain::Call;
use crate::custom::convert;
use crate::errors::{ApiError, ApiResult};
use crate::frame::{EventType, Frames};
use crate::listing::Objects;
use crate::request::options::ListOptions;
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::storage::{Collection, Item, Stored};

/// How often an idle watcher hears how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events that are ready together travel together, up to the size of one HTTP/2 frame.
const CHUNK_BYTES_MAX: usize = 16 * 1024;

/// Watches objects.
pub async fn watch(server: &Arc<ApiServer>, call: &Call, subject: Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let mut options = ListOptions::parse(&call.query)?;
    options.watch = true;
    options.validate()?;
    let selection = Selection::parse(subject.kind.as_ref(), &options.label_selector, &options.field_selector)?;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => {
            let seconds = server.config.limits.watch_timeout_min.as_secs().max(1);
            Duration::from_secs(seconds + server.random().below(seconds))
        }
    };
    let content_type = form.stream_content_type();
    let now = server.clock().instant();
    let (deadline, next_bookmark) = (now + timeout, now + BOOKMARK_INTERVAL);
    let shutdown = server.config.tasks.shutdown().clone();
    let retired = server.retired(&subject.kind);
    let mut watcher = Watch {
        frames: Frames::new(Arc::clone(&subject.kind), form),
        subject,
        selection: Arc::new(selection),
        bookmarks: options.allow_watch_bookmarks,
        initial: None,
        pending: VecDeque::new(),
        changes: None,
        delivered: 0,
        floor: 0,
        deadline,
        timer: Box::pin(tokio::time::sleep_until(deadline.min(next_bookmark))),
        shutdown: Box::pin(async move { shutdown.wait().await }),
        retired,
        server: Arc::clone(server),
        ended: false,
        counted: None,
    };
    watcher.start(&options).await?;
    watcher.convert_initial().await?;
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<Bytes, BodyError>(chunk), watcher))
    });
    let mut response = Response::new(Body::Stream(stream.boxed()));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    Ok(response)
}

/// One watch.
struct Watch {
    server: Arc<ApiServer>,
    subject: Subject,
    selection: Arc<Selection>,
    frames: Frames,
    bookmarks: bool,
    /// The state at the start, not yet sent.
    initial: Option<Initial>,
    /// Chunks that are ready.
    pending: VecDeque<Bytes>,
    changes: Option<Source>,
    /// The revision up to which the client knows everything.
    delivered: u64,
    /// Changes up to here are not wanted: the client asked to start in the future.
    floor: u64,
    deadline: Instant,
    /// Rings for the next bookmark and for the deadline. Kept, as is `shutdown`: to ask anew for
    /// every event costs more than the event.
    timer: Pin<Box<tokio::time::Sleep>>,
    shutdown: BoxFuture<'static, ()>,
    /// Resolves when the kind is no longer served as it was: what a client of a custom resource then sees, it must
    /// ask for anew.
    retired: BoxFuture<'static, ()>,
    ended: bool,
    /// Held while it counts among the watchers of the collection.
    counted: Option<Counted>,
}

/// One more watcher of a collection until it is dropped.
struct Counted(Arc<Collection>);

impl Counted {
    fn new(collection: &Arc<Collection>) -> Self {
        collection.watchers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(collection))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where changes come from.
enum Source {
    /// The watch cache, with all other watchers.
    Cache(Watcher<Item>),
    /// The store's history.
    Store(skiff_store::Watch),
}

impl Source {
    /// The next change; nothing for news that are no change.
    async fn next(&mut self, collection: &Collection) -> Result<Option<Arc<Change<Item>>>, Error> {
        let changes = match self {
            Self::Cache(changes) => return changes.next().await.map(Some),
            Self::Store(changes) => changes,
        };
        match changes.next().await {
            Some(Ok(Event::Change { kind, entry, previous })) => {
                Ok(collection.change(kind, entry, previous).map(Arc::new))
            }
            Some(Ok(Event::Progress(_))) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(Error::Unavailable("the store ended the watch".into())),
        }
    }
}

/// The objects at the start of a watch, sent as if they had just been added.
struct Initial {
    items: std::vec::IntoIter<Arc<Item>>,
    revision: u64,
    /// Whether the client wants to be told that this was all.
    announce: bool,
}

impl Watch {
    async fn start(&mut self, options: &ListOptions) -> ApiResult<()> {
        let version = options.version()?.filter(|version| *version > 0);
        let wants_state = options.send_initial_events == Some(true);
        let cache = self.subject.collection.cache();
        let failure = |error| self.subject.collection.failure(error);
        let after = match version {
            // The state of now, synthesized, unless the client only wants what comes.
            None if options.send_initial_events == Some(false) => cache.current().await.map_err(failure)?.revision(),
            None => {
                let snapshot = cache.current().await.map_err(failure)?;
                self.replay(snapshot, wants_state).await?
            }
            Some(version) if wants_state => {
                let snapshot = cache.at_least(version).await.map_err(failure)?;
                self.replay(snapshot, true).await?
            }
            Some(version) => {
                let current = cache.current().await.map_err(failure)?.revision();
                self.floor = version.saturating_sub(1).max(current).min(version);
                version.min(current)
            }
        };
        self.floor = if version.is_some_and(|version| version > after) { self.floor } else { 0 };
        self.delivered = after.max(self.floor);
        if self.selection.name().is_none() {
            self.counted = Some(Counted::new(&self.subject.collection));
        }
        let (kind, selection) = (Arc::clone(&self.subject.kind), Arc::clone(&self.selection));
        let filter: Option<Filter<Item>> = if selection.is_everything() || self.selects_converted() {
            None
        } else {
            let wanted = selection.wanted(&kind).into_iter().next();
            let wants = move |change: &Change<Item>| {
                selection.matches(kind.as_ref(), &change.current)
                    || change.previous.as_ref().is_some_and(|item| selection.matches(kind.as_ref(), item))
            };
            Some(Filter::new(wants, wanted))
        };
        match self.subject.collection.cache().watch_filtered(self.scope(), after, filter).await {
            Ok(changes) => self.changes = Some(Source::Cache(changes)),
            Err(Error::Compacted { .. }) => self.start_from_store(after).await,
            Err(error) => self.fail(error),
        }
        Ok(())
    }

    /// The cache remembers only what it has seen itself, the store everything since it was
    /// compacted: a client that comes back after a restart of the server misses nothing.
    async fn start_from_store(&mut self, after: u64) {
        let prefix = self.subject.collection.namespace_prefix(&self.subject.namespace);
        let end = prefix_end(&prefix);
        match self.subject.collection.store().watch(prefix, end, Some(after)).await {
            Ok(changes) => self.changes = Some(Source::Store(changes)),
            Err(error) => self.fail(error),
        }
    }

    fn scope(&self) -> Scope {
        let (collection, namespace) = (&self.subject.collection, self.subject.namespace.as_str());
        match self.selection.name().filter(|_| !self.subject.kind.facts().namespaced || !namespace.is_empty()) {
            Some(name) => Scope::key(&collection.key(namespace, name)),
            None => Scope::prefix(&collection.namespace_prefix(namespace)),
        }
    }

    /// Everything there is, as if it had just been added; gives the revision of that.
    async fn replay(&mut self, snapshot: Snapshot<Item>, announce: bool) -> ApiResult<u64> {
        let everything = Selection::default();
        let selection = if self.selects_converted() { &everything } else { &*self.selection };
        let revision = snapshot.revision();
        let items = Objects::selected(&self.subject, snapshot, selection, None).collect().await?;
        self.initial = Some(Initial { items: items.into_iter(), revision, announce });
        Ok(revision)
    }

    /// The next chunk, `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.chunk() {
                return Some(chunk);
            }
            if self.ended {
                return None;
            }
            let changes = self.changes.as_mut()?;
            tokio::select! {
                biased;
                () = &mut self.shutdown => self.end(),
                change = changes.next(&self.subject.collection) => match change {
                    Ok(Some(change)) => {
                        let (server, kind) = (Arc::clone(&self.server), Arc::clone(&self.subject.kind));
                        let taken = match converted(&server, kind.as_ref(), change).await {
                            Ok(change) => self.take(&change),
                            Err(error) => Err(error),
                        };
                        if let Err(error) = taken {
                            self.fail_with(&error);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => self.fail(error),
                },
                () = &mut self.retired => self.end(),
                () = self.timer.as_mut() => self.tick().await,
            }
        }
    }

    /// Everything that is ready, as far as it fits.
    fn chunk(&mut self) -> Option<Bytes> {
        let first = self.ready()?;
        let Some(second) = self.ready() else { return Some(first) };
        if first.len() + second.len() > CHUNK_BYTES_MAX {
            self.pending.push_front(second);
            return Some(first);
        }
        let mut together = BytesMut::with_capacity(CHUNK_BYTES_MAX);
        together.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(frame) = next {
            if together.len() + frame.len() > CHUNK_BYTES_MAX {
                self.pending.push_front(frame);
                break;
            }
            together.extend_from_slice(&frame);
            next = self.ready();
        }
        Some(together.freeze())
    }

    /// The next frame if it is known already.
    fn ready(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.pending.pop_front().or_else(|| self.initial_frame()) {
                return Some(frame);
            }
            if self.ended {
                return self.pending.pop_front();
            }
            if convert::needs_webhook(self.subject.kind.as_ref()) {
                return None;
            }
            let Some(Source::Cache(changes)) = &mut self.changes else { return None };
            let change = changes.try_next()?;
            if let Err(error) = self.take(&change) {
                self.fail_with(&error);
            }
        }
    }

    fn initial_frame(&mut self) -> Option<Bytes> {
        let initial = self.initial.as_mut()?;
        let view = self.frames.view(&self.server);
        if let Some(item) = initial.items.next() {
            return match self.frames.object(EventType::Added, &item.stored, view) {
                Ok(frame) => Some(frame),
                Err(error) => {
                    self.initial = None;
                    self.fail_with(&error);
                    None
                }
            };
        }
        let (revision, announce) = (initial.revision, initial.announce && self.bookmarks);
        self.initial = None;
        announce.then(|| self.frames.bookmark(revision, true, view))
    }

    /// Whether fields are asked for that only a conversion brings to light: then nothing can be left out before it.
    fn selects_converted(&self) -> bool {
        self.selection.asks_for_fields() && convert::needs_webhook(self.subject.kind.as_ref())
    }

    /// Brings the state at the start into the version of the path.
    async fn convert_initial(&mut self) -> ApiResult<()> {
        let kind = Arc::clone(&self.subject.kind);
        let Some(initial) = self.initial.as_ref().filter(|_| convert::needs_webhook(kind.as_ref())) else {
            return Ok(());
        };
        let stored = initial.items.as_slice().iter().map(|item| item.stored.clone()).collect();
        let server = Arc::clone(&self.server);
        let stored = convert::served(&server, kind.as_ref(), stored).await?;
        let Some(initial) = self.initial.as_mut() else { return Ok(()) };
        let items = stored
            .into_iter()
            .map(|stored| Arc::new(Item::of(stored)))
            .filter(|item| self.selection.matches(kind.as_ref(), item));
        initial.items = items.collect::<Vec<_>>().into_iter();
        Ok(())
    }

    async fn tick(&mut self) {
        let now = self.server.clock().instant();
        match &self.changes {
            Some(Source::Cache(changes)) => self.delivered = self.delivered.max(changes.progress().await),
            Some(Source::Store(changes)) => {
                if let Ok(outstanding) = changes.frontier().outstanding().await
                    && outstanding.seen <= self.delivered
                {
                    self.delivered = self.delivered.max(outstanding.current);
                }
            }
            None => {}
        }
        if now >= self.deadline {
            self.end();
            return;
        }
        self.timer.as_mut().reset(self.deadline.min(now + BOOKMARK_INTERVAL));
        self.bookmark();
    }

    fn bookmark(&mut self) {
        if self.bookmarks {
            let view = self.frames.view(&self.server);
            let chunk = self.frames.bookmark(self.delivered, false, view);
            self.pending.push_back(chunk);
        }
    }

    fn end(&mut self) {
        self.bookmark();
        self.ended = true;
    }

    fn take(&mut self, change: &Change<Item>) -> ApiResult<()> {
        if change.revision <= self.floor {
            return Ok(());
        }
        self.delivered = self.delivered.max(change.revision);
        let kind = self.subject.kind.as_ref();
        let was = change.previous.as_ref().is_some_and(|item| self.selection.matches(kind, item));
        let is = change.kind == EventKind::Put && self.selection.matches(kind, &change.current);
        let gone;
        let (event, stored) = match (was, is) {
            (false, false) => return Ok(()),
            (false, true) => (EventType::Added, &change.current.stored),
            (true, true) => (EventType::Modified, &change.current.stored),
            (true, false) => {
                // What is gone is shown as it last matched, with the revision of its going.
                let Some(last) = &change.previous else { return Ok(()) };
                gone = Stored { revision: change.revision, ..last.stored.clone() };
                (EventType::Deleted, &gone)
            }
        };
        let view = self.frames.view(&self.server);
        let frame = self.frames.shared(event, stored, view, &self.subject.collection.encoded)?;
        self.pending.push_back(frame);
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        let error = match error {
            Error::Compacted { requested, compacted } => {
                ApiError::expired(format!("too old resource version: {requested} ({compacted})"))
            }
            Error::Lagged(revision) => {
                ApiError::expired(format!("the watch fell behind at resource version {revision}"))
            }
            other => self.subject.collection.failure(other),
        };
        self.fail_with(&error);
    }

    fn fail_with(&mut self, error: &ApiError) {
        self.pending.push_back(self.frames.status(&error.to_status()));
        self.ended = true;
    }
}

/// A change in the version of the path.
async fn converted(server: &ApiServer, kind: &dyn Kind, change: Arc<Change<Item>>) -> ApiResult<Arc<Change<Item>>> {
    if !convert::needs_webhook(kind) {
        return Ok(change);
    }
    let previous = change.previous.as_ref().map(|item| item.stored.clone());
    let both = std::iter::once(change.current.stored.clone()).chain(previous).collect();
    let mut both = convert::served(server, kind, both).await?.into_iter().map(|stored| Arc::new(Item::of(stored)));
    let current = both.next().ok_or_else(|| ApiError::internal("a conversion lost its object"))?;
    Ok(Arc::new(Change {
        kind: change.kind,
        key: change.key.clone(),
        revision: change.revision,
        current,
        previous: both.next(),
    }))
}
