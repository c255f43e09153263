//! A disk that forgets what was not synced, for tests of power loss and of a failing disk.
//!
//! Between two syncs of a file its written sectors reach the platter in any order or not at all;
//! creations, renames and removals reach it in order, as a journalling file system does it, and
//! certainly with a sync of the directory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use skiff_base::Random;

use super::disk::{Disk, DiskFile, DiskLock};

const SECTOR_BYTES: usize = 512;

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Content>,
    /// The directory as processes see it, and as it certainly is after a power cut.
    names: Names,
    durable_names: Names,
    /// Directories between the two.
    steps: Vec<Names>,
    is_locked: bool,
    /// So many more operations succeed; then the power is gone.
    operations_left: Option<u64>,
    bytes_max: Option<usize>,
    failing_syncs: usize,
}

type Names = BTreeMap<String, usize>;

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power after `count` more operations that change something. They fail from then
    /// on.
    pub fn cut_power_after(&self, count: u64) {
        self.0.lock().operations_left = Some(count);
    }

    /// Writes that take the disk beyond `bytes` fail as on a full disk; `None` for no limit.
    pub fn limit_bytes(&self, bytes: Option<usize>) {
        self.0.lock().bytes_max = bytes;
    }

    /// The next `count` syncs of files fail.
    pub fn fail_syncs(&self, count: usize) {
        self.0.lock().failing_syncs = count;
    }

    /// The bytes that all files have.
    pub fn bytes(&self) -> usize {
        self.0.lock().bytes()
    }

    /// What the disk is after the power was cut: another disk, nobody has it locked.
    pub fn after_power_cut(&self, random: &Random) -> Self {
        let state = self.0.lock();
        let step = random.below(state.steps.len() as u64 + 1) as usize;
        let names = if step == 0 { &state.durable_names } else { &state.steps[step - 1] };
        let files: Vec<Content> = state.files.iter().map(|content| content.after_power_cut(random)).collect();
        let after = State { files, names: names.clone(), durable_names: names.clone(), ..State::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// An independent copy, as it is for processes.
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        let files = state.files.clone();
        let (names, durable_names) = (state.names.clone(), state.names.clone());
        Self(Arc::new(Mutex::new(State { files, names, durable_names, ..State::default() })))
    }

    /// Changes a file behind the store's back; whether there is one.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.0.lock();
        let Some(id) = state.names.get(name).copied() else { return false };
        change(&mut state.files[id].now);
        state.files[id].durable = state.files[id].now.clone();
        true
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        match &mut state.operations_left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        change(&mut state)
    }
}

impl Content {
    fn after_power_cut(&self, random: &Random) -> Self {
        let longest = self.now.len().max(self.durable.len());
        let shortest = self.now.len().min(self.durable.len());
        // The length is somewhere in between, too.
        let length = shortest + random.below((longest - shortest) as u64 + 1) as usize;
        let likelihood = random.below(5);
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let end = (bytes.len() + SECTOR_BYTES).min(length);
            let source = if random.below(4) < likelihood { &self.now } else { &self.durable };
            bytes.extend_from_slice(source.get(bytes.len()..end.min(source.len())).unwrap_or_default());
            bytes.resize(end, 0);
        }
        Self { now: bytes.clone(), durable: bytes }
    }
}

impl State {
    fn bytes(&self) -> usize {
        self.names.values().map(|id| self.files[*id].now.len()).sum()
    }

    fn rename(&mut self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names);
        self.steps.push(self.names.clone());
    }
}

impl Disk for SimulatedDisk {
    fn name(&self) -> String {
        "simulated disk".into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let id = self.change(|state| {
            let id = state.files.len();
            state.files.push(Content::default());
            state.rename(|names| {
                names.insert(name.to_owned(), id);
            });
            Ok(id)
        })?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let id = self.0.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            let id = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
            state.rename(|names| {
                names.remove(from);
                names.insert(to.to_owned(), id);
            });
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            if !state.names.contains_key(name) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.rename(|names| {
                names.remove(name);
            });
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|state| {
            state.steps.clear();
            state.durable_names = state.names.clone();
            Ok(())
        })
    }

    fn lock(&self) -> io::Result<Result<DiskLock, Option<String>>> {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.is_locked, true) {
            return Ok(Err(None));
        }
        Ok(Ok(Box::new(Unlock(self.clone()))))
    }
}

struct Unlock(SimulatedDisk);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.0.lock().is_locked = false;
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    id: usize,
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.id].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = self.disk.0.lock();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = state.files[self.id].now.get(offset..offset + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.change(|state| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let room = state.bytes_max.map_or(usize::MAX, |max| max.saturating_sub(state.bytes()));
            let content = &mut state.files[self.id].now;
            let growth = (offset + bytes.len()).saturating_sub(content.len());
            // A full disk takes what fits.
            let fits = bytes.len() - growth.saturating_sub(room).min(bytes.len());
            if content.len() < offset + fits {
                content.resize(offset + fits, 0);
            }
            content[offset..offset + fits].copy_from_slice(&bytes[..fits]);
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.change(|state| {
            state.files[self.id].now.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.change(|state| {
            if state.failing_syncs > 0 {
                state.failing_syncs -= 1;
                return Err(io::Error::other("injected fault"));
            }
            let content = &mut state.files[self.id];
            content.durable.clone_from(&content.now);
            Ok(())
        })
    }
}
