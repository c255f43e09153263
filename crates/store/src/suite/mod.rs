//! The contract as tests: every engine runs the same suite.
//!
//! ```text
//! skiff_store::suite!(memory, || async { MemorySubject::new() });
//! ```
//!
//! A [`Subject`] is one empty store that may be closed and opened again. The module panics where
//! the contract is broken; it is compiled for tests only (feature `testing`).

mod basics;
mod commits;
mod leases;
mod model;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

pub use self::basics::{
    a_fresh_store_is_empty, bad_input_is_refused, compaction_forgets_and_says_so, concurrent_creates_have_one_winner,
    conditions_decide_writes, every_write_takes_one_revision, ranges_are_ordered_counted_and_limited,
    the_past_can_be_read,
};
pub use self::commits::{commits_are_seen_whole, commits_happen_together_or_not_at_all};
pub use self::leases::{
    history_is_compacted_by_age, kept_leases_live, leases_end_on_time, revoked_leases_take_their_keys,
};
pub use self::model::random_operations_match_a_naive_model;
pub use self::watches::{
    a_frontier_tells_what_to_wait_for, a_slow_watcher_is_cut_alone, watches_replay_then_follow,
    watches_see_every_change_once_under_load, watches_see_their_range_only,
};
use crate::contract::{Entry, Error, Event, EventKind, Expect, Revision, Store, Watch};
use crate::memory::MemoryStore;

/// One store under test, empty at first.
#[async_trait]
pub trait Subject: Send {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes and opens it again; engines without a disk do nothing.
    async fn reopen(&mut self) {}

    /// How long leases live in the tests. Engines in real time want a short one.
    fn lease_ttl(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// The engine's [`crate::Limits::history_age`].
    fn history_age(&self) -> Duration {
        crate::Limits::default().history_age
    }

    /// How much earlier or later than said something may happen.
    fn precision(&self) -> Duration {
        Duration::from_millis(10)
    }
}

/// The memory engine as a subject.
#[derive(Debug)]
pub struct MemorySubject(Arc<MemoryStore>);

impl MemorySubject {
    /// An empty memory store on a simulated clock.
    #[allow(clippy::new_without_default)] // it reads tokio's clock
    pub fn new() -> Self {
        let clock = skiff_base::Clock::simulated(skiff_base::Timestamp::from_secs(1_000));
        Self(Arc::new(MemoryStore::new(clock)))
    }
}

impl Subject for MemorySubject {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }
}

/// Makes one test of each rule of the contract: `suite!(module, || async { subject })`. With
/// `suite!(module, real time, || async { Option<subject> })` no time is simulated, and without a
/// subject the test is skipped.
#[macro_export]
macro_rules! suite {
    ($module:ident, $open:expr) => {
        mod $module {
            use super::*;

            $crate::suite!(@rules threads paused $open);
        }
    };
    ($module:ident, real time, $open:expr) => {
        mod $module {
            use super::*;

            $crate::suite!(@rules real real $open);
        }
    };
    (@rules $threads:ident $paused:ident $open:expr) => {
            $crate::suite!(@$threads $open;
                a_fresh_store_is_empty bad_input_is_refused compaction_forgets_and_says_so
                concurrent_creates_have_one_winner conditions_decide_writes every_write_takes_one_revision
                ranges_are_ordered_counted_and_limited the_past_can_be_read revoked_leases_take_their_keys
                commits_are_seen_whole commits_happen_together_or_not_at_all
                a_frontier_tells_what_to_wait_for a_slow_watcher_is_cut_alone watches_replay_then_follow
                watches_see_every_change_once_under_load watches_see_their_range_only
                random_operations_match_a_naive_model);
            $crate::suite!(@$paused $open; kept_leases_live leases_end_on_time);
            $crate::suite!(@age $paused $open);
    };
    // In real time the engine needs an age that is short, so its test runs this rule by itself.
    (@age real $open:expr) => {};
    (@age paused $open:expr) => { $crate::suite!(@paused $open; history_is_compacted_by_age); };
    (@real $open:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Some(mut subject) = ($open)().await else { return };
                $crate::suite::$name(&mut subject).await;
            }
        )*
    };
    (@threads $open:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let mut subject = ($open)().await;
                $crate::suite::$name(&mut subject).await;
            }
        )*
    };
    (@paused $open:expr; $($name:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let mut subject = ($open)().await;
                $crate::suite::$name(&mut subject).await;
            }
        )*
    };
}

async fn put(store: &Arc<dyn Store>, key: &str, value: &str) -> Entry {
    store.put(bytes(key), bytes(value), Expect::Any, None).await.expect("put").entry
}

async fn delete(store: &Arc<dyn Store>, key: &str) -> Revision {
    store.delete(bytes(key), Expect::Any).await.expect("delete").revision
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The next change of a watch, in short: `put a=1 @2`, `delete a @3`; progress is skipped.
async fn next(watch: &mut Watch) -> String {
    loop {
        match watch.next().await {
            Some(Ok(Event::Progress(_))) => {}
            Some(Ok(Event::Change { kind: EventKind::Put, entry, .. })) => {
                return format!("put {}={} @{}", text(&entry.key), text(&entry.value), entry.mod_revision);
            }
            Some(Ok(Event::Change { kind: EventKind::Delete, entry, .. })) => {
                return format!("delete {} @{}", text(&entry.key), entry.mod_revision);
            }
            Some(Err(error)) => return format!("error: {error}"),
            None => return "end".into(),
        }
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_conflict<T: std::fmt::Debug>(result: Result<T, Error>, current: Option<&Entry>) {
    match result {
        Err(Error::Conflict { current: found }) => assert_eq!(found.as_ref(), current),
        other => panic!("expected a conflict, got {other:?}"),
    }
}
