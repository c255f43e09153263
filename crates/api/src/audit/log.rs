//! The audit log as a file: lines, rotated by size, old ones removed by count and age.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use skiff_base::{Clock, Timestamp};
use skiff_object::time::Time;

/// How the log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The file, or `-` for standard output.
    pub path: String,
    /// `json` or one line of text for each event.
    pub format: Format,
    /// Rotated files older than this are removed; nothing for never.
    pub age_max: Option<Duration>,
    /// Rotated files that are kept; 0 for all.
    pub backups_max: usize,
    /// The file is rotated before it grows beyond this; 0 for never.
    pub bytes_max: u64,
    /// Whether rotated files are compressed.
    pub compress: bool,
}

impl Default for LogSettings {
    /// Upstream's defaults (v1.36).
    fn default() -> Self {
        Self {
            path: String::new(),
            format: Format::Json,
            age_max: None,
            backups_max: 0,
            bytes_max: 100 * 1024 * 1024,
            compress: false,
        }
    }
}

/// How an event becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The event as JSON.
    Json,
    /// The one-line text of old.
    Legacy,
}

/// The open log.
pub(crate) struct Log {
    settings: LogSettings,
    clock: Clock,
    out: Mutex<Out>,
}

enum Out {
    Stdout,
    File { file: File, bytes: u64 },
}

impl Log {
    /// Opens the file, making it and its folder when they are absent.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub(crate) fn open(settings: LogSettings, clock: Clock) -> io::Result<Self> {
        let out = if settings.path == "-" { Out::Stdout } else { open(Path::new(&settings.path))? };
        Ok(Self { settings, clock, out: Mutex::new(out) })
    }

    pub(crate) fn format(&self) -> Format {
        self.settings.format
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// When they could not be written, or the file not be rotated.
    pub(crate) fn append(&self, lines: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock();
        match &mut *out {
            Out::Stdout => io::stdout().lock().write_all(lines),
            Out::File { bytes, .. } => {
                let after = *bytes + lines.len() as u64;
                if self.settings.bytes_max > 0 && after > self.settings.bytes_max && *bytes > 0 {
                    *out = self.rotate()?;
                }
                let Out::File { file, bytes } = &mut *out else { return Ok(()) };
                file.write_all(lines)?;
                *bytes += lines.len() as u64;
                Ok(())
            }
        }
    }

    fn rotate(&self) -> io::Result<Out> {
        let path = Path::new(&self.settings.path);
        let now = self.clock.now();
        let backup = backup_path(path, now);
        fs::rename(path, &backup)?;
        let out = open(path)?;
        if self.settings.compress {
            compress(&backup)?;
        }
        self.clean(path, now)?;
        Ok(out)
    }

    fn clean(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let mut backups = backups(path)?;
        // Their names hold the time, so the newest is the last.
        backups.sort();
        let keep = if self.settings.backups_max == 0 { backups.len() } else { self.settings.backups_max };
        let too_many = backups.len().saturating_sub(keep);
        let oldest = self.settings.age_max.map(|age| stamp(now.minus(age)));
        for (at, (stamp, file)) in backups.iter().enumerate() {
            if at < too_many || oldest.as_ref().is_some_and(|oldest| stamp < oldest) {
                fs::remove_file(file)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Out> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    // The log holds what secrets were asked for by whom: nobody else reads it.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Out::File { file, bytes })
}

/// `2006-01-02T15-04-05.000`, as lumberjack names rotated files.
fn stamp(time: Timestamp) -> String {
    let text = Time::from_nanos(time.as_nanos()).rfc3339_micro();
    text.get(..23).unwrap_or(&text).replace(':', "-")
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map_or(String::new(), |extension| format!(".{extension}"));
    (format!("{}-", text(path.file_stem()).unwrap_or_default()), extension)
}

fn backup_path(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}{}{extension}", stamp(now)))
}

/// The rotated files with the times in their names.
fn backups(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let (stem, extension) = parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bare = name.strip_suffix(".gz").unwrap_or(&name);
        if let Some(stamp) = bare.strip_prefix(&stem).and_then(|rest| rest.strip_suffix(&extension))
            && stamp.len() == 23
        {
            found.push((stamp.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&name)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_rotated_by_size_and_old_ones_go_by_count_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(Timestamp::from_secs(1_700_000_000));
        let settings = LogSettings {
            path: folder.path().join("audit.log").display().to_string(),
            bytes_max: 10,
            backups_max: 2,
            age_max: Some(Duration::from_secs(3_600)),
            ..LogSettings::default()
        };
        let log = Log::open(settings, clock).unwrap();
        for _ in 0..5 {
            log.append(b"12345678\n").unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(
            files(folder.path()),
            ["audit-2023-11-14T22-13-23.000.log", "audit-2023-11-14T22-13-24.000.log", "audit.log"]
        );
        tokio::time::advance(Duration::from_secs(4_000)).await;
        log.append(b"12345678\n").unwrap();
        assert_eq!(files(folder.path()), ["audit-2023-11-14T23-20-05.000.log", "audit.log"]);
    }

    #[tokio::test(start_paused = true)]
    async fn rotated_files_are_compressed_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(Timestamp::from_secs(1_700_000_000));
        let path = folder.path().join("audit.log");
        let settings =
            LogSettings { path: path.display().to_string(), bytes_max: 10, compress: true, ..LogSettings::default() };
        let log = Log::open(settings, clock).unwrap();
        log.append(b"12345678\n").unwrap();
        log.append(b"abcdefgh\n").unwrap();
        assert_eq!(files(folder.path()), ["audit-2023-11-14T22-13-20.000.log.gz", "audit.log"]);
        let mut text = String::new();
        let zipped = File::open(folder.path().join("audit-2023-11-14T22-13-20.000.log.gz")).unwrap();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(zipped), &mut text).unwrap();
        assert_eq!(text, "12345678\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "abcdefgh\n");
    }
}
