//! Ends what runs of a cluster without its server's help: after a `kill -9`, or in the middle of a
//! start. Each step finds what there is by the cluster's own names and ids.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Session;
use crate::profile::Profile;
use crate::server::node::{cgroup_root, machine_config};

/// Killed processes leave their cgroup when the kernel has torn them down.
const KILL_ROUNDS: usize = 500;
const KILL_INTERVAL: Duration = Duration::from_millis(10);

/// Ends the server, shims and containers of `profile` and takes its network down. Its files stay.
pub fn end(session: &Session, profile: &Profile) -> Result<()> {
    kill_server(profile)?;
    // Shims first: what they would do about the end of their containers is done here.
    kill_shims(profile)?;
    kill_cgroups(session, &cgroup_root(profile))?;
    skiff_net::Machine::delete(&machine_config(profile)?).context("remove the node's network")?;
    unmount_below(profile.run())
}

fn kill_server(profile: &Profile) -> Result<()> {
    let Ok(file) = File::open(profile.pid_file()) else { return Ok(()) };
    if file.try_lock().is_ok() {
        return Ok(()); // nobody holds it: the process id in it may be anybody's
    }
    let text = std::fs::read_to_string(profile.pid_file()).context("read the server's process id")?;
    let pid: i32 = text.trim().parse().context("read the server's process id")?;
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL)
        .with_context(|| format!("kill the server, process {pid}"))?;
    file.lock().context("wait for the server to end")
}

/// Shims live outside the pods' cgroups and end with their containers; those that were told of no
/// end are known by the folder they work in.
fn kill_shims(profile: &Profile) -> Result<()> {
    for entry in std::fs::read_dir("/proc").context("list the processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0).map(|word| Path::new(OsStr::from_bytes(word)));
        if words.next().is_some_and(|name| name.ends_with("skiff-shim"))
            && words.next().is_some_and(|folder| folder.starts_with(profile.data()))
        {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Kills everything below the cluster's cgroup, in every hierarchy, and removes it.
fn kill_cgroups(session: &Session, root: &str) -> Result<()> {
    let base = Path::new("/sys/fs/cgroup");
    let name = root.trim_start_matches('/');
    let mut tops = vec![base.join(name)];
    for entry in std::fs::read_dir(base).context("list the control groups")?.flatten() {
        tops.push(entry.path().join(name));
    }
    let runtime = super::light_runtime()?;
    for top in tops.into_iter().filter(|top| top.is_dir()) {
        for round in 0.. {
            let pids = processes_below(&top);
            if pids.is_empty() && remove_tree(&top).is_ok() {
                break;
            }
            for pid in pids {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if round == KILL_ROUNDS {
                remove_tree(&top).with_context(|| format!("remove the control group {}", top.display()))?;
                break;
            }
            runtime.block_on(session.clock.sleep(KILL_INTERVAL));
        }
    }
    Ok(())
}

fn processes_below(folder: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = std::fs::read_to_string(folder.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes_below(&entry.path()));
        }
    }
    pids
}

/// Only the folders can be removed in a cgroup tree: its files go with them.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}

/// Unmounts everything below `folder`, the last mounted first.
pub fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("list the mounts")?;
    let mut targets: Vec<String> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|target| target.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
        .filter(|target| Path::new(target).starts_with(folder))
        .collect();
    targets.reverse();
    for target in targets {
        nix::mount::umount2(target.as_str(), nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {target}"))?;
    }
    Ok(())
}
