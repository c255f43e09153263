//! What a consistent read from a cache has to wait for.
//!
//! A sound server is asked how far the watch is, and its answer comes as progress on the watch.
//!
//! A server before 3.4.31 or 3.5.13 may answer before it has sent all events, so another way is
//! taken. One transaction reads how many keys the range holds and which was put last, at revision
//! R. What the watch has delivered is that very state when it has seen the last put and holds as
//! many keys: every key of R is in it as R has it, and another one would be one too many. It may
//! be that changes are outstanding which undid each other; they change nothing for a reader.

use async_trait::async_trait;
use skiff_store::{Error, Frontier, Outstanding, Revision};

use super::{Delivered, Shared};
use crate::connect::Again;
use crate::convert::{self, revision_of, signed, unsigned};
use crate::proto::etcdserverpb as pb;
use std::sync::atomic::Ordering;

/// A range at one revision, in short.
struct Digest {
    revision: Revision,
    count: i64,
    /// The last put of a key that is there, if it is later than what was delivered.
    newest: Revision,
}

#[async_trait]
impl Frontier for Shared {
    async fn outstanding(&self) -> Result<Outstanding, Error> {
        self.check()?;
        if self.is_sound.load(Ordering::Acquire) {
            let current = self.inner.current().await?;
            self.want.fetch_max(current, Ordering::AcqRel);
            self.asked.notify_one();
            self.check()?;
            return Ok(Outstanding { seen: current, current });
        }
        let digest = self.digest().await?;
        let mut delivered = self.delivered.subscribe();
        loop {
            self.check()?;
            let now = *delivered.borrow_and_update();
            if digest.is_met(now) {
                return Ok(Outstanding { seen: now.revision, current: digest.revision.max(now.revision) });
            }
            // The sender is in here too, so it cannot be gone.
            let _ = delivered.changed().await;
        }
    }
}

impl Digest {
    fn is_met(&self, delivered: Delivered) -> bool {
        delivered.revision >= self.revision || (delivered.revision >= self.newest && delivered.count == self.count)
    }
}

impl Shared {
    fn check(&self) -> Result<(), Error> {
        if self.is_cut.load(Ordering::Acquire) {
            return Err(Error::Lagged(self.delivered.borrow().revision));
        }
        Ok(())
    }

    async fn digest(&self) -> Result<Digest, Error> {
        let range = |request: pb::RangeRequest| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                key: self.keyspace.key.clone(),
                range_end: self.keyspace.range_end.clone(),
                ..request
            })),
        };
        let delivered = self.delivered.borrow().revision;
        let request = pb::TxnRequest {
            success: vec![
                range(pb::RangeRequest { count_only: true, ..pb::RangeRequest::default() }),
                range(pb::RangeRequest {
                    keys_only: true,
                    limit: 1,
                    min_mod_revision: signed(delivered.saturating_add(1)),
                    sort_order: pb::range_request::SortOrder::Descend as i32,
                    sort_target: pb::range_request::SortTarget::Mod as i32,
                    ..pb::RangeRequest::default()
                }),
            ],
            ..pb::TxnRequest::default()
        };
        let read = self.inner.txn(Again::Always, &request).await;
        let (response, _) = read.map_err(|status| convert::error("read how far the watch is", &status))?;
        let revision = revision_of(response.header.as_ref());
        let mut answers = response.responses.into_iter().filter_map(|answer| match answer.response {
            Some(pb::response_op::Response::ResponseRange(range)) => Some(range),
            _ => None,
        });
        let count = answers.next().map_or(0, |range| range.count);
        let newest = answers.next().and_then(|range| range.kvs.first().map(|kv| unsigned(kv.mod_revision)));
        Ok(Digest { revision, count, newest: newest.unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_known_when_its_last_put_is_and_no_key_is_too_many() {
        let digest = Digest { revision: 9, count: 2, newest: 7 };
        let is_met = |revision, count| digest.is_met(Delivered { revision, count });
        assert!(!is_met(6, 2), "the last put is missing");
        assert!(!is_met(7, 3), "a delete is missing");
        assert!(is_met(7, 2) && is_met(8, 2));
        assert!(is_met(9, 5), "everything up to that revision was delivered");
    }
}
