//! A store that answers as etcd: `etcdctl` and everything else that speaks its v3 API.
//!
//! Reads and writes go through the engine that the API server uses, so what is written here is
//! seen by every watch there. Keys are shown as kube-apiserver lays them out, values are JSON.
//!
//! What differs from an etcd: the writes of one transaction happen together, but each takes a
//! revision of its own; there is one member, and neither users nor roles (the socket's
//! permissions decide). What is not there answers `Unimplemented` and names itself.

mod authority;
mod bolt;
mod kv;
mod lease;
mod maintenance;
mod snapshot;
mod txn;
mod watch;

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use skiff_base::{Clock, Tasks};
use skiff_store::{Entry, Error, Revision, Store};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;

use crate::convert::{COMPACTED, FUTURE, NO_LEASE, signed};
use crate::keys::Keys;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::mvccpb::KeyValue;

/// The version that clients are told: the features of etcd 3.6, by somebody else.
const VERSION: &str = "3.6.0+skiff";

/// The largest request; etcd takes 1.5 MiB and its overhead, which the store's limits decide here.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// What a client may have under way on one connection.
const STREAMS_MAX: u32 = 1_000;

/// A client that does not answer for this long is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A store and how it shows itself.
#[derive(Clone)]
pub struct Facade {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where keys lie.
    pub keys: Keys,
    /// What the member is called.
    pub name: String,
    /// The store's files, for their size; `None` for a store without.
    pub folder: Option<PathBuf>,
    /// Time.
    pub clock: Clock,
    /// Watches run under these.
    pub tasks: Tasks,
}

/// Serves `facade` on a unix socket (mode 0600) until its tasks are asked to end, and removes the
/// socket afterwards. `etcdctl --endpoints=unix://SOCKET` finds it.
///
/// # Errors
/// When the socket cannot be bound.
pub fn serve(facade: Facade, socket: &Path) -> io::Result<()> {
    remove_stale(socket)?;
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let path = socket.to_path_buf();
    let shutdown = facade.tasks.shutdown().clone();
    let tasks = facade.tasks.clone();
    let served = Arc::new(Served { facade, socket: path.clone() });
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(KvServer::from_arc(Arc::clone(&served)).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(WatchServer::new(watch::Watches(Arc::clone(&served))).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(LeaseServer::from_arc(Arc::clone(&served)).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(MaintenanceServer::from_arc(Arc::clone(&served)).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(ClusterServer::from_arc(served).max_decoding_message_size(REQUEST_BYTES_MAX));
    tasks.spawn_draining("etcd socket", async move {
        // Watches never end by themselves, so connections are cut and not waited for.
        let connections = UnixListenerStream::new(listener).map(|stream| stream.map(authority::Tolerant::new));
        let serving = server.serve_with_incoming(connections);
        if let Some(Err(error)) = shutdown.until(serving).await {
            tracing::error!(%error, "the etcd socket is no longer served");
        }
        let _ = remove_stale(&path);
    });
    Ok(())
}

/// Removes a socket left by a killed server; anything that is not a socket is not ours.
fn remove_stale(socket: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(socket) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(socket),
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: exists and is no socket", socket.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the services share.
struct Served {
    facade: Facade,
    socket: PathBuf,
}

impl Served {
    fn store(&self) -> &dyn Store {
        &*self.facade.store
    }

    /// The head of every answer.
    #[allow(clippy::unnecessary_wraps)] // the messages want an option
    fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: identity("cluster", &self.facade.name),
            member_id: self.member_id(),
            revision: signed(revision),
            raft_term: 1,
        })
    }

    fn member_id(&self) -> u64 {
        identity("member", &self.facade.name)
    }
}

/// A number that stays the same for a name (FNV-1a).
fn identity(what: &str, name: &str) -> u64 {
    fnv(what.bytes().chain(name.bytes()))
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An entry as etcd shows it, under its etcd key.
fn key_value(key: bytes::Bytes, entry: Entry) -> KeyValue {
    KeyValue {
        key,
        value: entry.value,
        create_revision: signed(entry.create_revision),
        mod_revision: signed(entry.mod_revision),
        version: signed(entry.version),
        lease: entry.lease.map_or(0, signed),
    }
}

/// The store's errors in etcd's words.
fn status(error: Error) -> Status {
    match error {
        Error::Compacted { .. } => Status::out_of_range(COMPACTED),
        Error::Future { .. } => Status::out_of_range(FUTURE),
        Error::NoLease(_) => Status::not_found(NO_LEASE),
        Error::TooLarge { .. } => Status::invalid_argument("etcdserver: request is too large"),
        Error::Invalid(why) => Status::invalid_argument(format!("etcdserver: {why}")),
        error => Status::unavailable(format!("etcdserver: {error}")),
    }
}

fn not_here(call: &str) -> Status {
    Status::unimplemented(format!("etcdserver: Skiff's store does not have {call}"))
}
