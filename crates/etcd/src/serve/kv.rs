//! Reading and writing keys.

use async_trait::async_trait;
use bytes::Bytes;
use skiff_store::{Range, Revision};
use tonic::{Request, Response, Status};

use super::{Served, key_value, status};
use crate::convert::unsigned;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::mvccpb::KeyValue;

/// A range in etcd's notation.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) start: Bytes,
    /// `None` for the one key; empty for no upper bound.
    pub(super) end: Option<Bytes>,
}

impl Span {
    pub(super) fn new(key: &Bytes, range_end: &Bytes) -> Result<Self, Status> {
        if key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let end = match &range_end[..] {
            [] => None,
            [0] => Some(Bytes::new()),
            _ => Some(range_end.clone()),
        };
        Ok(Self { start: key.clone(), end })
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            None => *key == self.start[..],
            Some(end) => *key >= self.start[..] && (end.is_empty() || *key < end[..]),
        }
    }
}

impl Served {
    /// What a span holds at `revision`, in the order of etcd's keys, and the store's revision when
    /// it was read (at least).
    pub(super) async fn read(
        &self,
        span: &Span,
        revision: Option<Revision>,
    ) -> Result<(Vec<KeyValue>, Revision), Status> {
        let keys = &self.facade.keys;
        let Some(end) = &span.end else {
            let Some(stored) = keys.to_stored(&span.start) else { return Ok((Vec::new(), self.store().revision())) };
            let found = self.store().get(&stored, revision).await.map_err(status)?;
            let kvs = found.entry.map(|entry| key_value(span.start.clone(), entry)).into_iter().collect();
            return Ok((kvs, found.revision));
        };
        let (start, end) = keys.range_to_stored(&span.start, end);
        let range = Range { start, end, limit: 0, revision };
        let found = self.store().range(range).await.map_err(status)?;
        let mut kvs: Vec<KeyValue> = found
            .entries
            .into_iter()
            .filter_map(|entry| Some((keys.to_etcd(&entry.key)?, entry)))
            .filter(|(key, _)| span.contains(key))
            .map(|(key, entry)| key_value(key, entry))
            .collect();
        kvs.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok((kvs, if revision.is_none() { found.revision } else { self.store().revision() }))
    }
}

/// The answer to `request` from everything that its span holds.
pub(super) fn select(request: &pb::RangeRequest, mut kvs: Vec<KeyValue>) -> Result<pb::RangeResponse, Status> {
    let invalid = |_| Status::invalid_argument("etcdserver: invalid sort option");
    let order = SortOrder::try_from(request.sort_order).map_err(invalid)?;
    let target = SortTarget::try_from(request.sort_target).map_err(invalid)?;
    let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
    if request.count_only {
        return Ok(pb::RangeResponse { count, ..pb::RangeResponse::default() });
    }
    let within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    kvs.retain(|kv| {
        within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
    let compare = |one: &KeyValue, other: &KeyValue| match target {
        SortTarget::Key => one.key.cmp(&other.key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    };
    match order {
        SortOrder::Descend => kvs.sort_by(|one, other| compare(other, one)),
        SortOrder::Ascend => kvs.sort_by(compare),
        // Keys are in order already.
        SortOrder::None if target != SortTarget::Key => kvs.sort_by(compare),
        SortOrder::None => {}
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    Ok(pb::RangeResponse { header: None, kvs, more, count })
}

#[async_trait]
impl Kv for Served {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        let span = Span::new(&request.key, &request.range_end)?;
        let revision = (request.revision > 0).then(|| unsigned(request.revision));
        let (kvs, current) = self.read(&span, revision).await?;
        let mut response = select(&request, kvs)?;
        response.header = self.header(current);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let request = pb::request_op::Request::RequestPut(request.into_inner());
        let (revision, answer) = self.single(request).await?;
        let pb::response_op::Response::ResponsePut(mut response) = answer else { return Err(mixed_up()) };
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = pb::request_op::Request::RequestDeleteRange(request.into_inner());
        let (revision, answer) = self.single(request).await?;
        let pb::response_op::Response::ResponseDeleteRange(mut response) = answer else { return Err(mixed_up()) };
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let (revision, mut response) = self.transact(&request.into_inner()).await?;
        response.header = self.header(revision);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let revision = unsigned(request.into_inner().revision);
        self.store().compact(revision).await.map_err(status)?;
        Ok(Response::new(pb::CompactionResponse { header: self.header(self.store().revision()) }))
    }
}

impl Served {
    /// One write is a transaction with one operation.
    async fn single(&self, request: pb::request_op::Request) -> Result<(Revision, pb::response_op::Response), Status> {
        let operation = pb::RequestOp { request: Some(request) };
        let request = pb::TxnRequest { success: vec![operation], ..pb::TxnRequest::default() };
        let (revision, response) = self.transact(&request).await?;
        let answer = response.responses.into_iter().next().and_then(|answer| answer.response).ok_or_else(mixed_up)?;
        Ok((revision, answer))
    }
}

fn mixed_up() -> Status {
    Status::internal("the transaction answered another request")
}
