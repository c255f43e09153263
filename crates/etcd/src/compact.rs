//! Compacting the history, by one of all servers that share the cluster.
//!
//! The protocol is kube-apiserver's, so both kinds of server can share a cluster: each interval,
//! every server tries to write the key `compact_rev_key` if its version is still the one it saw
//! last. One succeeds, and compacts to the revision that the cluster had an interval ago; the
//! others learn the new version. While nothing but that key is written, nobody does anything.

use std::sync::Arc;

use bytes::Bytes;
use skiff_store::Revision;
use tonic::Status;

use crate::connect::Again;
use crate::convert::{revision_of, signed, unsigned};
use crate::proto::etcdserverpb as pb;
use crate::store::{Inner, kv};

/// Upstream's key, which lies outside of the prefix.
const KEY: &[u8] = b"compact_rev_key";

/// What a server remembers from one interval to the next.
#[derive(Debug, Default)]
struct Round {
    /// The version of the key that was seen last.
    version: i64,
    /// What the cluster was at before the last round: what this one compacts to.
    mark: Revision,
    /// The revision of this server's last write of the key.
    written: Revision,
    /// What was compacted.
    compacted: Revision,
}

/// Takes part until it is dropped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut round = Round::default();
    loop {
        inner.clock.sleep(inner.limits.history_age).await;
        if let Err(error) = take_part(&inner, &mut round).await {
            tracing::warn!(%error, "cannot compact etcd's history, will try again");
        }
    }
}

async fn take_part(inner: &Inner, round: &mut Round) -> Result<(), Status> {
    let before = inner.current().await.map_err(|error| Status::unavailable(error.to_string()))?;
    if before == round.written && round.mark <= round.compacted {
        return Ok(());
    }
    let (response, _) = inner.txn(Again::IfUnsent, &claim(round.version, round.mark)).await?;
    let now = revision_of(response.header.as_ref());
    if !response.succeeded {
        let claimed = response.responses.into_iter().next().and_then(|answer| match answer.response {
            Some(pb::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        round.version = claimed.as_ref().map_or(0, |kv| kv.version);
        let target = claimed.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
        inner.forgot(target.unwrap_or_default());
        // Another server compacts; were it to stop, this one would go on from here.
        round.mark = now;
        return Ok(());
    }
    round.version += 1;
    round.written = now;
    let target = std::mem::replace(&mut round.mark, now - 1);
    if target > round.compacted {
        compact(inner, target).await?;
        round.compacted = target;
    }
    Ok(())
}

/// Writes the key if it is as it was.
fn claim(version: i64, mark: Revision) -> pb::TxnRequest {
    let key = Bytes::from_static(KEY);
    let value = Bytes::from(mark.to_string());
    let put = pb::PutRequest { key: key.clone(), value, ..pb::PutRequest::default() };
    let get = pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() };
    let operation = |request| vec![pb::RequestOp { request: Some(request) }];
    pb::TxnRequest {
        compare: vec![pb::Compare {
            result: pb::compare::CompareResult::Equal as i32,
            target: pb::compare::CompareTarget::Version as i32,
            key,
            range_end: Bytes::new(),
            target_union: Some(pb::compare::TargetUnion::Version(version)),
        }],
        success: operation(pb::request_op::Request::RequestPut(put)),
        failure: operation(pb::request_op::Request::RequestRange(get)),
    }
}

/// Compacts the cluster's history.
pub(crate) async fn compact(inner: &Inner, revision: Revision) -> Result<(), Status> {
    let request = pb::CompactionRequest { revision: signed(revision), physical: false };
    let make = |channel| async move { Ok(kv(channel).compact(request).await?.into_inner()) };
    // A second try of one that happened finds it compacted, which is told apart by its revision.
    let done = inner.members.call(Again::Always, make).await?;
    inner.saw(done.header.as_ref().map_or(0, |header| unsigned(header.revision)));
    inner.forgot(revision);
    Ok(())
}
