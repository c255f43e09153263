//! Watches: one task for each stream, and one for each watch on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use skiff_base::{Shutdown, Tasks};
use skiff_store::{Error, Event, EventKind, Frontier, Range, Revision};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::kv::Span;
use super::{Served, key_value};
use crate::convert::{signed, unsigned};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::mvccpb;

/// Answers that wait for a client; behind them a watch stands still until the store cuts it, and
/// then goes on where it was.
const ANSWERS_MAX: usize = 128;

/// Watches on one stream: kube-apiserver has one for each resource.
const WATCHES_MAX: usize = 10_000;

/// So many changes go into one answer.
const BATCH_EVENTS: usize = 512;

/// An answer over this is sent in fragments to who takes them; etcd's request size and overhead.
const FRAGMENT_BYTES: usize = 2 << 20;

/// How often an idle watch that asked for it is told how far it is; etcd's default.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// How long to wait before a watch that the store cut is begun again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

type Answers = mpsc::Sender<Result<pb::WatchResponse, Status>>;

/// The service: its tasks outlive the call that begins them.
pub(super) struct Watches(pub(super) Arc<Served>);

#[async_trait]
impl Watch for Watches {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let tasks = self.0.facade.tasks.group("etcd watch");
        let connection = Connection {
            served: Arc::clone(&self.0),
            tasks: tasks.clone(),
            answers,
            watches: BTreeMap::new(),
            next: 0,
            is_telling: Arc::default(),
        };
        tasks.spawn("requests", connection.run(request.into_inner()));
        // When the client goes, the stream is dropped and everything behind it ends.
        let guard = Ended(tasks.shutdown().clone());
        let stream = ReceiverStream::new(receiver).map(move |answer| {
            let _guard = &guard;
            answer
        });
        Ok(Response::new(stream.boxed()))
    }
}

/// Ends the tasks of a stream with the stream.
struct Ended(Shutdown);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.signal();
    }
}

/// One client's stream.
struct Connection {
    served: Arc<Served>,
    tasks: Tasks,
    answers: Answers,
    watches: BTreeMap<i64, Running>,
    /// The next identity for a watch without one.
    next: i64,
    /// Whether an answer about progress is on its way.
    is_telling: Arc<AtomicBool>,
}

/// A watch as the stream's task sees it.
struct Running {
    shutdown: Shutdown,
    state: watch::Receiver<State>,
}

/// How far a watch is.
#[derive(Clone, Default)]
struct State {
    /// Everything up to here is among the answers.
    sent: Revision,
    frontier: Option<Arc<dyn Frontier>>,
    is_over: bool,
}

impl Connection {
    async fn run(mut self, mut requests: Streaming<pb::WatchRequest>) {
        loop {
            // Also at the end of the requests: a client may be done asking and go on reading.
            let Ok(Some(request)) = requests.message().await else { return };
            let is_open = match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
                Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => {
                    self.tell_progress();
                    true
                }
                None => true,
            };
            if !is_open {
                return;
            }
        }
    }

    async fn answer(&self, answer: pb::WatchResponse) -> bool {
        self.answers.send(Ok(answer)).await.is_ok()
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> bool {
        self.watches.retain(|_, running| !running.state.borrow().is_over);
        let current = self.served.store().revision();
        let refused = |watch_id: i64, why: &str| pb::WatchResponse {
            header: self.served.header(current),
            watch_id,
            created: true,
            canceled: true,
            cancel_reason: why.to_owned(),
            ..pb::WatchResponse::default()
        };
        if self.watches.len() >= WATCHES_MAX {
            return self.answer(refused(-1, "etcdserver: too many watches on one stream")).await;
        }
        // As in etcd, no key means the first one there can be.
        let key = if request.key.is_empty() { bytes::Bytes::from_static(b"\0") } else { request.key.clone() };
        let Ok(span) = Span::new(&key, &request.range_end) else {
            return self.answer(refused(-1, "etcdserver: key is not provided")).await;
        };
        let id = match request.watch_id {
            0 => {
                while self.watches.contains_key(&self.next) {
                    self.next += 1;
                }
                self.next
            }
            taken if self.watches.contains_key(&taken) => {
                return self.answer(refused(taken, "mvcc: duplicate watch ID provided on the WatchStream")).await;
            }
            id => id,
        };
        let (sender, state) = watch::channel(State::default());
        let tasks = self.tasks.group("watch");
        let follower = Follower {
            served: Arc::clone(&self.served),
            answers: self.answers.clone(),
            id,
            span,
            first: unsigned(request.start_revision),
            is_put_wanted: !request.filters.contains(&(FilterType::Noput as i32)),
            is_delete_wanted: !request.filters.contains(&(FilterType::Nodelete as i32)),
            is_previous_wanted: request.prev_kv,
            may_fragment: request.fragment,
            tells_progress: request.progress_notify,
            state: sender,
        };
        self.watches.insert(id, Running { shutdown: tasks.shutdown().clone(), state });
        tasks.spawn("follow", follower.run());
        true
    }

    async fn cancel(&mut self, id: i64) -> bool {
        let Some(running) = self.watches.remove(&id) else { return true };
        running.shutdown.signal();
        self.answer(pb::WatchResponse {
            header: self.served.header(self.served.store().revision()),
            watch_id: id,
            canceled: true,
            ..pb::WatchResponse::default()
        })
        .await
    }

    /// Tells how far all watches of the stream are. While that is being found out, further
    /// questions have the same answer.
    fn tell_progress(&self) {
        if self.is_telling.swap(true, Ordering::AcqRel) {
            return;
        }
        let states: Vec<_> = self.watches.values().map(|running| running.state.clone()).collect();
        let (served, answers) = (Arc::clone(&self.served), self.answers.clone());
        let is_telling = Arc::clone(&self.is_telling);
        self.tasks.spawn("progress", async move {
            let mut revision = served.store().revision();
            for mut state in states {
                match caught_up(&mut state).await {
                    Some(current) => revision = revision.min(current),
                    None => continue,
                }
            }
            is_telling.store(false, Ordering::Release);
            let header = served.header(revision);
            // Nobody reads any more: nobody to tell.
            let _ = answers.send(Ok(pb::WatchResponse { header, watch_id: -1, ..Default::default() })).await;
        });
    }
}

/// Waits until a watch has answered with everything there was when it was asked, and gives the
/// revision it is at then; `None` for a watch that has ended.
async fn caught_up(state: &mut watch::Receiver<State>) -> Option<Revision> {
    loop {
        let frontier =
            state.wait_for(|state| state.frontier.is_some() || state.is_over).await.ok()?.frontier.clone()?;
        // A frontier that fails belongs to a watch that is begun again.
        if let Ok(outstanding) = frontier.outstanding().await {
            let reached = state.wait_for(|state| state.sent >= outstanding.seen || state.is_over).await.ok()?;
            return (!reached.is_over).then_some(outstanding.current);
        }
        state.changed().await.ok()?;
    }
}

/// The task of one watch.
struct Follower {
    served: Arc<Served>,
    answers: Answers,
    id: i64,
    span: Span,
    /// The first revision that is wanted; 0 for the next.
    first: Revision,
    is_put_wanted: bool,
    is_delete_wanted: bool,
    is_previous_wanted: bool,
    may_fragment: bool,
    tells_progress: bool,
    state: watch::Sender<State>,
}

impl Follower {
    async fn run(self) {
        let _ = self.follow().await;
        self.state.send_modify(|state| state.is_over = true);
    }

    /// `None` when nobody reads any more, or everything is said.
    async fn follow(&self) -> Option<()> {
        let (start, end) = match &self.span.end {
            Some(end) => self.served.facade.keys.range_to_stored(&self.span.start, end),
            None => {
                let key = self.served.facade.keys.to_stored(&self.span.start)?;
                let end = bytes::Bytes::from([&key[..], b"\0"].concat());
                (key, end)
            }
        };
        let current = self.served.store().revision();
        // Revision 1 has no changes, and what has not happened yet is waited for.
        let mut after = if self.first == 0 { current } else { (self.first - 1).clamp(1, current) };
        let created = pb::WatchResponse { created: true, ..self.blank(current) };
        self.answers.send(Ok(created)).await.ok()?;
        loop {
            match self.served.store().watch(start.clone(), end.clone(), Some(after)).await {
                Ok(changes) => after = self.forward(changes, after).await?,
                // etcd still tells what was put at the very revision to which it was compacted.
                Err(Error::Compacted { compacted, .. }) if after + 1 == compacted => {
                    after = self.last_put(start.clone(), end.clone(), compacted).await?;
                }
                Err(Error::Compacted { compacted, .. }) => {
                    let reason = "etcdserver: mvcc: required revision has been compacted".to_owned();
                    let over = pb::WatchResponse {
                        canceled: true,
                        compact_revision: signed(compacted),
                        cancel_reason: reason,
                        ..self.blank(self.served.store().revision())
                    };
                    return self.answers.send(Ok(over)).await.ok();
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot watch the store, will try again");
                    self.served.facade.clock.sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Passes changes on until the store cuts the watch; how far it was then.
    async fn forward(&self, changes: skiff_store::Watch, mut sent: Revision) -> Option<Revision> {
        let frontier = changes.frontier();
        self.state.send_modify(|state| {
            state.sent = state.sent.max(sent);
            state.frontier = Some(frontier);
        });
        let mut batches = changes.ready_chunks(BATCH_EVENTS);
        loop {
            let batch = tokio::select! {
                biased;
                batch = batches.next() => batch,
                () = self.served.facade.clock.sleep(PROGRESS_INTERVAL), if self.tells_progress => {
                    // What it has sent is what it knows, and it is said in order.
                    self.answers.send(Ok(self.blank(sent))).await.ok()?;
                    continue;
                }
            };
            let Some(batch) = batch else { return Some(sent) };
            let mut events = Vec::with_capacity(batch.len());
            let mut is_cut = false;
            for event in batch {
                match event {
                    Ok(Event::Progress(revision)) => sent = sent.max(revision),
                    Ok(Event::Change { kind, entry, previous }) => {
                        sent = entry.mod_revision;
                        events.extend(self.event(kind, entry, previous));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the store cut a watch, taking it up again");
                        is_cut = true;
                    }
                }
            }
            self.send(events, sent).await?;
            self.state.send_modify(|state| {
                state.sent = sent;
                if is_cut {
                    state.frontier = None;
                }
            });
            if is_cut {
                return Some(sent);
            }
        }
    }

    /// The put of the revision `compacted` itself, if the range holds it.
    async fn last_put(&self, start: bytes::Bytes, end: bytes::Bytes, compacted: Revision) -> Option<Revision> {
        let range = Range { start, end, limit: 0, revision: Some(compacted) };
        let found = self.served.store().range(range).await.ok()?;
        let last = found.entries.into_iter().find(|entry| entry.mod_revision == compacted);
        let event = last.and_then(|entry| self.event(EventKind::Put, entry, None));
        self.send(event.into_iter().collect(), compacted).await?;
        Some(compacted)
    }

    fn event(
        &self,
        kind: EventKind,
        entry: skiff_store::Entry,
        previous: Option<skiff_store::Entry>,
    ) -> Option<mvccpb::Event> {
        let (r#type, is_wanted) = match kind {
            EventKind::Put => (mvccpb::event::EventType::Put, self.is_put_wanted),
            EventKind::Delete => (mvccpb::event::EventType::Delete, self.is_delete_wanted),
        };
        let key = self.served.facade.keys.to_etcd(&entry.key)?;
        let is_wanted = is_wanted && entry.mod_revision >= self.first && self.span.contains(&key);
        let previous = previous.filter(|_| self.is_previous_wanted);
        is_wanted.then(|| mvccpb::Event {
            r#type: r#type as i32,
            prev_kv: previous.map(|previous| key_value(key.clone(), previous)),
            kv: Some(key_value(key, entry)),
        })
    }

    fn blank(&self, revision: Revision) -> pb::WatchResponse {
        pb::WatchResponse { header: self.served.header(revision), watch_id: self.id, ..pb::WatchResponse::default() }
    }

    /// Sends events, in pieces if they are large and the client takes pieces.
    async fn send(&self, events: Vec<mvccpb::Event>, revision: Revision) -> Option<()> {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let mut answer = self.blank(revision);
            let mut bytes = 0;
            while let Some(event) = events.next_if(|_| !self.may_fragment || bytes < FRAGMENT_BYTES) {
                bytes += event.encoded_len();
                answer.events.push(event);
            }
            answer.fragment = events.peek().is_some();
            self.answers.send(Ok(answer)).await.ok()?;
        }
        Some(())
    }
}
