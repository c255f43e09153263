//! Opening: the newest snapshot, then the log behind it.
//!
//! What was acknowledged is in an intact frame, because every frame was synced before. A damaged
//! frame with nothing intact behind it, at the end of the last segment, is a write that was cut
//! off: it was not acknowledged, and is dropped and reported. Damage anywhere else is an error.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skiff_base::Random;

use super::disk::{Disk, DiskFile};
use super::format::{
    self, FRAME_ALIGN, FRAME_HEADER_BYTES, FileKind, HEADER_BYTES, Header, Record, frame_bytes, frame_length,
};
use super::log::{LOG_SUFFIX, Log, segment_name};
use super::snapshot::{PARTIAL_SUFFIX, SNAPSHOT_SUFFIX, snapshot_name};
use crate::contract::{Entry, EventKind, Revision};
use crate::index::{Change, Index, LeaseState, tombstone};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the store {directory} is in use{}", owner.as_ref().map(|owner| format!(" by process {owner}")).unwrap_or_default())]
    Locked {
        /// The directory.
        directory: String,
        /// The other process, if it has said so.
        owner: Option<String>,
    },
    /// What is on disk was damaged after it was written. Nothing is changed.
    #[error("{file} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The file, within its directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The disk refused.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

/// What opening a store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The revision it is at.
    pub revision: Revision,
    /// Records read from the log behind the snapshot.
    pub replayed: usize,
    /// A write that was cut off, and was dropped because nobody can have been told that it
    /// happened.
    pub dropped: Option<Dropped>,
}

/// The end of a log segment that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The file, within its directory.
    pub file: String,
    /// Where the damage begins.
    pub offset: u64,
    /// How many bytes were dropped.
    pub bytes: u64,
}

/// An opened store.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) log: Log,
    /// Bytes of log since the snapshot.
    pub(super) log_bytes: u64,
    pub(super) snapshot_bytes: u64,
    /// The number of the first file that is needed.
    pub(super) oldest: u64,
    pub(super) report: Recovery,
}

/// Reads everything; see the module.
pub(super) fn recover(disk: &Arc<dyn Disk>, random: &Random) -> Result<Recovered, OpenError> {
    let files = Files::list(disk.as_ref())?;
    let mut index = Index::default();
    let mut snapshot_bytes = 0;
    if let Some(sequence) = files.snapshot {
        snapshot_bytes = load_snapshot(disk.as_ref(), sequence, &mut index)?;
    }
    let first = files.snapshot.unwrap_or(1);
    let mut report = Recovery::default();
    let mut log_bytes = 0;
    let mut last = None;
    for mut segment in open_segments(disk.as_ref(), &files.segments, first)? {
        let Some(end) = segment.replay(&mut index, &mut report)? else { continue };
        log_bytes += end;
        segment.end = end;
        last = Some(segment);
    }
    report.revision = index.revision();
    files.remove_stale(disk.as_ref())?;
    let log = match last {
        Some(segment) => {
            segment.cut(&mut report)?;
            Log::resume(disk.clone(), random.clone(), segment.header, segment.file, segment.end)
        }
        None => Log::create(disk.clone(), random.clone(), first, index.revision())
            .map_err(|error| io_error("begin the log", error))?,
    };
    Ok(Recovered { index, log, log_bytes, snapshot_bytes, oldest: first, report })
}

/// What is in the directory.
struct Files {
    snapshot: Option<u64>,
    /// Segments from the snapshot on, in order.
    segments: Vec<u64>,
    /// Left over from a snapshot that was interrupted, or that made them needless.
    stale: Vec<String>,
}

impl Files {
    fn list(disk: &dyn Disk) -> Result<Self, OpenError> {
        let mut names = disk.list().map_err(|error| io_error(&format!("list {}", disk.name()), error))?;
        names.sort_unstable();
        let sequence = |name: &str, suffix: &str| u64::from_str_radix(name.strip_suffix(suffix)?, 16).ok();
        let snapshots: Vec<u64> = names.iter().filter_map(|name| sequence(name, SNAPSHOT_SUFFIX)).collect();
        let snapshot = snapshots.last().copied();
        let mut files = Self { snapshot, segments: Vec::new(), stale: Vec::new() };
        for name in &names {
            match sequence(name, LOG_SUFFIX) {
                Some(number) if number >= snapshot.unwrap_or(0) => files.segments.push(number),
                Some(_) => files.stale.push(name.clone()),
                None if name.ends_with(PARTIAL_SUFFIX) => files.stale.push(name.clone()),
                None => {}
            }
        }
        let older = snapshots.iter().filter(|number| Some(**number) != snapshot);
        files.stale.extend(older.map(|number| snapshot_name(*number)));
        if snapshot.is_some() && files.segments.is_empty() {
            let file = segment_name(snapshot.unwrap_or_default());
            return Err(OpenError::Corrupt { file, offset: 0, what: "the file is missing".into() });
        }
        Ok(files)
    }

    fn remove_stale(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        for name in &self.stale {
            disk.remove(name).map_err(|error| io_error(&format!("remove {name}"), error))?;
        }
        Ok(())
    }
}

/// The segments from `first` on.
fn open_segments<'a>(disk: &'a dyn Disk, sequences: &[u64], first: u64) -> Result<Vec<Segment<'a>>, OpenError> {
    let mut segments = Vec::new();
    for (sequence, expected) in sequences.iter().zip(first..) {
        if *sequence != expected {
            let file = segment_name(expected);
            return Err(OpenError::Corrupt { file, offset: 0, what: "the file is missing".into() });
        }
        segments.push(Segment::open(disk, *sequence, segments.len() + 1 == sequences.len())?);
    }
    // A segment that was begun in vain (no space, say) may stand behind the one in use.
    let mut is_last = true;
    for segment in segments.iter_mut().rev() {
        segment.is_last = is_last;
        is_last = is_last && segment.is_empty();
    }
    Ok(segments)
}

/// A log segment.
struct Segment<'a> {
    disk: &'a dyn Disk,
    name: String,
    /// No later segment has anything in it.
    is_last: bool,
    header: Header,
    file: Box<dyn DiskFile>,
    length: u64,
    /// Behind this are only zeros, which a log keeps ahead.
    used: u64,
    /// Where its intact part ends, once it is known.
    end: u64,
    /// The header was cut off, so nothing can have followed it.
    is_blank: bool,
}

impl<'a> Segment<'a> {
    fn open(disk: &'a dyn Disk, sequence: u64, is_last: bool) -> Result<Self, OpenError> {
        let name = segment_name(sequence);
        let (file, length) = open_file(disk, &name)?;
        let (header, is_blank) = match read_header(file.as_ref(), length, &name, FileKind::Log, sequence) {
            Ok(header) => (header, false),
            Err(_) if is_last && length <= HEADER_BYTES as u64 => {
                (Header { kind: FileKind::Log, sequence, salt: 0, base: 0 }, true)
            }
            Err(error) => return Err(error),
        };
        let used = used_length(file.as_ref(), length).map_err(|error| io_error(&format!("read {name}"), error))?;
        Ok(Self { disk, name, is_last, header, file, length, used, end: 0, is_blank })
    }

    fn is_empty(&self) -> bool {
        self.is_blank || self.used == HEADER_BYTES as u64
    }

    /// Applies the segment's records; where its intact part ends, or `None` if the segment is a
    /// left-over that was never used.
    fn replay(&self, index: &mut Index, report: &mut Recovery) -> Result<Option<u64>, OpenError> {
        if self.is_blank || (self.is_last && self.is_empty() && self.header.base < index.revision()) {
            self.disk.remove(&self.name).map_err(|error| io_error(&format!("remove {}", self.name), error))?;
            return Ok(None);
        }
        if self.header.base != index.revision() {
            let what = format!(
                "it continues revision {}, but the log before it ends at {}",
                self.header.base,
                index.revision()
            );
            return Err(self.corrupt(0, what));
        }
        let mut offset = HEADER_BYTES as u64;
        while offset < self.used {
            let Some(payload) = read_frame(self.file.as_ref(), &self.header, offset, self.length)
                .map_err(|error| io_error(&format!("read {}", self.name), error))?
            else {
                self.check_tail(offset)?;
                break;
            };
            let records = format::records(&payload)
                .ok_or_else(|| self.corrupt(offset, "a record makes no sense under an intact checksum".into()))?;
            for record in records {
                apply(index, record).map_err(|what| self.corrupt(offset, what))?;
                report.replayed += 1;
            }
            offset += frame_bytes(payload.len()) as u64;
        }
        Ok(Some(offset))
    }

    /// A damaged frame is the end only if nothing intact is behind it.
    fn check_tail(&self, damaged: u64) -> Result<(), OpenError> {
        if !self.is_last {
            return Err(self.corrupt(damaged, "a frame is not what was written, and the log goes on behind it".into()));
        }
        let start = damaged as usize + FRAME_ALIGN;
        let tail = read_range(self.file.as_ref(), damaged, self.used.max(damaged))
            .map_err(|error| io_error(&format!("read {}", self.name), error))?;
        for offset in (start as u64..self.used).step_by(FRAME_ALIGN) {
            let rest = &tail[(offset - damaged) as usize..];
            let Some(length) = frame_length(&self.header, rest) else { continue };
            let Some(payload) = rest.get(FRAME_HEADER_BYTES..).and_then(|rest| rest.get(..length)) else { continue };
            if format::frame_is_intact(&self.header, offset, rest, payload) {
                let what = format!("a frame is not what was written, and an intact one follows at byte {offset}");
                return Err(self.corrupt(damaged, what));
            }
        }
        Ok(())
    }

    /// Makes the end of the intact part the file's end.
    fn cut(&self, report: &mut Recovery) -> Result<(), OpenError> {
        let end = self.end;
        if end == self.length {
            return Ok(());
        }
        let what = format!("cut {} at byte {end}", self.name);
        self.file.truncate(end).and_then(|()| self.file.sync()).map_err(|error| io_error(&what, error))?;
        report.dropped = self.used.checked_sub(end).filter(|bytes| *bytes > 0).map(|bytes| Dropped {
            file: self.name.clone(),
            offset: end,
            bytes,
        });
        Ok(())
    }

    fn corrupt(&self, offset: u64, what: String) -> OpenError {
        OpenError::Corrupt { file: self.name.clone(), offset, what }
    }
}

/// Applies one record of the log, or of a snapshot's history.
fn apply(index: &mut Index, record: Record) -> Result<(), String> {
    let next = index.revision() + 1;
    let in_order = |revision: Revision| {
        if revision == next { Ok(()) } else { Err(format!("revision {revision} stands where {next} belongs")) }
    };
    match record {
        Record::Put(entry) => {
            in_order(entry.mod_revision)?;
            let previous = index.present(&entry.key).cloned();
            let entry = match &previous {
                // Keys exist once, as when they were written.
                Some(previous) => {
                    let version = previous.version + 1;
                    Arc::new(Entry { key: previous.key.clone(), version, ..Entry::clone(&entry) })
                }
                None => entry,
            };
            index.apply(Change { kind: EventKind::Put, entry, previous });
        }
        Record::Delete { key, revision } => {
            in_order(revision)?;
            let previous = index.present(&key).cloned();
            let key = previous.as_ref().map(|previous| previous.key.clone());
            let key = key.ok_or_else(|| format!("revision {revision} deletes a key that is not there"))?;
            let entry = Arc::new(tombstone(key, revision));
            index.apply(Change { kind: EventKind::Delete, entry, previous });
        }
        Record::Grant { lease, ttl } => index.leases.insert(lease, LeaseState { ttl, deadline: None }),
        Record::Revoke(lease) => index.leases.remove(lease),
        Record::Compact(revision) => {
            index.compact(revision).map_err(|error| error.to_string())?;
            while index.sweep(usize::MAX) {}
        }
        Record::Meta { .. } | Record::History | Record::End => return Err("a snapshot's record is in the log".into()),
    }
    Ok(())
}

/// Loads a snapshot into an empty index; its size.
fn load_snapshot(disk: &dyn Disk, sequence: u64, index: &mut Index) -> Result<u64, OpenError> {
    let name = snapshot_name(sequence);
    let (file, length) = open_file(disk, &name)?;
    let header = read_header(file.as_ref(), length, &name, FileKind::Snapshot, sequence)?;
    let corrupt = |offset: u64, what: String| OpenError::Corrupt { file: name.clone(), offset, what };
    let offsets = frame_offsets(file.as_ref(), &header, length)
        .map_err(|error| io_error(&format!("read {name}"), error))?
        .map_err(|offset| corrupt(offset, "a frame is not what was written".into()))?;
    let mut loader = Loader::default();
    for (offset, records) in decode_all(file.as_ref(), &header, &offsets, length) {
        let records = records
            .map_err(|error| io_error(&format!("read {name}"), error))?
            .ok_or_else(|| corrupt(offset, "a frame is not what was written".into()))?;
        for record in records {
            loader.load(index, record).map_err(|what| corrupt(offset, what))?;
        }
    }
    if !loader.is_complete {
        return Err(corrupt(length, "its end is missing".into()));
    }
    if index.revision() != header.base {
        return Err(corrupt(0, format!("it should end at revision {} and ends at {}", header.base, index.revision())));
    }
    Ok(length)
}

/// Where a snapshot's records go.
#[derive(Default)]
struct Loader {
    compacted: Revision,
    base: Vec<Arc<Entry>>,
    is_history: bool,
    is_complete: bool,
}

impl Loader {
    fn load(&mut self, index: &mut Index, record: Record) -> Result<(), String> {
        match record {
            Record::Meta { compacted, lease_last } => {
                self.compacted = compacted;
                index.leases.reserve(lease_last);
            }
            Record::Put(entry) if !self.is_history => self.base.push(entry),
            Record::History => {
                self.is_history = true;
                index.restore(std::mem::take(&mut self.base), self.compacted);
            }
            Record::End => self.is_complete = true,
            record => apply(index, record)?,
        }
        Ok(())
    }
}

/// The offsets of all frames of a file; `Err` with the place where a frame should be and is not.
fn frame_offsets(file: &dyn DiskFile, header: &Header, length: u64) -> io::Result<Result<Vec<u64>, u64>> {
    let mut offsets = Vec::new();
    let mut offset = HEADER_BYTES as u64;
    while offset < length {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if offset + FRAME_HEADER_BYTES as u64 > length {
            return Ok(Err(offset));
        }
        file.read_at(offset, &mut bytes)?;
        let Some(payload) = frame_length(header, &bytes) else { return Ok(Err(offset)) };
        offsets.push(offset);
        offset += frame_bytes(payload) as u64;
    }
    Ok(if offset == length { Ok(offsets) } else { Err(offset) })
}

type Decoded = (u64, io::Result<Option<Vec<Record>>>);

/// Decodes all frames, on as many threads as the machine has, in the order of the file.
fn decode_all(file: &dyn DiskFile, header: &Header, offsets: &[u64], length: u64) -> Vec<Decoded> {
    const THREADS_MAX: usize = 8;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let share = offsets.len().div_ceil(threads).max(1);
    let decode = |offset: &u64| {
        let payload = read_frame(file, header, *offset, length);
        (*offset, payload.map(|payload| payload.and_then(|payload| format::records(&payload))))
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = offsets
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(decode).collect::<Vec<_>>()))
            .collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results.flat_map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

fn open_file(disk: &dyn Disk, name: &str) -> Result<(Box<dyn DiskFile>, u64), OpenError> {
    let opened = disk.open(name).and_then(|file| file.length().map(|length| (file, length)));
    opened.map_err(|error| io_error(&format!("open {name} in {}", disk.name()), error))
}

fn read_header(
    file: &dyn DiskFile,
    length: u64,
    name: &str,
    kind: FileKind,
    sequence: u64,
) -> Result<Header, OpenError> {
    let corrupt = |what: String| OpenError::Corrupt { file: name.to_owned(), offset: 0, what };
    if length < HEADER_BYTES as u64 {
        return Err(corrupt("it is shorter than a header".into()));
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_at(0, &mut bytes).map_err(|error| io_error(&format!("read {name}"), error))?;
    let header = Header::decode(&bytes).map_err(corrupt)?;
    if header.kind != kind || header.sequence != sequence {
        return Err(corrupt(format!("the header belongs to {:?} {}", header.kind, header.sequence)));
    }
    Ok(header)
}

/// The payload of the frame at `offset`; `None` if it is not intact.
fn read_frame(file: &dyn DiskFile, header: &Header, offset: u64, end: u64) -> io::Result<Option<Bytes>> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    if end - offset < FRAME_HEADER_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(offset, &mut bytes)?;
    let start = offset + FRAME_HEADER_BYTES as u64;
    let Some(length) = frame_length(header, &bytes).filter(|length| start + *length as u64 <= end) else {
        return Ok(None);
    };
    let payload = read_range(file, start, start + length as u64)?;
    Ok(format::frame_is_intact(header, offset, &bytes, &payload).then(|| Bytes::from(payload)))
}

fn read_range(file: &dyn DiskFile, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
    file.read_at(start, &mut bytes)?;
    Ok(bytes)
}

/// Where the zeros at the end of a file begin; not within its header.
fn used_length(file: &dyn DiskFile, length: u64) -> io::Result<u64> {
    const CHUNK_BYTES: u64 = 64 << 10;
    let mut end = length;
    while end > HEADER_BYTES as u64 {
        let start = end.saturating_sub(CHUNK_BYTES).max(HEADER_BYTES as u64);
        let chunk = read_range(file, start, end)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(end)
}

fn io_error(what: &str, error: io::Error) -> OpenError {
    OpenError::Io { what: what.to_owned(), error }
}
