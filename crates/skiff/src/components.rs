//! The system components of the process: which part of the code each is, and where it logs.
//!
//! Every component has its own log file, so that `skiff logs kube-scheduler` and
//! `kubectl logs -n kube-system kube-scheduler-NODE` show what that component said and nothing else.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// A component: its name in `kube-system` and the crates or modules whose log lines are its own.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// The name upstream gives the part that does this work.
    pub name: &'static str,
    targets: &'static [&'static str],
}

/// The first whose target fits takes a line; the last takes everything else.
pub const COMPONENTS: &[Component] = &[
    Component { name: "etcd", targets: &["skiff_store"] },
    Component { name: "kube-apiserver", targets: &["skiff_api"] },
    Component { name: "kube-controller-manager", targets: &["skiff_controllers"] },
    Component { name: "kube-scheduler", targets: &["skiff_scheduler"] },
    Component { name: "coredns", targets: &["skiff_net::dns"] },
    Component { name: "kube-proxy", targets: &["skiff_net::proxy"] },
    Component { name: "kubelet", targets: &[""] },
];

/// A log file keeps at most so many bytes before it becomes `NAME.log.1`.
const LOG_BYTES_MAX: u64 = 10 << 20;

/// The log file of `component` in `folder`.
pub fn log_file(folder: &Path, component: &str) -> PathBuf {
    folder.join(format!("{component}.log"))
}

/// Writes each line to the log of the component it comes from.
pub struct LogWriters(Vec<Arc<Mutex<LogFile>>>);

impl LogWriters {
    /// Opens all log files in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        COMPONENTS
            .iter()
            .map(|component| Ok(Arc::new(Mutex::new(LogFile::open(log_file(folder, component.name))?))))
            .collect::<Result<_>>()
            .map(Self)
    }
}

impl<'a> MakeWriter<'a> for LogWriters {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(Arc::clone(&self.0[self.0.len() - 1]))
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        LineWriter(Arc::clone(&self.0[component_of(meta.target())]))
    }
}

fn component_of(target: &str) -> usize {
    COMPONENTS
        .iter()
        .position(|component| component.targets.iter().any(|prefix| target.starts_with(prefix)))
        .unwrap_or(COMPONENTS.len() - 1)
}

/// Writes whole lines to one file.
pub struct LineWriter(Arc<Mutex<LogFile>>);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().append(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    fn open(path: PathBuf) -> Result<Self> {
        let attempt = || format!("open the log {}", path.display());
        let file = open_append(&path).with_context(attempt)?;
        let bytes = file.metadata().with_context(attempt)?.len();
        Ok(Self { path, file, bytes })
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.bytes + line.len() as u64 > LOG_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = open_append(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn open_append(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_find_their_component() {
        for (target, name) in [
            ("skiff_api::chain", "kube-apiserver"),
            ("skiff_net::dns::server", "coredns"),
            ("skiff_net::pod", "kubelet"),
            ("hyper", "kubelet"),
        ] {
            assert_eq!(COMPONENTS[component_of(target)].name, name, "{target}");
        }
    }

    #[test]
    fn a_full_log_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(log_file(folder.path(), "etcd")).unwrap();
        log.bytes = LOG_BYTES_MAX;
        log.append(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("etcd.log")).unwrap(), "next\n");
        assert!(folder.path().join("etcd.log.1").exists());
    }
}
