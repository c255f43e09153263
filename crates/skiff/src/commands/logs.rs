//! `skiff logs`: what the system components say. Works on a stopped cluster too.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Session;
use crate::cli;
use crate::components::{COMPONENTS, log_file};

/// How far back `--tail` looks into one file.
const TAIL_BYTES_MAX: u64 = 4 << 20;

pub fn run(session: &Session, options: &cli::Logs) -> Result<()> {
    let profile = session.existing()?;
    let folder = profile.logs();
    let names: Vec<&str> = COMPONENTS.iter().map(|component| component.name).chain(["server"]).collect();
    let wanted = match &options.component {
        None => names,
        Some(name) if names.contains(&name.as_str()) => vec![name.as_str()],
        Some(name) => bail!("there is no component {name:?}; there are {}", names.join(", ")),
    };
    let mut tails: BTreeMap<PathBuf, Tail> = BTreeMap::new();
    for name in &wanted {
        let path = log_file(&folder, name);
        let prefix = if wanted.len() > 1 { format!("{name}: ") } else { String::new() };
        tails.insert(path.clone(), Tail::new(path, prefix, options.tail)?);
    }
    // Watching begins before the first read, so no line falls between.
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("watch the logs")?;
    if options.follow {
        inotify
            .add_watch(&folder, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)
            .with_context(|| format!("watch {}", folder.display()))?;
    }
    for tail in tails.values_mut() {
        tail.print_new()?;
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        for event in inotify.read_events().context("watch the logs")? {
            if let Some(name) = event.name
                && let Some(tail) = tails.get_mut(&folder.join(name))
            {
                tail.print_new()?;
            }
        }
    }
}

/// One log file and how far it has been printed.
struct Tail {
    path: PathBuf,
    prefix: String,
    offset: u64,
}

impl Tail {
    fn new(path: PathBuf, prefix: String, lines: usize) -> Result<Self> {
        let offset = tail_offset(&path, lines)?;
        Ok(Self { path, prefix, offset })
    }

    fn print_new(&mut self) -> Result<()> {
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("open {}", self.path.display())),
        };
        let length = file.metadata().context("measure the log")?.len();
        if length < self.offset {
            self.offset = 0; // set aside and begun anew
        }
        file.seek(SeekFrom::Start(self.offset)).context("seek in the log")?;
        let mut text = Vec::new();
        file.take(length - self.offset)
            .read_to_end(&mut text)
            .with_context(|| format!("read {}", self.path.display()))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index + 1);
        let mut out = std::io::stdout().lock();
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            out.write_all(self.prefix.as_bytes()).and_then(|()| out.write_all(line)).context("print")?;
        }
        out.flush().context("print")?;
        self.offset += whole as u64;
        Ok(())
    }
}

/// Where the last `lines` lines of the file begin.
fn tail_offset(path: &Path, lines: usize) -> Result<u64> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let length = file.metadata().context("measure the log")?.len();
    let from = length.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from)).context("seek in the log")?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
    let mut ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
    Ok(from + ends.nth(lines).unwrap_or(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_begins_at_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        for (lines, offset) in [(0, 14), (1, 8), (2, 4), (3, 0), (9, 0)] {
            assert_eq!(tail_offset(&path, lines).unwrap(), offset, "{lines}");
        }
        assert_eq!(tail_offset(&folder.path().join("none"), 3).unwrap(), 0);
    }
}
