//! `skiff doctor`: does this machine have what a cluster needs? Checks by trying, not by reading
//! configuration, wherever trying leaves nothing behind.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;

use super::Session;
use crate::cli::{Format, Output};

/// `pidfd_open`, `clone3`, `openat2` and cgroup v2's `CLONE_INTO_CGROUP` are all there from here on.
const KERNEL_MIN: (u32, u32) = (5, 10);
/// Less than this and the first image pull may fill the disk.
const DISK_BYTES_MIN: u64 = 2 << 30;
const INOTIFY_INSTANCES_MIN: u64 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<&'static str>,
}

impl Finding {
    fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, found: found.into(), fix: None }
    }

    fn bad(check: &'static str, found: impl Into<String>, fix: &'static str) -> Self {
        Self { check, verdict: Verdict::Bad, found: found.into(), fix: Some(fix) }
    }

    fn warning(check: &'static str, found: impl Into<String>, fix: &'static str) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), fix: Some(fix) }
    }
}

pub fn run(session: &Session, output: &Output) -> Result<()> {
    let findings = vec![
        root(),
        kernel(),
        in_namespaces("overlayfs", "load the kernel module with: modprobe overlay", try_overlay),
        network(),
        forwarding(),
        control_groups(),
        disk(&session.roots.data),
        inotify(),
    ];
    match output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Format::Text => {
            for finding in &findings {
                let mark = match finding.verdict {
                    Verdict::Good => "ok  ",
                    Verdict::Warning => "warn",
                    Verdict::Bad => "FAIL",
                };
                println!("{mark}  {:<20} {}", finding.check, finding.found);
                if let Some(fix) = finding.fix {
                    println!("      {:<20} fix: {fix}", "");
                }
            }
        }
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if bad > 0 {
        bail!("{bad} of {} checks failed", findings.len());
    }
    Ok(())
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::good("root", "yes")
    } else {
        Finding::bad("root", "no", "run with sudo")
    }
}

fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_MIN {
        Finding::good("kernel", release.trim())
    } else {
        Finding::bad("kernel", release.trim(), "use Linux 5.10 or newer")
    }
}

/// Runs `probe` on a thread of its own in fresh mount and network namespaces.
fn in_namespaces(check: &'static str, fix: &'static str, probe: fn() -> Result<String>) -> Finding {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("make namespaces")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make mounts private")?;
        probe()
    });
    match thread.join() {
        Ok(Ok(found)) => Finding::good(check, found),
        Ok(Err(error)) => Finding::bad(check, format!("{error:#}"), fix),
        Err(_) => Finding::bad(check, "the probe failed", fix),
    }
}

fn try_overlay() -> Result<String> {
    let none: Option<&str> = None;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::empty(), none).context("mount a tmpfs")?;
    for folder in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(Path::new("/tmp").join(folder)).with_context(|| format!("make {folder}"))?;
    }
    let options = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work";
    mount(Some("overlay"), "/tmp/merged", Some("overlay"), MsFlags::empty(), Some(options))
        .context("mount an overlay")?;
    Ok("available".into())
}

fn network() -> Finding {
    const CHECK: &str = "network";
    match skiff_net::probe() {
        Ok(()) => Finding::good(CHECK, "bridges, virtual devices, nftables maps and connection tracking"),
        Err(error) => Finding::bad(
            CHECK,
            error.to_string(),
            "load the kernel modules: modprobe -a bridge veth nf_tables nf_conntrack",
        ),
    }
}

/// Docker's firewall, say, drops what it does not know of.
fn forwarding() -> Finding {
    const CHECK: &str = "forwarding";
    match skiff_net::forward_drops() {
        Ok(chains) if chains.is_empty() => Finding::good(CHECK, "nothing in the host's firewall stands in the way"),
        Ok(chains) => Finding::warning(
            CHECK,
            format!("dropped by {}", chains.join(", ")),
            "accept packets from and to 10.89.0.0/16 in that chain, or pods reach no other network",
        ),
        Err(error) => Finding::warning(CHECK, error.to_string(), "run with sudo"),
    }
}

fn control_groups() -> Finding {
    const CHECK: &str = "control groups";
    let wanted = ["cpu", "memory", "pids"];
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let (version, present): (_, Vec<&str>) = match &unified {
        Ok(controllers) => {
            ("v2", wanted.into_iter().filter(|name| controllers.split_whitespace().any(|has| has == *name)).collect())
        }
        Err(_) => ("v1", wanted.into_iter().filter(|name| Path::new("/sys/fs/cgroup").join(name).is_dir()).collect()),
    };
    if present.len() == wanted.len() {
        Finding::good(CHECK, format!("{version} with {}", present.join(", ")))
    } else {
        Finding::bad(
            CHECK,
            format!("{version} with {:?} of {wanted:?}", present),
            "mount the cpu, memory and pids controllers at /sys/fs/cgroup",
        )
    }
}

fn disk(data: &Path) -> Finding {
    const CHECK: &str = "disk";
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let found = format!("{:.1} GB free at {}", free as f64 / 1e9, existing.display());
            if free >= DISK_BYTES_MIN {
                Finding::good(CHECK, found)
            } else {
                Finding::warning(CHECK, found, "free at least 2 GB for images and logs")
            }
        }
        Err(error) => Finding::bad(CHECK, error.desc(), "make the data folder accessible"),
    }
}

fn inotify() -> Finding {
    const CHECK: &str = "inotify";
    let path = "/proc/sys/fs/inotify/max_user_instances";
    let instances: u64 = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if instances >= INOTIFY_INSTANCES_MIN {
        Finding::good(CHECK, format!("{instances} instances"))
    } else {
        Finding::warning(CHECK, format!("{instances} instances"), "sysctl fs.inotify.max_user_instances=512")
    }
}
