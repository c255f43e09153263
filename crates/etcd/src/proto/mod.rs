//! The messages and calls of etcd's v3 API, written by `cargo xtask etcd`.

#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic)]
pub(crate) mod etcdserverpb;
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic)]
pub(crate) mod mvccpb;
