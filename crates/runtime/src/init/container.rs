//! The first process of a container, from clone to exec.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::process::{Stdio, become_process, open_terminal, set_oom_score};
use super::{rootfs, user};
use crate::spec::ContainerSpec;
use crate::sys::{Attempt, PidFd, check, open, send, setns};

/// Becomes the container whose specification is at `spec`, inside the namespaces of `pause`.
/// Never returns; a failure is sent on `status` as `E` and its text.
pub(crate) fn run(spec: &Path, pause: &PidFd, status: &OwnedFd) -> ! {
    let Err(error) = become_container(spec, pause, status);
    let _ = send(status, format!("E{error}").as_bytes(), &[]);
    // SAFETY: ends this process without running anything of the shim's.
    unsafe { libc::_exit(128) }
}

fn become_container(spec: &Path, pause: &PidFd, status: &OwnedFd) -> io::Result<Infallible> {
    // SAFETY: plain calls. Until exec nobody in the container may look into this process, which
    // is the host's binary (CVE-2019-5736).
    unsafe {
        libc::umask(0);
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    let bytes = std::fs::read(spec).attempt(|| format!("read {}", spec.display()))?;
    let spec: ContainerSpec = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    if let Some(adjustment) = spec.process.oom_score_adj {
        set_oom_score(adjustment)?;
    }
    spec.join.enter_v1()?;
    let streams = if spec.io.tty { None } else { Some(open_streams(&spec)?) };
    let sources = rootfs::Sources::collect(&spec)?;
    setns(pause, libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS)
        .attempt(|| "join the sandbox's namespaces".into())?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP) })
        .attempt(|| "make a mount namespace".into())?;
    let root = rootfs::enter(&spec, sources)?;
    let stdio = match streams {
        Some(streams) => streams,
        None => {
            let (master, end) = open_terminal(&root.0)?;
            rootfs::console(&root, &master).attempt(|| "mount /dev/console".into())?;
            send(status, b"T", &[std::os::fd::AsRawFd::as_raw_fd(&master)])?;
            Stdio::terminal(end)?
        }
    };
    rootfs::pivot(&root)?;
    let user = user::resolve(&root.0, &spec.process.user)?;
    drop(root);
    become_process(&spec.process, &user, &stdio, status)
}

/// The FIFOs. Opened for reading and writing, so that the container never meets a broken pipe
/// while no shim reads.
fn open_streams(spec: &ContainerSpec) -> io::Result<Stdio> {
    let fifo = |name: &str, flags| {
        let path = spec.io.run_dir.join(name);
        open(&path, flags).attempt(|| format!("open {}", path.display()))
    };
    let stdin =
        if spec.io.stdin { fifo("stdin", libc::O_RDONLY)? } else { open(Path::new("/dev/null"), libc::O_RDONLY)? };
    Ok(Stdio { stdin, stdout: fifo("stdout", libc::O_RDWR)?, stderr: fifo("stderr", libc::O_RDWR)? })
}
