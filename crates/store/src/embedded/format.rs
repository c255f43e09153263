//! Bytes on disk. Log segments and snapshots have one format: a header, then frames.
//!
//! ```text
//! header  magic(8) version(4) kind(4) sequence(8) salt(8) base revision(8) crc(4) 0(4)
//! frame   marker(4) length(4) crc(4) 0(4) payload(length) padding to 8
//! payload records, one after the other
//! ```
//!
//! Numbers are little-endian. A frame's checksum covers the file's salt, the frame's offset and
//! its length, so bytes of another file, of another place, or values that look like frames are
//! not taken for one. A batch of writes is one frame: it is there as a whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::contract::{Entry, EventKind, LeaseId, Revision};
use crate::index::Change;

const MAGIC: &[u8; 8] = b"skiff\0kv";

/// The format that is written. A reader that finds a newer one says so instead of guessing.
pub(super) const VERSION: u32 = 2;

/// The oldest format that is read. Before 2, snapshots did not say how often a key was written.
const VERSION_MIN: u32 = 1;

pub(super) const HEADER_BYTES: usize = 48;
pub(super) const FRAME_HEADER_BYTES: usize = 16;

/// Frames begin at multiples of this, so a search for frames behind damage is quick.
pub(super) const FRAME_ALIGN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Log = 1,
    Snapshot = 2,
}

/// What a file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: FileKind,
    /// A snapshot is followed by the log segments with its own and the later numbers.
    pub(super) sequence: u64,
    pub(super) salt: u64,
    /// For a segment the revision before its first record, for a snapshot its revision.
    pub(super) base: Revision,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.base.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, String> {
        let mut reader = Reader(bytes);
        if reader.take(8) != Some(MAGIC.as_slice()) {
            return Err("this is not a file of a skiff store".into());
        }
        let version = reader.u32().unwrap_or_default();
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(format!("its format has version {version}, this program reads up to version {VERSION}"));
        }
        if crc32fast::hash(&bytes[..40]).to_le_bytes() != bytes[40..44] {
            return Err("the checksum of the header is wrong".into());
        }
        let kind = match reader.u32() {
            Some(1) => FileKind::Log,
            Some(2) => FileKind::Snapshot,
            _ => return Err("the header names an unknown kind of file".into()),
        };
        let mut next = || reader.u64().ok_or_else(|| "the header is too short".to_owned());
        Ok(Self { kind, sequence: next()?, salt: next()?, base: next()? })
    }

    fn marker(&self) -> u32 {
        (self.salt as u32) | 1
    }

    fn checksum(&self, offset: u64, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        hasher.update(&(payload.len() as u64).to_le_bytes());
        hasher.update(payload);
        hasher.finalize()
    }
}

/// A frame under construction, in one buffer that is written as it is.
#[derive(Debug)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    pub(super) fn new() -> Self {
        Self(vec![0; FRAME_HEADER_BYTES])
    }

    /// Starts anew. The buffer stays unless one huge batch has made it useless.
    pub(super) fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 1 << 20;
        self.0.truncate(FRAME_HEADER_BYTES);
        self.0.shrink_to(KEPT_BYTES_MAX);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == FRAME_HEADER_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes to write at `offset` of the file with this header.
    pub(super) fn seal(&mut self, header: &Header, offset: u64) -> &[u8] {
        let length = self.0.len() - FRAME_HEADER_BYTES;
        let crc = header.checksum(offset, &self.0[FRAME_HEADER_BYTES..]);
        self.0[..4].copy_from_slice(&header.marker().to_le_bytes());
        self.0[4..8].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        self.0[8..12].copy_from_slice(&crc.to_le_bytes());
        self.0.resize(self.0.len().next_multiple_of(FRAME_ALIGN), 0);
        &self.0
    }

    pub(super) fn change(&mut self, change: &Change) {
        match change.kind {
            EventKind::Put => self.put(&change.entry),
            EventKind::Delete => {
                self.0.push(DELETE);
                self.u64(change.entry.mod_revision);
                self.blob(&change.entry.key);
            }
        }
    }

    pub(super) fn put(&mut self, entry: &Entry) {
        self.0.push(PUT);
        self.u64(entry.mod_revision);
        self.u64(entry.create_revision);
        self.u64(entry.lease.unwrap_or(0));
        self.blob(&entry.key);
        self.blob(&entry.value);
    }

    /// The state of a key in a snapshot: how often it was written cannot be counted again there.
    pub(super) fn state(&mut self, entry: &Entry) {
        self.0.push(STATE);
        self.u64(entry.version);
        self.put(entry);
    }

    pub(super) fn grant(&mut self, lease: LeaseId, ttl: Duration) {
        self.0.push(GRANT);
        self.u64(lease);
        self.u64(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn revoke(&mut self, lease: LeaseId) {
        self.0.push(REVOKE);
        self.u64(lease);
    }

    pub(super) fn compact(&mut self, revision: Revision) {
        self.0.push(COMPACT);
        self.u64(revision);
    }

    pub(super) fn meta(&mut self, compacted: Revision, lease_last: LeaseId) {
        self.0.push(META);
        self.u64(compacted);
        self.u64(lease_last);
    }

    pub(super) fn history(&mut self) {
        self.0.push(HISTORY);
    }

    pub(super) fn end(&mut self) {
        self.0.push(END);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }
}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const GRANT: u8 = 3;
const REVOKE: u8 = 4;
const COMPACT: u8 = 5;
const META: u8 = 6;
const HISTORY: u8 = 7;
const END: u8 = 8;
const STATE: u8 = 9;

/// One record, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Put(Arc<Entry>),
    Delete {
        key: Bytes,
        revision: Revision,
    },
    Grant {
        lease: LeaseId,
        ttl: Duration,
    },
    Revoke(LeaseId),
    Compact(Revision),
    /// A snapshot begins.
    Meta {
        compacted: Revision,
        lease_last: LeaseId,
    },
    /// In a snapshot: what follows is history, in order.
    History,
    /// A snapshot is complete.
    End,
}

/// The header of the frame at `offset`: the length of its payload, if this can be a frame at all.
pub(super) fn frame_length(header: &Header, bytes: &[u8]) -> Option<usize> {
    let mut reader = Reader(bytes);
    (reader.u32()? == header.marker()).then_some(())?;
    usize::try_from(reader.u32()?).ok()
}

/// Whether `payload` is what was written at `offset` under this frame header.
pub(super) fn frame_is_intact(header: &Header, offset: u64, frame_header: &[u8], payload: &[u8]) -> bool {
    frame_header[8..12] == header.checksum(offset, payload).to_le_bytes()
}

/// The bytes a frame with this payload takes.
pub(super) fn frame_bytes(payload: usize) -> usize {
    (FRAME_HEADER_BYTES + payload).next_multiple_of(FRAME_ALIGN)
}

/// All records of an intact frame; `None` if they make no sense.
pub(super) fn records(payload: &[u8]) -> Option<Vec<Record>> {
    let mut reader = Reader(payload);
    let mut records = Vec::new();
    while !reader.0.is_empty() {
        records.push(reader.record()?);
    }
    Some(records)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn record(&mut self) -> Option<Record> {
        Some(match self.take(1)?[0] {
            PUT => self.put(1)?,
            STATE => {
                let version = self.u64()?;
                (self.take(1)? == [PUT]).then_some(())?;
                self.put(version)?
            }
            DELETE => Record::Delete { revision: self.u64()?, key: Bytes::copy_from_slice(self.blob()?) },
            GRANT => Record::Grant { lease: self.u64()?, ttl: Duration::from_nanos(self.u64()?) },
            REVOKE => Record::Revoke(self.u64()?),
            COMPACT => Record::Compact(self.u64()?),
            META => Record::Meta { compacted: self.u64()?, lease_last: self.u64()? },
            HISTORY => Record::History,
            END => Record::End,
            _ => return None,
        })
    }

    fn put(&mut self, version: u64) -> Option<Record> {
        let (mod_revision, create_revision, lease) = (self.u64()?, self.u64()?, self.u64()?);
        let key = Bytes::copy_from_slice(self.blob()?);
        let value = Bytes::copy_from_slice(self.blob()?);
        let lease = (lease != 0).then_some(lease);
        Some(Record::Put(Arc::new(Entry { key, value, create_revision, mod_revision, version, lease })))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }
}
