//! Deciding several writes as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{Change, Index, check, plan_delete, plan_put};
use crate::contract::{Commit, Entry, Error, Expect, Revision, Write};
use crate::limits::Limits;

/// What stands after writes that are decided but not yet visible; `None` for a delete.
pub(crate) type Overlay = BTreeMap<Bytes, Option<Arc<Entry>>>;

/// Decides a commit over `index` and the writes of `overlay`: its changes, from revision `next`
/// on.
pub(crate) fn plan_commit(
    index: &Index,
    overlay: &Overlay,
    mut next: Revision,
    commit: &Commit,
) -> Result<Vec<Change>, Error> {
    let present = |key: &Bytes| match overlay.get(key) {
        Some(written) => written.as_ref(),
        None => index.present(key),
    };
    for (key, expect) in &commit.expect {
        check(present(key), *expect)?;
    }
    for (start, end, revision) in &commit.unwritten {
        if let Some(later) = index.put_after(start, end, *revision, overlay) {
            return Err(Error::Conflict { current: Some(Entry::clone(later)) });
        }
    }
    let mut changes = Vec::with_capacity(commit.writes.len());
    for write in &commit.writes {
        changes.push(match write {
            Write::Put { key, value, lease } => {
                if let Some(lease) = lease.filter(|lease| !index.leases.contains(*lease)) {
                    return Err(Error::NoLease(lease));
                }
                plan_put(present(key), next, (key, value), Expect::Any, *lease)?
            }
            Write::Delete { key } => plan_delete(present(key), next, Expect::Any)?,
        });
        next += 1;
    }
    Ok(changes)
}

impl Commit {
    /// Refuses what no store takes.
    ///
    /// # Errors
    /// A key or value over its limit, or a key that is written twice.
    pub fn check(&self, limits: &Limits) -> Result<(), Error> {
        let mut keys = BTreeSet::new();
        for write in &self.writes {
            match write {
                Write::Put { key, value, .. } => limits.check(key, value)?,
                Write::Delete { key } => limits.check(key, &Bytes::new())?,
            }
            if !keys.insert(write.key()) {
                return Err(Error::Invalid(format!("the key {} is written twice", write.key().escape_ascii())));
            }
        }
        Ok(())
    }
}
