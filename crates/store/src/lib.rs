//! A revisioned key-value store with watch: etcd's contract behind one trait.
//!
//! Every write gets the next revision of one global counter. A write is acknowledged only when it
//! is durable (engines that cannot keep this say so in [`Store::durability`]).

mod contract;

pub use contract::{
    Deleted, Durability, Entry, Error, Event, EventKind, Expect, Found, Lease, LeaseId, Put, Range, RangeResult,
    Revision, Store, Watch,
};
