//! Several writes as one transaction. They share one revision.

use bytes::Bytes;
use skiff_store::{Commit, Committed, Entry, Error, Expect, Write};

use crate::connect::Again;
use crate::convert::{self, NO_LEASE, revision_of, signed};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::response_op::Response;
use crate::store::{Inner, etcd_key, first, garbled, write_operation};

/// Makes the commit, which was checked against the limits.
pub(crate) async fn run(inner: &Inner, commit: Commit) -> Result<Committed, Error> {
    let checks = Checks::new(inner, &commit)?;
    let request = pb::TxnRequest {
        compare: checks.compare,
        success: commit.writes.iter().map(|write| write_operation(inner, write)).collect::<Result<_, _>>()?,
        failure: checks.reads,
    };
    let response = match inner.txn(Again::IfUnsent, &request).await {
        Ok((response, _)) => response,
        Err(status) => {
            let lease = commit.writes.iter().find_map(|write| match write {
                Write::Put { lease, .. } => *lease,
                Write::Delete { .. } => None,
            });
            let lease = lease.filter(|_| status.message() == NO_LEASE);
            return Err(lease.map_or_else(|| convert::error("commit", &status), Error::NoLease));
        }
    };
    let revision = revision_of(response.header.as_ref());
    let answers = response.responses.into_iter().map(|answer| answer.response);
    if !response.succeeded {
        return Err(met(inner, &commit, answers));
    }
    let previous = commit.writes.iter().zip(answers).map(|(write, answer)| match answer {
        Some(Response::ResponsePut(put)) => Ok(first(inner, write.key(), put.prev_kv.into_iter().collect())),
        Some(Response::ResponseDeleteRange(deleted)) => Ok(first(inner, write.key(), deleted.prev_kvs)),
        _ => Err(garbled("commit")),
    });
    Ok(Committed { revision, previous: previous.collect::<Result<_, _>>()? })
}

/// What has to hold, and the reads that tell what did not, in the same order.
struct Checks {
    compare: Vec<pb::Compare>,
    reads: Vec<pb::RequestOp>,
}

impl Checks {
    fn new(inner: &Inner, commit: &Commit) -> Result<Self, Error> {
        let mut checks = Self { compare: Vec::new(), reads: Vec::new() };
        for (key, expect) in expectations(commit) {
            let key = etcd_key(inner, key)?;
            checks.compare.extend(convert::compare(&key, expect));
            checks.reads.push(convert::get(&key));
        }
        for (start, end, revision) in &commit.unwritten {
            let (key, range_end) = inner.keys.range_to_etcd(start, end)?;
            let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key };
            let range_end = if range_end.is_empty() { Bytes::from_static(b"\0") } else { range_end };
            checks.compare.push(pb::Compare {
                result: CompareResult::Less as i32,
                target: CompareTarget::Mod as i32,
                key: key.clone(),
                range_end: range_end.clone(),
                target_union: Some(TargetUnion::ModRevision(signed(revision.saturating_add(1)))),
            });
            checks.reads.push(pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                    key,
                    range_end,
                    limit: 1,
                    sort_order: pb::range_request::SortOrder::Descend as i32,
                    sort_target: pb::range_request::SortTarget::Mod as i32,
                    ..pb::RangeRequest::default()
                })),
            });
        }
        Ok(checks)
    }
}

/// What is expected of keys, the deleted ones included.
fn expectations(commit: &Commit) -> impl Iterator<Item = (&Bytes, Expect)> {
    let deletes = commit.writes.iter().filter(|write| matches!(write, Write::Delete { .. }));
    let asked = commit.expect.iter().map(|(key, expect)| (key, *expect));
    asked.chain(deletes.map(|write| (write.key(), Expect::Present)))
}

/// The conflict of a commit that was refused.
fn met(inner: &Inner, commit: &Commit, answers: impl Iterator<Item = Option<Response>>) -> Error {
    let mut found = answers.map(|answer| match answer {
        Some(Response::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    });
    for (key, expect) in expectations(commit) {
        let current = first(inner, key, found.next().unwrap_or_default());
        if !holds(current.as_ref(), expect) {
            return Error::Conflict { current };
        }
    }
    for ((_, _, revision), kvs) in commit.unwritten.iter().zip(found) {
        let Some(kv) = kvs.into_iter().next() else { continue };
        if let Some(stored) = inner.keys.to_stored(&kv.key).filter(|_| convert::unsigned(kv.mod_revision) > *revision) {
            return Error::Conflict { current: Some(convert::entry(stored, kv)) };
        }
    }
    Error::Conflict { current: None }
}

fn holds(current: Option<&Entry>, expect: Expect) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Present => current.is_some(),
        Expect::Revision(revision) => current.is_some_and(|entry| entry.mod_revision == revision),
    }
}
