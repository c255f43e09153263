//! `watch`: initial events, then changes as they happen, in the client's form.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode, header};
use skiff_object::Tree;
use skiff_store::{Error, Event, EventKind, Range, Watch};
use tokio::time::Instant;

use super::{Subject, list};
use crate::body::{Body, BodyError};
use crate::chain::Call;
use crate::errors::{ApiError, ApiResult};
use crate::frame::{EventType, Frames};
use crate::request::options::ListOptions;
use crate::selection::Selection;
use crate::server::ApiServer;
use crate::storage::{Collection, Stored, prefix_end};

/// How often an idle watcher hears how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch that does not say ends at random between this and twice this, so that clients do not
/// come back all at once (upstream's `--min-request-timeout`).
const TIMEOUT_SECONDS_MIN: u64 = 1_800;

/// Watches objects.
pub async fn watch(server: &Arc<ApiServer>, call: &Call, subject: Subject) -> ApiResult<Response<Body>> {
    let form = subject.form(call)?;
    let mut options = ListOptions::parse(&call.query)?;
    options.watch = true;
    options.validate()?;
    let selection = Selection::parse(subject.kind.as_ref(), &options.label_selector, &options.field_selector)?;
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => Duration::from_secs(TIMEOUT_SECONDS_MIN + server.random().below(TIMEOUT_SECONDS_MIN)),
    };
    let content_type = form.stream_content_type();
    let now = server.clock().instant();
    let mut watcher = Watcher {
        frames: Frames::new(Arc::clone(&subject.kind), form),
        subject,
        selection,
        bookmarks: options.allow_watch_bookmarks,
        pending: VecDeque::new(),
        changes: None,
        delivered: 0,
        floor: 0,
        deadline: now + timeout,
        next_bookmark: now + BOOKMARK_INTERVAL,
        server: Arc::clone(server),
        ended: false,
    };
    watcher.start(&options).await?;
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
struct Watcher {
    server: Arc<ApiServer>,
    subject: Subject,
    selection: Selection,
    frames: Frames,
    bookmarks: bool,
    /// Chunks that are ready.
    pending: VecDeque<Bytes>,
    changes: Option<Watch>,
    /// The revision up to which the client knows everything.
    delivered: u64,
    /// Changes up to here are not wanted: the client asked to start in the future.
    floor: u64,
    deadline: Instant,
    next_bookmark: Instant,
    ended: bool,
}

impl Watcher {
    async fn start(&mut self, options: &ListOptions) -> ApiResult<()> {
        let version = options.version()?.filter(|version| *version > 0);
        let initial = options.send_initial_events == Some(true);
        let current = self.server.config.store.revision();
        let after = match version {
            // The state of now, synthesized, unless the client only wants what comes.
            None if options.send_initial_events == Some(false) => current,
            None => self.replay_state().await?,
            Some(version) if initial => {
                if version > current {
                    return Err(ApiError::future_version(version, current));
                }
                self.replay_state().await?
            }
            Some(version) if version > current => {
                self.floor = version;
                current
            }
            Some(version) => version,
        };
        self.delivered = after.max(self.floor);
        if initial && self.bookmarks {
            let bookmark = self.frames.bookmark(after, true)?;
            self.pending.push_back(bookmark);
        }
        let start = self.subject.collection.namespace_prefix(&self.subject.namespace);
        let end = prefix_end(&start);
        match self.subject.collection.store().watch(start, end, Some(after)).await {
            Ok(changes) => self.changes = Some(changes),
            Err(error) => self.fail(error),
        }
        Ok(())
    }

    /// Everything there is, as if it had just been added; gives the revision of that.
    async fn replay_state(&mut self) -> ApiResult<u64> {
        let start = self.subject.collection.namespace_prefix(&self.subject.namespace);
        let range = Range { end: prefix_end(&start), start, limit: 0, revision: None };
        let found =
            self.subject.collection.range(range).await.map_err(|error| self.subject.collection.failure(error))?;
        for entry in found.entries {
            let stored = self.subject.collection.stored(entry);
            if list::matches(&self.subject, &self.selection, &stored)? {
                let frame = self.frames.object(EventType::Added, &stored)?;
                self.pending.push_back(frame);
            }
        }
        Ok(found.revision)
    }

    /// The next chunk, `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.pending.pop_front() {
                return Some(chunk);
            }
            if self.ended {
                return None;
            }
            let changes = self.changes.as_mut()?;
            let wake = self.deadline.min(self.next_bookmark);
            let shutdown = self.server.config.tasks.shutdown();
            tokio::select! {
                biased;
                () = shutdown.wait() => self.end(),
                change = changes.next() => match change {
                    Some(Ok(event)) => {
                        if let Err(error) = self.take(event) {
                            self.fail_with(&error);
                        }
                    }
                    Some(Err(error)) => self.fail(error),
                    None => self.end(),
                },
                () = tokio::time::sleep_until(wake) => self.tick().await,
            }
        }
    }

    async fn tick(&mut self) {
        let now = self.server.clock().instant();
        if let Some(frontier) = self.changes.as_ref().map(Watch::frontier)
            && let Ok(outstanding) = frontier.outstanding().await
            && outstanding.seen <= self.delivered
        {
            self.delivered = self.delivered.max(outstanding.current);
        }
        if now >= self.deadline {
            self.end();
            return;
        }
        self.next_bookmark = now + BOOKMARK_INTERVAL;
        self.bookmark();
    }

    fn bookmark(&mut self) {
        if self.bookmarks
            && let Ok(chunk) = self.frames.bookmark(self.delivered, false)
        {
            self.pending.push_back(chunk);
        }
    }

    fn end(&mut self) {
        self.bookmark();
        self.ended = true;
    }

    fn take(&mut self, event: Event) -> ApiResult<()> {
        let (kind, entry, previous) = match event {
            Event::Progress(revision) => {
                self.delivered = self.delivered.max(revision);
                return Ok(());
            }
            Event::Change { kind, entry, previous } => (kind, entry, previous),
        };
        let revision = entry.mod_revision;
        if revision <= self.floor {
            return Ok(());
        }
        self.delivered = self.delivered.max(revision);
        let collection = &self.subject.collection;
        let created = kind == EventKind::Put && entry.create_revision == entry.mod_revision;
        let before = previous.filter(|_| !created).map(|entry| collection.stored(entry));
        let was = match &before {
            Some(stored) => list::matches(&self.subject, &self.selection, stored)?,
            None => !created && kind == EventKind::Put && self.selection.is_everything(),
        };
        let now = Collection::stored(collection, entry);
        let is = kind == EventKind::Put && list::matches(&self.subject, &self.selection, &now)?;
        let frame = match (was, is) {
            (false, false) => return Ok(()),
            (false, true) => self.frames.object(EventType::Added, &now)?,
            (true, true) => self.frames.object(EventType::Modified, &now)?,
            (true, false) => {
                // What is gone is shown as it last matched, with the revision of its going.
                let Some(last) = before else { return Ok(()) };
                self.frames.object(EventType::Deleted, &Stored { revision, ..last })?
            }
        };
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
        let status: Tree = error.to_status();
        if let Ok(frame) = self.frames.status(&status) {
            self.pending.push_back(frame);
        }
        self.ended = true;
    }
}
