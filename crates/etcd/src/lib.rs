//! etcd: a cluster of it as the store, and the store as an etcd.
//!
//! [`EtcdStore`] keeps the store's contract on a real etcd cluster. Keys lie as kube-apiserver
//! lays them out ([`Keys`]), values are the same JSON as everywhere. [`serve`] goes the other way:
//! any store answers etcd's v3 API on a unix socket, so that `etcdctl` works against the embedded
//! one.
//!
//! Reading order: [`Keys`], `connect` (members, TLS, deadlines), `store` (reads and writes),
//! `commit`, `watch`, `compact`; for the other direction `serve`. The messages in `proto` are generated.

mod commit;
mod compact;
mod connect;
mod convert;
mod keys;
mod proto;
mod serve;
mod store;
mod watch;

pub use self::connect::Tls;
pub use self::keys::{Keys, PREFIX};
pub use self::serve::{Facade, serve};
pub use self::store::{EtcdStore, Settings};
