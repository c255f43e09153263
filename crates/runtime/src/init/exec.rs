//! A further process in a running container, started by a helper of its own (`skiff-exec`).
//!
//! The helper is not the shim: a command that hangs, or a thousand of them, cost the pod nothing,
//! and exec works while a shim is being replaced.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::process::{Stdio, become_process, open_terminal, set_oom_score};
use super::user;
use crate::spec::ExecSpec;
use crate::sys::{Attempt, Beneath, Cloned, PidFd, check, clone_process, exit_code_of_status, open, send, setns};

/// The descriptor of the specification, as the server passes it.
pub(crate) const SPEC_FD: i32 = 3;
/// The descriptor of the status socket: `T` with a terminal's master, the identity, `E` with a
/// text, and at last `X` with the exit code.
pub(crate) const STATUS_FD: i32 = 4;

/// Runs the helper; gives its own exit code.
pub(crate) fn main() -> u8 {
    // SAFETY: the server passes these two descriptors to nobody else.
    let (spec, status) = unsafe { (File::from_raw_fd(SPEC_FD), OwnedFd::from_raw_fd(STATUS_FD)) };
    // SAFETY: plain calls. Close-on-exec keeps both from the command.
    unsafe {
        libc::fcntl(SPEC_FD, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(STATUS_FD, libc::F_SETFD, libc::FD_CLOEXEC);
    }
    match run(spec, &status) {
        Ok(code) => {
            let _ = send(&status, format!("X{code}").as_bytes(), &[]);
            0
        }
        Err(error) => {
            let _ = send(&status, format!("E{error}").as_bytes(), &[]);
            1
        }
    }
}

fn run(mut spec: File, status: &OwnedFd) -> io::Result<i32> {
    // SAFETY: no memory is involved; see the container's start for why.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    let mut bytes = Vec::new();
    spec.rewind()?;
    spec.read_to_end(&mut bytes)?;
    let spec: ExecSpec = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    let container = PidFd::open(spec.pid, spec.start_time).attempt(|| "find the container's process".into())?;
    if let Some(adjustment) = spec.process.oom_score_adj {
        set_oom_score(adjustment)?;
    }
    spec.join.enter_v1()?;
    let group = spec.join.v2.as_deref().map(|dir| open(dir, libc::O_PATH | libc::O_DIRECTORY)).transpose()?;
    setns(
        &container,
        libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWNS,
    )
    .attempt(|| "join the container's namespaces".into())?;
    hold_back(libc::SIG_BLOCK);
    // SAFETY: this helper has one thread.
    match unsafe { clone_process(0, group.as_ref()) }.attempt(|| "start a process in the container".into())? {
        Cloned::Child => {
            let Err(error) = become_command(&spec, status);
            let _ = send(status, format!("E{error}").as_bytes(), &[]);
            // SAFETY: ends the child only.
            unsafe { libc::_exit(128) }
        }
        Cloned::Parent(pid, _) => {
            COMMAND.store(pid, Ordering::SeqCst);
            // SAFETY: the handler only calls what a signal handler may.
            unsafe { libc::signal(libc::SIGTERM, cancel as *const () as libc::sighandler_t) };
            hold_back(libc::SIG_UNBLOCK);
            let mut wait = 0;
            // SAFETY: a valid int.
            while let Err(error) = check(unsafe { libc::waitpid(pid, &raw mut wait, 0) }) {
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            Ok(exit_code_of_status(wait))
        }
    }
}

/// The command's process, for [`cancel`].
static COMMAND: AtomicI32 = AtomicI32::new(0);

/// Ends the command, which the helper then reaps: a dead helper would leave that to the machine's
/// init, and a container cannot end before it has happened.
extern "C" fn cancel(_: libc::c_int) {
    // SAFETY: async-signal-safe; the number is a child's that is not reaped yet.
    unsafe { libc::kill(COMMAND.load(Ordering::SeqCst), libc::SIGKILL) };
}

/// Blocks or unblocks SIGTERM.
fn hold_back(how: libc::c_int) {
    // SAFETY: the set is initialised before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(how, &raw const set, std::ptr::null_mut());
    }
}

fn become_command(spec: &ExecSpec, status: &OwnedFd) -> io::Result<Infallible> {
    let root = Beneath::open(std::path::Path::new("/"))?;
    let user = user::resolve(&root.0, &spec.process.user)?;
    let stdio = if spec.process.tty {
        let (master, end) = open_terminal(&root.0)?;
        send(status, b"T", &[master.as_raw_fd()])?;
        Stdio::terminal(end)?
    } else {
        let duplicate = |fd: i32| -> io::Result<OwnedFd> {
            // SAFETY: gives a fresh descriptor.
            let fd = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 5) })?;
            // SAFETY: fresh.
            Ok(unsafe { crate::sys::owned(fd.into()) })
        };
        Stdio { stdin: duplicate(0)?, stdout: duplicate(1)?, stderr: duplicate(2)? }
    };
    drop(root);
    become_process(&spec.process, &user, &stdio, status)
}
