//! Snapshots: everything the index holds, written from an immutable view while writes go on.
//!
//! First the state at the compaction revision, then history as it happened, so that a store that
//! is opened again can replay to watchers what it could before.

use std::io;

use skiff_base::Random;

use super::disk::{Disk, DiskFile};
use super::format::{FileKind, Frame, HEADER_BYTES, Header};
use crate::index::View;

pub(super) const SNAPSHOT_SUFFIX: &str = ".snapshot";

/// A snapshot under this suffix is incomplete.
pub(super) const PARTIAL_SUFFIX: &str = ".partial";

pub(super) fn snapshot_name(sequence: u64) -> String {
    format!("{sequence:016x}{SNAPSHOT_SUFFIX}")
}

/// The unit of checksum and of parallel decoding.
const FRAME_BYTES: usize = 1 << 20;

/// Dirty pages are written back in pieces of this size: one huge write-back at the end would
/// stand before the log's next `fdatasync`.
const SYNC_BYTES: u64 = 4 << 20;

/// Writes `view` as the snapshot before segment `sequence`; its size.
pub(super) fn write(disk: &dyn Disk, random: &Random, sequence: u64, view: &View) -> io::Result<u64> {
    let partial = format!("{}{PARTIAL_SUFFIX}", snapshot_name(sequence));
    let written = write_partial(disk, random, sequence, view, &partial).and_then(|bytes| {
        disk.rename(&partial, &snapshot_name(sequence))?;
        disk.sync()?;
        Ok(bytes)
    });
    if written.is_err() {
        // It would also be removed when the store is opened.
        let _ = disk.remove(&partial);
    }
    written
}

fn write_partial(disk: &dyn Disk, random: &Random, sequence: u64, view: &View, name: &str) -> io::Result<u64> {
    let header = Header { kind: FileKind::Snapshot, sequence, salt: random.next_u64(), base: view.revision };
    let file = disk.create(name)?;
    file.write_at(0, &header.encode())?;
    let mut writer = Writer { file, header, frame: Frame::new(), end: HEADER_BYTES as u64, synced: 0 };
    writer.frame.meta(view.compacted, view.lease_last);
    for (lease, state) in &view.leases {
        writer.frame.grant(*lease, state.ttl);
        writer.flush_full()?;
    }
    let history = || view.history.iter().filter(|change| change.revision() > view.compacted);
    // The state at the compaction revision: what was written before it and still is, or was
    // until history took it.
    let living = view.current.values().filter(|entry| entry.mod_revision <= view.compacted);
    let taken = history().filter_map(|change| change.previous.as_ref());
    for entry in living.chain(taken.filter(|entry| entry.mod_revision <= view.compacted)) {
        writer.frame.state(entry);
        writer.flush_full()?;
    }
    writer.frame.history();
    for change in history() {
        writer.frame.change(change);
        writer.flush_full()?;
    }
    writer.frame.end();
    writer.flush()?;
    writer.file.sync()?;
    Ok(writer.end)
}

struct Writer {
    file: Box<dyn DiskFile>,
    header: Header,
    frame: Frame,
    end: u64,
    synced: u64,
}

impl Writer {
    fn flush_full(&mut self) -> io::Result<()> {
        if self.frame.len() >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = self.frame.seal(&self.header, self.end);
        self.file.write_at(self.end, bytes)?;
        self.end += bytes.len() as u64;
        self.frame.clear();
        if self.end - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.end;
        }
        Ok(())
    }
}
