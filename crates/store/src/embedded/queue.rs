//! Writes that wait for the next batch.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::contract::{Commit, Committed, Deleted, Error, Expect, LeaseId, Put, Revision, Write};

/// One batch is one write and one `fdatasync`; more operations make the acknowledgement late
/// without making it cheaper.
const BATCH_OPERATIONS_MAX: usize = 1_024;

/// Likewise. One operation may be larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A write and who waits for it.
#[derive(Debug)]
pub(super) enum Operation {
    Put { key: Bytes, value: Bytes, expect: Expect, lease: Option<LeaseId>, reply: Reply<Put> },
    Delete { key: Bytes, expect: Expect, reply: Reply<Deleted> },
    Commit { commit: Commit, reply: Reply<Committed> },
    Grant { ttl: Duration, reply: Reply<LeaseId> },
    Revoke { lease: LeaseId, expired_by: Option<Instant>, reply: Reply<()> },
    Compact { revision: Revision, reply: Reply<()> },
}

impl Operation {
    /// Whether it is decided on the state that is durable, so that nothing may stand before it
    /// in its batch.
    fn is_alone(&self) -> bool {
        !matches!(self, Self::Put { .. } | Self::Delete { .. } | Self::Commit { .. })
    }

    /// The bytes it adds to the log, about.
    pub(super) fn bytes(&self) -> usize {
        const RECORD_BYTES: usize = 40;
        RECORD_BYTES
            + match self {
                Self::Put { key, value, .. } => key.len() + value.len(),
                Self::Delete { key, .. } => key.len(),
                Self::Commit { commit, .. } => {
                    commit.writes.iter().map(|write| RECORD_BYTES + write_bytes(write)).sum()
                }
                _ => 0,
            }
    }

    /// Tells who waits that nothing happened.
    pub(super) fn fail(self, error: Error) {
        // Nobody waits any more: nobody to tell.
        match self {
            Self::Put { reply, .. } => drop(reply.send(Err(error))),
            Self::Delete { reply, .. } => drop(reply.send(Err(error))),
            Self::Commit { reply, .. } => drop(reply.send(Err(error))),
            Self::Grant { reply, .. } => drop(reply.send(Err(error))),
            Self::Revoke { reply, .. } | Self::Compact { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

fn write_bytes(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Delete { key } => key.len(),
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Operation>,
    /// So many are waited for before the next batch is taken; 0 when nobody waits for them.
    awaited: usize,
    /// Whether somebody takes batches.
    is_served: bool,
}

impl Queue {
    /// Whether the caller has to get somebody to serve the queue.
    pub(super) fn push(&mut self, operation: Operation) -> bool {
        self.waiting.push_back(operation);
        !std::mem::replace(&mut self.is_served, true)
    }

    /// Waits for so many operations from now on; whether they are not there yet.
    pub(super) fn is_awaiting(&mut self, wanted: usize) -> bool {
        self.awaited = if self.waiting.len() < wanted { wanted } else { 0 };
        self.awaited > 0
    }

    /// Whether what was waited for has just come: who waits is told once.
    pub(super) fn is_complete(&mut self) -> bool {
        let is_complete = self.awaited > 0 && self.waiting.len() >= self.awaited;
        if is_complete {
            self.awaited = 0;
        }
        is_complete
    }

    /// Tells everybody that nothing happened.
    pub(super) fn fail(self, error: &Error) {
        self.waiting.into_iter().for_each(|operation| operation.fail(error.clone()));
    }

    /// The next batch; `None` ends the service.
    pub(super) fn batch(&mut self) -> Option<Vec<Operation>> {
        self.awaited = 0;
        let mut bytes = 0;
        let mut count = 0;
        for operation in self.waiting.iter().take(BATCH_OPERATIONS_MAX) {
            bytes += operation.bytes();
            if count > 0 && (operation.is_alone() || bytes > BATCH_BYTES_MAX) {
                break;
            }
            count += 1;
            if operation.is_alone() {
                break;
            }
        }
        self.is_served = count > 0;
        self.is_served.then(|| self.waiting.drain(..count).collect())
    }
}
