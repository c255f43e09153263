//! A revisioned key-value store with watch: etcd's contract behind one trait.
//!
//! Every write gets the next revision of one global counter. A write is acknowledged only when it
//! is durable (engines that cannot keep this say so in [`Store::durability`]).
//!
//! Reading order: the contract ([`Store`] and the types it speaks in), the index that both
//! engines of this process share, [`memory`], [`embedded`], the watch [`cache`], and the suite that every engine passes
//! ([`suite!`]). The store knows keys and bytes; what an object is, it deliberately does not.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), skiff_store::Error> {
//! use skiff_store::{Expect, Range, Store, memory::MemoryStore};
//!
//! let store = MemoryStore::new(skiff_base::Clock::system());
//! let put = store.put("pods/web".into(), "{}".into(), Expect::Absent, None).await?;
//! let pods = store.range(Range::prefix(b"pods/")).await?;
//! assert_eq!(pods.entries, [put.entry]);
//! # Ok(())
//! # }
//! ```

pub mod cache;
mod contract;
pub mod embedded;
mod index;
mod keeper;
mod limits;
pub mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

pub use contract::{
    Commit, Committed, Deleted, Durability, Entry, Error, Event, EventKind, Expect, Found, Frontier, Lease, LeaseId,
    LeaseStatus, Outstanding, Put, REVISION_FIRST, Range, RangeResult, Revision, Store, Watch, Write, prefix_end,
};
pub use index::WATCH_BUFFER_EVENTS;
pub use limits::Limits;
