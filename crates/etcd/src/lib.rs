//! etcd: a cluster of it as the store, and the store as an etcd.
//!
//! [`EtcdStore`] keeps the store's contract on a real etcd cluster. Keys lie as kube-apiserver
//! lays them out ([`Keys`]), values are the same JSON as everywhere.
//!
//! Reading order: [`Keys`], `connect` (members, TLS, deadlines), `store` (reads and writes),
//! `commit`, `watch`, `compact`. The messages in `proto` are generated.

mod commit;
mod compact;
mod connect;
mod convert;
mod keys;
mod proto;
mod store;
mod watch;

pub use self::connect::Tls;
pub use self::keys::{Keys, PREFIX};
pub use self::store::{EtcdStore, Settings};
