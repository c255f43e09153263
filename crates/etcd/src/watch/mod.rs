//! Watching: one stream to one member, taken up again on another when it breaks.
//!
//! A task reads the stream and hands whole revisions to a bounded queue; a reader that falls
//! behind is cut and never holds back etcd. Where a watch stands is the last revision that was
//! handed over, so nothing is lost or told twice when the stream is made anew.
//!
//! How far a watch has come between its events matters to caches. Sound servers say so on demand;
//! older ones may say it too early, so with them it is concluded from what the range holds (see
//! [`frontier`]).

mod frontier;
mod session;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use skiff_base::Tasks;
use skiff_store::{Error, Event, EventKind, Revision, WATCH_BUFFER_EVENTS, Watch};
use tokio::sync::{Notify, mpsc, watch};
use tonic::Status;

use self::session::Session;
use crate::connect::Backoff;
use crate::convert::{self, COMPACTED, signed, unsigned};
use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb;
use crate::store::Inner;

pub(crate) use self::session::compacted;

/// A server that still replays the past does not answer a question for progress, so it is asked
/// again after this time, as kube-apiserver does.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How often a watch is begun before its caller is told that it cannot.
const ATTEMPTS_MAX: usize = 5;

/// A range of etcd keys in etcd's notation.
#[derive(Clone, Debug)]
struct Keyspace {
    key: Bytes,
    range_end: Bytes,
}

/// What the task and the two ends of a watch share.
#[derive(Debug)]
struct Shared {
    inner: Arc<Inner>,
    keyspace: Keyspace,
    /// Changes that wait for the reader.
    pending: AtomicUsize,
    /// What was handed over.
    delivered: watch::Sender<Delivered>,
    /// Somebody wants to know that everything up to here was delivered.
    want: AtomicU64,
    asked: Notify,
    /// Whether the member in use can be asked for progress.
    is_sound: AtomicBool,
    /// Why the watch ends, once the queue is read out.
    end: Mutex<Option<Error>>,
    is_cut: AtomicBool,
}

/// How far a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Delivered {
    /// Everything up to here.
    revision: Revision,
    /// How many keys the range holds then.
    count: i64,
}

/// Begins a watch of stored keys after `after`.
pub(crate) async fn open(
    inner: &Arc<Inner>,
    tasks: &Tasks,
    start: Bytes,
    end: Bytes,
    after: Option<Revision>,
) -> Result<Watch, Error> {
    let (key, range_end) = inner.keys.range_to_etcd(&start, &end)?;
    let or_all = |key: Bytes| if key.is_empty() { Bytes::from_static(b"\0") } else { key };
    let keyspace = Keyspace { key: or_all(key), range_end: or_all(range_end) };
    let mut current = inner.revision();
    if after.is_none_or(|after| after >= current) {
        current = inner.current().await?;
    }
    let after = after.unwrap_or(current);
    if after > current {
        return Err(Error::Future { requested: after, current });
    }
    if after == 0 {
        return Err(inner.compacted(0).await);
    }
    let session = begin(inner, &keyspace, after, after < current).await?;
    let count = count_at(inner, &keyspace, after).await?;
    let shared = Arc::new(Shared {
        inner: Arc::clone(inner),
        keyspace,
        pending: AtomicUsize::new(0),
        delivered: watch::Sender::new(Delivered { revision: after, count }),
        want: AtomicU64::new(session.created),
        asked: Notify::new(),
        is_sound: AtomicBool::new(session.is_sound),
        end: Mutex::new(None),
        is_cut: AtomicBool::new(false),
    });
    let (queue, receiver) = mpsc::unbounded_channel();
    let follower = Follower { shared: Arc::clone(&shared), queue, replayed: Some(session.created), held: Vec::new() };
    tasks.spawn("watch", follower.run(session));
    let feed = Feed { receiver, batch: VecDeque::new(), shared: Arc::clone(&shared) };
    Ok(Watch::new(Box::pin(feed), shared))
}

/// The first session of a watch. etcd begins to watch at once when the revision to begin with is
/// in the future, and within 100 ms when there is a past to replay.
async fn begin(inner: &Inner, keyspace: &Keyspace, after: Revision, mut is_past: bool) -> Result<Session, Error> {
    let mut backoff = Backoff::default();
    let mut attempts = 0;
    loop {
        attempts += 1;
        match Session::connect(inner, keyspace, first_revision(after, is_past)).await {
            // A change came between: what was asked for is no longer the future.
            Ok(session) if !is_past && session.created > after => is_past = true,
            Ok(session) => return Ok(session),
            Err(status) if attempts >= ATTEMPTS_MAX => return Err(convert::error("watch", &status)),
            Err(_) => inner.clock.sleep(backoff.take()).await,
        }
    }
}

/// Where to begin so that a compaction after `after` is noticed: etcd refuses only what lies before
/// its compaction, but a delete at that very revision is gone too. What was delivered already is
/// left out later.
fn first_revision(after: Revision, is_past: bool) -> Revision {
    if is_past { after } else { after + 1 }
}

/// How many keys there were at `revision`; fails when it is compacted.
async fn count_at(inner: &Inner, keyspace: &Keyspace, revision: Revision) -> Result<i64, Error> {
    let request = pb::RangeRequest {
        key: keyspace.key.clone(),
        range_end: keyspace.range_end.clone(),
        count_only: true,
        revision: signed(revision),
        ..pb::RangeRequest::default()
    };
    match inner.range(&request).await {
        Ok(response) => Ok(response.count),
        Err(status) if status.message() == COMPACTED => Err(inner.compacted(revision).await),
        Err(status) => Err(convert::error("watch", &status)),
    }
}

/// The task behind a watch.
struct Follower {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Vec<Event>>,
    /// The revision at which the replay of the past ends, until the reader was told.
    replayed: Option<Revision>,
    /// Changes of a revision whose rest comes with the next fragment.
    held: Vec<mvccpb::Event>,
}

/// Why a session ends.
enum End {
    /// Nobody reads any more.
    Gone,
    Failed(Error),
    Lost(Status),
}

impl Follower {
    async fn run(mut self, first: Session) {
        let mut session = first;
        let mut backoff = Backoff::default();
        loop {
            match self.read(&mut session).await {
                End::Gone => return,
                End::Failed(error) => return self.finish(error),
                End::Lost(status) => {
                    tracing::debug!(member = session.name(), %status, "lost a watch, taking it up again");
                    session.give_up(&self.shared.inner);
                }
            }
            self.held.clear();
            let before = self.revision();
            session = loop {
                tokio::select! {
                    biased;
                    () = self.queue.closed() => return,
                    () = self.shared.inner.clock.sleep(backoff.take()) => {}
                }
                match Session::connect(&self.shared.inner, &self.shared.keyspace, before).await {
                    Ok(session) => break session,
                    Err(status) => tracing::debug!(%status, "cannot take up a watch yet"),
                }
            };
            backoff = Backoff::default();
            self.shared.is_sound.store(session.is_sound, Ordering::Release);
            if !session.is_sound && self.shared.want.load(Ordering::Acquire) > before {
                // Somebody waits for progress that this member cannot tell: only a list can.
                let compacted = self.shared.inner.revision();
                return self.finish(Error::Compacted { requested: before, compacted });
            }
        }
    }

    async fn read(&mut self, session: &mut Session) -> End {
        if let Err(end) = self.tell_replayed() {
            return end;
        }
        let mut is_due = true;
        loop {
            let is_asked = session.is_sound && self.shared.want.load(Ordering::Acquire) > self.revision();
            if is_asked && std::mem::take(&mut is_due) {
                session.ask_progress();
            }
            tokio::select! {
                biased;
                () = self.queue.closed() => return End::Gone,
                answer = session.next() => match answer {
                    Ok(answer) => if let Err(end) = self.take(answer) { return end },
                    Err(status) => return End::Lost(status),
                },
                () = self.shared.asked.notified() => is_due = true,
                () = self.shared.inner.clock.sleep(PROGRESS_INTERVAL), if is_asked => is_due = true,
            }
        }
    }

    fn revision(&self) -> Revision {
        self.shared.delivered.borrow().revision
    }

    fn take(&mut self, answer: pb::WatchResponse) -> Result<(), End> {
        let revision = self.shared.inner.saw(convert::revision_of(answer.header.as_ref()));
        if answer.compact_revision > 0 {
            let (requested, compacted) = (self.revision(), unsigned(answer.compact_revision));
            return Err(End::Failed(Error::Compacted { requested, compacted }));
        }
        if answer.canceled {
            return Err(End::Lost(Status::unavailable(answer.cancel_reason)));
        }
        if answer.events.is_empty() && !answer.fragment && self.held.is_empty() {
            return self.progress(revision);
        }
        let mut events = std::mem::take(&mut self.held);
        events.extend(answer.events);
        if answer.fragment {
            let last = events.last().map(revision_of);
            let complete = events.iter().take_while(|event| Some(revision_of(event)) != last).count();
            self.held = events.split_off(complete);
        }
        self.deliver(events)?;
        self.tell_replayed()
    }

    /// Everything up to `revision` is delivered.
    fn progress(&mut self, revision: Revision) -> Result<(), End> {
        if revision > self.revision() {
            self.shared.delivered.send_modify(|delivered| delivered.revision = revision);
            self.replayed = None;
            return self.push(vec![Event::Progress(revision)]);
        }
        self.tell_replayed()
    }

    /// Tells the reader once that it knows the past.
    fn tell_replayed(&mut self) -> Result<(), End> {
        let revision = self.revision();
        if self.replayed.is_some_and(|until| revision >= until) {
            self.replayed = None;
            return self.push(vec![Event::Progress(revision)]);
        }
        Ok(())
    }

    /// Hands over whole revisions, without those that were handed over.
    fn deliver(&mut self, events: Vec<mvccpb::Event>) -> Result<(), End> {
        let before = self.revision();
        let mut events = events.into_iter().filter(|event| revision_of(event) > before).peekable();
        while let Some(first) = events.next() {
            let revision = revision_of(&first);
            let mut group = vec![first];
            while let Some(event) = events.next_if(|event| revision_of(event) == revision) {
                group.push(event);
            }
            let delta: i64 = group.iter().map(count_change).sum();
            let changes: Vec<Event> = group.into_iter().filter_map(|event| self.change(event)).collect();
            // A revision of more changes than there is room for passes when nothing else waits.
            let pending = self.shared.pending.load(Ordering::Acquire);
            if pending > 0 && pending + changes.len() > WATCH_BUFFER_EVENTS {
                return Err(End::Failed(Error::Lagged(revision)));
            }
            self.shared.pending.fetch_add(changes.len(), Ordering::AcqRel);
            self.push(changes)?;
            self.shared.delivered.send_modify(|delivered| {
                *delivered = Delivered { revision, count: delivered.count + delta };
            });
        }
        Ok(())
    }

    fn change(&self, event: mvccpb::Event) -> Option<Event> {
        let kind = match event.r#type() {
            mvccpb::event::EventType::Put => EventKind::Put,
            mvccpb::event::EventType::Delete => EventKind::Delete,
        };
        let kv = event.kv?;
        let key = self.shared.inner.keys.to_stored(&kv.key)?;
        let previous = event.prev_kv.map(|kv| convert::entry(key.clone(), kv));
        Some(Event::Change { kind, entry: convert::entry(key, kv), previous })
    }

    fn push(&self, events: Vec<Event>) -> Result<(), End> {
        self.queue.send(events).map_err(|_| End::Gone)
    }

    fn finish(self, error: Error) {
        *self.shared.end.lock() = Some(error);
        self.shared.is_cut.store(true, Ordering::Release);
        // Who waits for progress learns that there will be none.
        self.shared.delivered.send_modify(|_| {});
    }
}

fn revision_of(event: &mvccpb::Event) -> Revision {
    event.kv.as_ref().map_or(0, |kv| unsigned(kv.mod_revision))
}

/// What an event does to the number of keys.
fn count_change(event: &mvccpb::Event) -> i64 {
    match (event.r#type(), &event.kv) {
        (mvccpb::event::EventType::Delete, _) => -1,
        (_, Some(kv)) if kv.create_revision == kv.mod_revision => 1,
        _ => 0,
    }
}

/// The reader's end.
struct Feed {
    receiver: mpsc::UnboundedReceiver<Vec<Event>>,
    batch: VecDeque<Event>,
    shared: Arc<Shared>,
}

impl Stream for Feed {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.batch.pop_front() {
                if matches!(event, Event::Change { .. }) {
                    self.shared.pending.fetch_sub(1, Ordering::AcqRel);
                }
                return Poll::Ready(Some(Ok(event)));
            }
            match self.receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(batch)) => self.batch = batch.into(),
                Poll::Ready(None) => return Poll::Ready(self.shared.end.lock().take().map(Err)),
            }
        }
    }
}
