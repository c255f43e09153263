//! Transactions: compared and worked out on one revision, then committed if nothing that was read
//! has changed since; else worked out again.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use skiff_store::{Commit, Error, Expect, Revision, Write};
use tonic::Status;

use super::kv::{Span, select};
use super::{Served, status};
use crate::convert::{self, unsigned};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request as Operation;
use crate::proto::etcdserverpb::response_op::Response as Answer;
use crate::proto::mvccpb::KeyValue;

/// etcd's `--max-txn-ops`.
const OPERATIONS_MAX: usize = 128;

/// Transactions within transactions, each with its own comparisons.
const DEPTH_MAX: usize = 8;

/// A transaction that meets other writers so often in a row gives up.
const ATTEMPTS_MAX: usize = 64;

impl Served {
    /// Makes the transaction; the revision it happened at and its answer.
    pub(super) async fn transact(&self, request: &pb::TxnRequest) -> Result<(Revision, pb::TxnResponse), Status> {
        check(request, 0)?;
        for _ in 0..ATTEMPTS_MAX {
            let base = self.store().revision();
            let mut round = Round { served: self, base, commit: Commit::default(), written: BTreeMap::new() };
            let mut response = match round.txn(request).await {
                // The revision was compacted while it was looked at.
                Err(status) if status.message() == convert::COMPACTED => continue,
                response => response?,
            };
            if round.commit.writes.is_empty() {
                return Ok((base, response));
            }
            let count = round.commit.writes.len() as Revision;
            match self.store().commit(round.commit).await {
                Ok(committed) => {
                    settle(&mut response, committed.revision + 1 - count);
                    return Ok((committed.revision, response));
                }
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(status(error)),
            }
        }
        Err(Status::unavailable("etcdserver: the keys of the transaction change too often"))
    }
}

/// Refuses what no etcd takes, before anything is looked at.
fn check(request: &pb::TxnRequest, depth: usize) -> Result<(), Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > OPERATIONS_MAX || depth > DEPTH_MAX {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    for operation in request.success.iter().chain(&request.failure) {
        if let Some(Operation::RequestTxn(inner)) = &operation.request {
            check(inner, depth + 1)?;
        }
    }
    Ok(())
}

/// One attempt.
struct Round<'a> {
    served: &'a Served,
    /// Everything is read at this revision.
    base: Revision,
    commit: Commit,
    /// What the transaction has written so far, under etcd keys; `None` for a delete. Revisions
    /// are not known yet: a negative one says which write it was.
    written: BTreeMap<Bytes, Option<KeyValue>>,
}

impl Round<'_> {
    fn txn<'a>(&'a mut self, request: &'a pb::TxnRequest) -> BoxFuture<'a, Result<pb::TxnResponse, Status>> {
        async move {
            let mut succeeded = true;
            for compare in &request.compare {
                succeeded &= self.compare(compare).await?;
            }
            let mut responses = Vec::new();
            for operation in if succeeded { &request.success } else { &request.failure } {
                let answer = match &operation.request {
                    Some(Operation::RequestRange(range)) => Answer::ResponseRange(self.range(range).await?),
                    Some(Operation::RequestPut(put)) => Answer::ResponsePut(self.put(put).await?),
                    Some(Operation::RequestDeleteRange(delete)) => {
                        Answer::ResponseDeleteRange(self.delete(delete).await?)
                    }
                    Some(Operation::RequestTxn(inner)) => Answer::ResponseTxn(self.txn(inner).await?),
                    None => return Err(Status::invalid_argument("etcdserver: key is not provided")),
                };
                responses.push(pb::ResponseOp { response: Some(answer) });
            }
            Ok(pb::TxnResponse { header: None, succeeded, responses })
        }
        .boxed()
    }

    /// What a span holds for this transaction, which rests on it from now on.
    async fn read(&mut self, span: &Span) -> Result<Vec<KeyValue>, Status> {
        let (mut kvs, _) = self.served.read(span, Some(self.base)).await?;
        let keys = &self.served.facade.keys;
        for kv in &kvs {
            let stored = keys.to_stored(&kv.key);
            self.commit.expect.extend(stored.map(|key| (key, Expect::Revision(unsigned(kv.mod_revision)))));
        }
        match &span.end {
            None if kvs.is_empty() => {
                self.commit.expect.extend(keys.to_stored(&span.start).map(|key| (key, Expect::Absent)));
            }
            None => {}
            Some(end) => {
                let (start, end) = keys.range_to_stored(&span.start, end);
                self.commit.unwritten.push((start, end, self.base));
            }
        }
        kvs.retain(|kv| !self.written.contains_key(&kv.key));
        let written = self.written.iter().filter(|(key, _)| span.contains(key));
        kvs.extend(written.filter_map(|(_, kv)| kv.clone()));
        kvs.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(kvs)
    }

    async fn compare(&mut self, compare: &pb::Compare) -> Result<bool, Status> {
        let kvs = self.read(&Span::new(&compare.key, &compare.range_end)?).await?;
        if kvs.is_empty() {
            // A value that is not there equals none, not even an empty one.
            return Ok(compare.target() != CompareTarget::Value && holds(compare, &KeyValue::default()));
        }
        Ok(kvs.iter().all(|kv| holds(compare, kv)))
    }

    async fn range(&mut self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let span = Span::new(&request.key, &request.range_end)?;
        let kvs = if request.revision > 0 {
            self.served.read(&span, Some(unsigned(request.revision))).await?.0
        } else {
            self.read(&span).await?
        };
        select(request, kvs)
    }

    async fn put(&mut self, request: &pb::PutRequest) -> Result<pb::PutResponse, Status> {
        if request.ignore_value && !request.value.is_empty() {
            return Err(Status::invalid_argument("etcdserver: value is provided"));
        }
        if request.ignore_lease && request.lease != 0 {
            return Err(Status::invalid_argument("etcdserver: lease is provided"));
        }
        let span = Span::new(&request.key, &Bytes::new())?;
        // Only who looks at what was there rests on it.
        let looks = request.prev_kv || request.ignore_value || request.ignore_lease;
        let previous =
            if looks { self.read(&span).await?.pop() } else { self.served.read(&span, Some(self.base)).await?.0.pop() };
        if (request.ignore_value || request.ignore_lease) && previous.is_none() {
            return Err(Status::invalid_argument("etcdserver: key not found"));
        }
        let kept = previous.clone().unwrap_or_default();
        let value = if request.ignore_value { kept.value } else { request.value.clone() };
        let lease = if request.ignore_lease { kept.lease } else { request.lease };
        let stored = self.stored(&request.key)?;
        let index = self.begin_write(&request.key)?;
        let written = KeyValue {
            key: request.key.clone(),
            value: value.clone(),
            create_revision: previous.as_ref().map_or(index, |previous| previous.create_revision),
            mod_revision: index,
            version: kept.version + 1,
            lease,
        };
        self.written.insert(request.key.clone(), Some(written));
        self.commit.writes.push(Write::Put { key: stored, value, lease: convert::lease(lease) });
        Ok(pb::PutResponse { header: None, prev_kv: previous.filter(|_| request.prev_kv) })
    }

    async fn delete(&mut self, request: &pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Status> {
        let kvs = self.read(&Span::new(&request.key, &request.range_end)?).await?;
        for kv in &kvs {
            let key = self.stored(&kv.key)?;
            self.begin_write(&kv.key)?;
            self.written.insert(kv.key.clone(), None);
            self.commit.writes.push(Write::Delete { key });
        }
        let deleted = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
        let prev_kvs = if request.prev_kv { kvs } else { Vec::new() };
        Ok(pb::DeleteRangeResponse { header: None, deleted, prev_kvs })
    }

    fn stored(&self, key: &Bytes) -> Result<Bytes, Status> {
        let stored = self.served.facade.keys.to_stored(key);
        stored.ok_or_else(|| Status::invalid_argument("etcdserver: the key is outside of the store"))
    }

    /// The mark of the next write, which may not be the second one of its key.
    fn begin_write(&self, key: &Bytes) -> Result<i64, Status> {
        if self.written.contains_key(key) {
            return Err(Status::invalid_argument("etcdserver: duplicate key given in txn request"));
        }
        Ok(-1 - i64::try_from(self.commit.writes.len()).unwrap_or(i64::MAX - 1))
    }
}

fn holds(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let ordering = match &compare.target_union {
        Some(TargetUnion::Version(version)) => kv.version.cmp(version),
        Some(TargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
        Some(TargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
        Some(TargetUnion::Lease(lease)) => kv.lease.cmp(lease),
        Some(TargetUnion::Value(value)) => kv.value.cmp(value),
        // Nothing to compare with stands for its zero.
        None => match compare.target() {
            CompareTarget::Version => kv.version.cmp(&0),
            CompareTarget::Create => kv.create_revision.cmp(&0),
            CompareTarget::Mod => kv.mod_revision.cmp(&0),
            CompareTarget::Lease => kv.lease.cmp(&0),
            CompareTarget::Value => kv.value.cmp(&Bytes::new()),
        },
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
    }
}

/// Puts the revisions in that the writes got, the first of them `first`.
fn settle(response: &mut pb::TxnResponse, first: Revision) {
    let first = convert::signed(first);
    let real = |revision: &mut i64| {
        if *revision < 0 {
            *revision = first - 1 - *revision;
        }
    };
    for answer in &mut response.responses {
        match &mut answer.response {
            Some(Answer::ResponseRange(range)) => {
                for kv in &mut range.kvs {
                    real(&mut kv.create_revision);
                    real(&mut kv.mod_revision);
                }
            }
            Some(Answer::ResponseTxn(inner)) => settle(inner, first as Revision),
            _ => {}
        }
    }
}
