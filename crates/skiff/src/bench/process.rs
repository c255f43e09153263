//! What processes cost: proportional memory and processor time, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Figure, running};
use crate::commands::Session;
use crate::profile::Profile;

/// How long the idle cluster is watched.
const IDLE_WINDOW: Duration = Duration::from_secs(20);
/// What has just been started is not idle yet.
const IDLE_SETTLE: Duration = Duration::from_secs(5);

/// Some processes that are looked at together.
#[derive(Clone, Debug)]
pub(crate) struct Group(Vec<u32>);

impl Group {
    /// The server process of `profile`.
    pub(crate) fn of_server(profile: &Profile) -> Result<Self> {
        Ok(Self(vec![running(profile)?]))
    }

    /// These processes.
    pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        Self(pids.into_iter().collect())
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self(vec![std::process::id()])
    }

    /// Every process that runs this binary: server, shims, pauses and what runs in the demo.
    pub(crate) fn of_everything() -> Result<Self> {
        let binary = std::fs::metadata("/proc/self/exe").context("look at this binary")?.len();
        let own = std::process::id();
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc").context("list the processes")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let same = std::fs::metadata(entry.path().join("exe")).is_ok_and(|exe| exe.len() == binary);
            if same && pid != own {
                pids.push(pid);
            }
        }
        Ok(Self(pids))
    }

    /// How many processes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Processor time so far. Processes that have ended count as nothing.
    pub(crate) fn cpu(&self) -> Duration {
        self.0.iter().map(|pid| cpu_of(*pid).unwrap_or_default()).sum()
    }

    /// Resident set size in bytes.
    pub(crate) fn rss(&self) -> u64 {
        self.0.iter().map(|pid| kilobytes(&format!("/proc/{pid}/status"), "VmRSS:").unwrap_or(0)).sum()
    }

    /// Proportional set size in bytes.
    pub(crate) fn pss(&self) -> u64 {
        self.0.iter().map(|pid| pss_of(*pid).unwrap_or(0)).sum()
    }
}

/// Processor time from the scheduler's nanosecond account, summed over the threads.
fn cpu_of(pid: u32) -> Option<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        nanos += text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    }
    Some(Duration::from_nanos(nanos))
}

fn pss_of(pid: u32) -> Option<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// A size that a file of `/proc` gives in kilobytes, in bytes.
fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1_024)
}

/// Memory and processor of the cluster while nobody asks anything of it.
pub(crate) fn measure_idle(session: &Session, profile: &Profile) -> Result<Vec<Figure>> {
    running(profile)?;
    let runtime = crate::commands::light_runtime()?;
    runtime.block_on(session.clock.sleep(IDLE_SETTLE));
    let group = Group::of_everything()?;
    let server = Group::of_server(profile)?;
    let before = group.cpu();
    let began = session.clock.instant();
    runtime.block_on(session.clock.sleep(IDLE_WINDOW));
    let share = (group.cpu().saturating_sub(before)).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok(vec![
        Figure {
            name: format!("idle memory, all {} processes", group.len()),
            value: group.pss() as f64 / 1e6,
            unit: "MB PSS",
            cost: format!("server {:.1} MB", server.pss() as f64 / 1e6),
            durability: "",
        },
        Figure {
            name: "idle processor".into(),
            value: share * 100.0,
            unit: "% of a core",
            cost: format!("over {} s", IDLE_WINDOW.as_secs()),
            durability: "",
        },
    ])
}
