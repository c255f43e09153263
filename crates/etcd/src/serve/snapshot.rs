//! A snapshot as etcd's: a bbolt file with the state of one revision, compacted to it, and the
//! SHA-256 of the file behind it.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use ring::digest;
use skiff_store::{Error, LeaseStatus, Range, Revision, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::bolt::{Element, File};
use super::key_value;
use crate::convert::signed;
use crate::keys::Keys;
use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb::KeyValue;

/// Pieces of a file that wait for the client.
const PIECES_MAX: usize = 4;

/// A piece is sent when it has this size.
const PIECE_BYTES: usize = 256 << 10;

/// The buckets that etcd expects to find, apart from those with something in them.
const EMPTY_BUCKETS: [&str; 7] = ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];

/// A lease as etcd writes it down.
#[derive(Clone, PartialEq, Message)]
struct WrittenLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

impl Element for KeyValue {
    fn key(&self) -> Vec<u8> {
        revision_key(self.mod_revision).to_vec()
    }

    fn key_bytes(&self) -> usize {
        revision_key(0).len()
    }

    fn value_bytes(&self) -> usize {
        self.encoded_len()
    }

    fn write_value(&self, out: &mut BytesMut) {
        // A buffer that grows takes everything.
        let _ = self.encode(out);
    }
}

/// A revision as a key of etcd's file: the number of the transaction and of the change in it.
fn revision_key(revision: i64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&revision.to_be_bytes());
    key[8] = b'_';
    key
}

/// A snapshot that was taken.
pub(super) struct Snapshot {
    revision: Revision,
    kvs: Vec<KeyValue>,
    leases: Vec<LeaseStatus>,
}

/// Takes a snapshot: references to what is there now.
pub(super) async fn take(store: &dyn Store, keys: &Keys) -> Result<Snapshot, Error> {
    let (start, end) = keys.range_to_stored(b"", b"");
    let found = store.range(Range { start, end, ..Range::default() }).await?;
    let mut kvs: Vec<KeyValue> =
        found.entries.into_iter().filter_map(|entry| Some(key_value(keys.to_etcd(&entry.key)?, entry))).collect();
    kvs.sort_unstable_by_key(|kv| kv.mod_revision);
    let mut leases = Vec::new();
    for lease in store.leases().await? {
        match store.lease(lease).await {
            Ok(status) => leases.push(status),
            // It has ended meanwhile.
            Err(Error::NoLease(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Snapshot { revision: found.revision, kvs, leases })
}

impl Snapshot {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    fn file(self) -> File<KeyValue> {
        let compacted = revision_key(signed(self.revision)).to_vec();
        let meta = vec![
            (b"consistent_index".to_vec(), 1_u64.to_be_bytes().to_vec()),
            (b"finishedCompactRev".to_vec(), compacted.clone()),
            (b"scheduledCompactRev".to_vec(), compacted),
            (b"term".to_vec(), 1_u64.to_be_bytes().to_vec()),
        ];
        let leases = self.leases.iter().map(|status| {
            let id = signed(status.lease.id);
            let ttl = signed(status.lease.ttl.as_secs());
            let written = WrittenLease { id, ttl, remaining_ttl: 0 };
            (id.to_be_bytes().to_vec(), written.encode_to_vec())
        });
        let mut small = vec![("lease", leases.collect()), ("meta", meta)];
        small.extend(EMPTY_BUCKETS.map(|name| (name, Vec::new())));
        File::new("key", self.kvs, small)
    }

    /// The file in pieces, then its checksum.
    pub(super) fn stream(
        self,
        header: Option<pb::ResponseHeader>,
        version: &str,
    ) -> BoxStream<'static, Result<pb::SnapshotResponse, Status>> {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        // Encoding is work and the channel waits for the client: not on a thread that others need.
        tokio::task::spawn_blocking(move || {
            let mut digest = digest::Context::new(&digest::SHA256);
            let mut piece = BytesMut::new();
            let mut is_open = true;
            self.file().write(|pages| {
                piece.extend_from_slice(&pages);
                if piece.len() >= PIECE_BYTES && is_open {
                    digest.update(&piece);
                    is_open = pieces.blocking_send(piece.split().freeze()).is_ok();
                }
            });
            digest.update(&piece);
            let rest = pieces.blocking_send(piece.freeze());
            // Who went away has no use for the checksum.
            let _ = rest.and_then(|()| pieces.blocking_send(Bytes::copy_from_slice(digest.finish().as_ref())));
        });
        let version = version.to_owned();
        ReceiverStream::new(receiver)
            .map(move |blob| Ok(pb::SnapshotResponse { header, remaining_bytes: 0, blob, version: version.clone() }))
            .boxed()
    }
}
