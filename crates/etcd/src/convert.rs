//! Between etcd's messages and the contract's types.

use bytes::Bytes;
use skiff_store::{Entry, Error, Expect, LeaseId, Revision};
use tonic::{Code, Status};

use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, request_op,
};
use crate::proto::mvccpb::KeyValue;

/// What etcd says when a revision is compacted, not yet there, or a lease is unknown. Its codes
/// are shared by several errors, so the text decides, as in etcd's own client.
pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub(crate) const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
pub(crate) const NO_LEASE: &str = "etcdserver: requested lease not found";

/// Revisions and leases are never negative.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| unsigned(header.revision))
}

/// An entry under its stored key.
pub(crate) fn entry(key: Bytes, kv: KeyValue) -> Entry {
    Entry {
        key,
        value: kv.value,
        create_revision: unsigned(kv.create_revision),
        mod_revision: unsigned(kv.mod_revision),
        version: unsigned(kv.version),
        lease: lease(kv.lease),
    }
}

pub(crate) fn lease(id: i64) -> Option<LeaseId> {
    (id > 0).then_some(unsigned(id))
}

/// What must hold for `key`; nothing when everything may.
pub(crate) fn compare(key: &Bytes, expect: Expect) -> Option<Compare> {
    let (result, revision) = match expect {
        Expect::Any => return None,
        // A key that is not there compares as revision 0.
        Expect::Absent => (CompareResult::Equal, 0),
        Expect::Present => (CompareResult::Greater, 0),
        Expect::Revision(revision) => (CompareResult::Equal, signed(revision)),
    };
    Some(Compare {
        result: result as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(revision)),
    })
}

pub(crate) fn put(key: &Bytes, value: Bytes, lease: Option<LeaseId>) -> RequestOp {
    let lease = lease.map_or(0, signed);
    operation(request_op::Request::RequestPut(PutRequest {
        key: key.clone(),
        value,
        lease,
        prev_kv: true,
        ..PutRequest::default()
    }))
}

pub(crate) fn delete(key: &Bytes) -> RequestOp {
    operation(request_op::Request::RequestDeleteRange(DeleteRangeRequest {
        key: key.clone(),
        prev_kv: true,
        ..DeleteRangeRequest::default()
    }))
}

pub(crate) fn get(key: &Bytes) -> RequestOp {
    operation(request_op::Request::RequestRange(RangeRequest { key: key.clone(), ..RangeRequest::default() }))
}

fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// An error that has no meaning of its own in the contract.
pub(crate) fn error(what: &str, status: &Status) -> Error {
    let why = format!("etcd: {what}: {}", status.message());
    match status.code() {
        Code::InvalidArgument => Error::Invalid(why),
        _ => Error::Unavailable(why),
    }
}
