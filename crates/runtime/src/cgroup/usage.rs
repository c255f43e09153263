//! What a group uses now.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cgroups, safe};

/// A reading of one group. Zero where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) cpu_nanos: u64,
    pub(crate) memory_bytes: u64,
    /// Memory without file pages that can go at once.
    pub(crate) memory_working_set_bytes: u64,
    pub(crate) memory_rss_bytes: u64,
    /// `None` when there is no limit.
    pub(crate) memory_limit_bytes: Option<u64>,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) swap_bytes: u64,
    pub(crate) processes: u64,
}

/// Limits at or above this mean "no limit" (version 1 rounds down to pages).
const UNLIMITED_BYTES: u64 = 1 << 60;

impl Cgroups {
    /// Reads the usage of a group; `None` when it does not exist.
    pub(crate) fn usage(&self, path: &str) -> Option<Usage> {
        let relative = safe(path).ok()?;
        match self {
            Self::V1(hierarchies) => {
                let dir = |name: &str| hierarchies.get(name).map(|root| root.join(&relative)).unwrap_or_default();
                dir("memory").is_dir().then(|| v1(&dir("memory"), &dir("cpuacct"), &dir("pids")))
            }
            Self::V2(root) => {
                let dir = root.join(&relative);
                dir.is_dir().then(|| v2(&dir))
            }
        }
    }

    /// How many processes of the group the kernel killed for lack of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let Ok(relative) = safe(path) else { return 0 };
        match self {
            Self::V1(hierarchies) => hierarchies
                .get("memory")
                .map_or(0, |root| keyed(&root.join(relative).join("memory.oom_control"), "oom_kill")),
            Self::V2(root) => keyed(&root.join(relative).join("memory.events"), "oom_kill"),
        }
    }
}

fn v1(memory: &Path, cpuacct: &Path, pids: &Path) -> Usage {
    let stat = Keyed::read(memory.join("memory.stat"));
    let memory_bytes = number(&memory.join("memory.usage_in_bytes"));
    Usage {
        cpu_nanos: number(&cpuacct.join("cpuacct.usage")),
        memory_bytes,
        memory_working_set_bytes: memory_bytes.saturating_sub(stat.get("total_inactive_file")),
        memory_rss_bytes: stat.get("total_rss"),
        memory_limit_bytes: limit(number(&memory.join("memory.limit_in_bytes"))),
        page_faults: stat.get("total_pgfault"),
        major_page_faults: stat.get("total_pgmajfault"),
        swap_bytes: stat.get("total_swap"),
        processes: number(&pids.join("pids.current")),
    }
}

fn v2(dir: &Path) -> Usage {
    let stat = Keyed::read(dir.join("memory.stat"));
    let memory_bytes = number(&dir.join("memory.current"));
    Usage {
        cpu_nanos: keyed(&dir.join("cpu.stat"), "usage_usec").saturating_mul(1_000),
        memory_bytes,
        memory_working_set_bytes: memory_bytes.saturating_sub(stat.get("inactive_file")),
        memory_rss_bytes: stat.get("anon"),
        memory_limit_bytes: limit(number(&dir.join("memory.max"))),
        page_faults: stat.get("pgfault"),
        major_page_faults: stat.get("pgmajfault"),
        swap_bytes: number(&dir.join("memory.swap.current")),
        processes: number(&dir.join("pids.current")),
    }
}

fn limit(bytes: u64) -> Option<u64> {
    (bytes > 0 && bytes < UNLIMITED_BYTES).then_some(bytes)
}

fn number(file: &Path) -> u64 {
    fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn keyed(file: &Path, key: &str) -> u64 {
    Keyed::read(file.to_path_buf()).get(key)
}

/// A file of `key value` lines.
struct Keyed(String);

impl Keyed {
    fn read(file: PathBuf) -> Self {
        Self(fs::read_to_string(file).unwrap_or_default())
    }

    fn get(&self, key: &str) -> u64 {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }
}
