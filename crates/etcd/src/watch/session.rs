//! One watch stream to one member.

use std::time::Duration;

use skiff_store::{Error, REVISION_FIRST, Revision};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::Keyspace;
use crate::connect::Chosen;
use crate::convert::{self, COMPACTED, signed, unsigned};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::watch_client::WatchClient;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::store::Inner;

/// How long a member may take to begin a watch, or to say that its revision is compacted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest answer: changes of one revision come in fragments of about a request's size, so
/// one is at most that and what etcd adds.
const RECEIVE_BYTES_MAX: usize = 64 << 20;

/// Requests that may wait on a stream: one to begin, and questions for progress.
const REQUESTS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Session {
    member: Chosen,
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    /// Whether it can be asked for progress.
    pub(super) is_sound: bool,
    /// The member's revision when the watch began.
    pub(super) created: Revision,
}

impl Session {
    /// Begins a watch that starts with the changes of `first`.
    pub(super) async fn connect(inner: &Inner, keyspace: &Keyspace, first: Revision) -> Result<Self, Status> {
        let member = inner.members.choose();
        let made = tokio::time::timeout(ANSWER_TIMEOUT, Self::begin(inner, member.clone(), keyspace, first)).await;
        let made = made.unwrap_or_else(|_| Err(Status::deadline_exceeded("the watch was not begun in time")));
        if made.is_err() {
            inner.members.give_up(&member);
        }
        made
    }

    async fn begin(inner: &Inner, member: Chosen, keyspace: &Keyspace, first: Revision) -> Result<Self, Status> {
        let is_sound = inner.members.tells_progress(&member).await;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let create = pb::WatchCreateRequest {
            key: keyspace.key.clone(),
            range_end: keyspace.range_end.clone(),
            start_revision: signed(first),
            progress_notify: true,
            prev_kv: true,
            fragment: true,
            ..pb::WatchCreateRequest::default()
        };
        // There is room for it.
        let _ = requests.try_send(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let mut request = Request::new(ReceiverStream::new(queue));
        // A member that is cut off from its leader ends the watch instead of being silent.
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let mut client = WatchClient::new(member.channel.clone()).max_decoding_message_size(RECEIVE_BYTES_MAX);
        let mut answers = client.watch(request).await?.into_inner();
        let answer = answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended at once"))?;
        if answer.canceled || !answer.created {
            return Err(Status::unavailable(format!("the watch was refused: {}", answer.cancel_reason)));
        }
        let created = inner.saw(convert::revision_of(answer.header.as_ref()));
        Ok(Self { member, requests, answers, is_sound, created })
    }

    pub(super) fn name(&self) -> &str {
        &self.member.name
    }

    /// The next answer.
    pub(super) async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        self.answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
    }

    /// Asks how far the watch is. The answer comes among the others.
    pub(super) fn ask_progress(&self) {
        let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        // A full queue holds such a question already.
        let _ = self.requests.try_send(pb::WatchRequest { request_union: Some(request) });
    }

    /// Others should go on with another member.
    pub(super) fn give_up(&self, inner: &Inner) {
        inner.members.give_up(&self.member);
    }
}

/// The revision to which the history is compacted: a watch from the beginning is told.
pub(crate) async fn compacted(inner: &Inner) -> Result<Revision, Error> {
    let probe = Keyspace { key: "\0skiff".into(), range_end: bytes::Bytes::new() };
    let failed = |status: Status| convert::error("find the compacted revision", &status);
    let read =
        pb::RangeRequest { key: probe.key.clone(), revision: signed(REVISION_FIRST), ..pb::RangeRequest::default() };
    match inner.range(&read).await {
        Ok(_) => return Ok(REVISION_FIRST),
        Err(status) if status.message() != COMPACTED => return Err(failed(status)),
        Err(_) => {}
    }
    let mut session = Session::connect(inner, &probe, REVISION_FIRST).await.map_err(failed)?;
    loop {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, session.next()).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))).map_err(failed)?;
        if answer.compact_revision > 0 {
            return Ok(unsigned(answer.compact_revision));
        }
    }
}
