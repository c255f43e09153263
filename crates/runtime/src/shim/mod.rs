//! The shim: one small single-threaded process per pod, parent of its pause process and
//! containers.
//!
//! It writes logs and exit codes, so the server may die and come back. It is the same binary,
//! dispatched before anything else starts ([`dispatch`]). When it is killed itself, the
//! containers go on (their streams are FIFOs they hold open) and the server starts another one
//! that adopts them.

mod container;
mod log;
pub(crate) mod service;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

pub(crate) use service::socket_address;

use crate::init;
use crate::spec::{SandboxSpec, Started, file};
use crate::sys::{
    Attempt, Cloned, PidFd, c_path, c_string, check, clone_process, receive, socket_pair, start_time, write_atomically,
};

/// `argv[0]` of a shim; then the sandbox's state directory and [`NEW`] or [`ADOPT`].
pub(crate) const SHIM: &str = "skiff-shim";
/// `argv[0]` of an exec helper.
pub(crate) const EXEC: &str = "skiff-exec";
pub(crate) const NEW: &str = "new";
pub(crate) const ADOPT: &str = "adopt";

/// The descriptor on which a new shim says `R`, or `E` and a text.
pub(crate) const READY_FD: i32 = 3;

/// Runs the hidden commands of the runtime. The binary calls this first in `main`, before it
/// starts a thread, with its arguments (the first being its own name); `None` means that the
/// process is an ordinary one.
pub fn dispatch(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let name = args.next()?;
    if name == EXEC {
        return Some(ExitCode::from(init::exec::main()));
    }
    if name != SHIM {
        return None;
    }
    let (state_dir, mode) = (args.next()?, args.next()?);
    Some(run(Path::new(&state_dir), mode == ADOPT))
}

fn run(state_dir: &Path, adopt: bool) -> ExitCode {
    // SAFETY: the server passes this descriptor to nobody else.
    let ready = unsafe { crate::sys::owned(READY_FD.into()) };
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(READY_FD, libc::F_SETFD, libc::FD_CLOEXEC) };
    let service = prepare(state_dir, adopt);
    let report = match &service {
        Ok(_) => "R".to_owned(),
        Err(error) => format!("E{error}"),
    };
    let _ = crate::sys::write(&ready, report.as_bytes());
    drop(ready);
    match service.and_then(service::Service::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = crate::sys::write(&io::stderr(), format!("{error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn prepare(state_dir: &Path, adopt: bool) -> io::Result<service::Service> {
    let signals = service::Signals::block()?;
    // SAFETY: plain calls.
    unsafe {
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))?;
        libc::prctl(libc::PR_SET_NAME, c"skiff-shim".as_ptr());
        libc::chdir(c"/".as_ptr());
        libc::umask(0o077);
    }
    let bytes = std::fs::read(state_dir.join(file::SPEC)).attempt(|| format!("read {}", state_dir.display()))?;
    let spec: SandboxSpec = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    drop(bytes);
    // A pod must not lose its shim to its own memory limit's neighbours.
    let _ = crate::sys::write_existing(Path::new("/proc/self/oom_score_adj"), &spec.oom_score_adj.to_string());
    let listener = service::listen(&spec.run_dir)?;
    let (pid, pause, child) = if adopt {
        let started = std::fs::read(state_dir.join(file::STARTED))?;
        let started: Started = serde_json::from_slice(&started).map_err(io::Error::other)?;
        (started.pid, PidFd::open(started.pid, started.start_time).attempt(|| "find the pause process".into())?, false)
    } else {
        let (pid, pause) = start_pause(&spec)?;
        (pid, pause, true)
    };
    Ok(service::Service::new(spec, signals, listener, pid, pause, child))
}

/// Starts the pause process in its namespaces and leaves their handles in the run directory.
fn start_pause(spec: &SandboxSpec) -> io::Result<(i32, PidFd)> {
    let (ours, theirs) = socket_pair()?;
    let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
    if spec.own_network {
        flags |= libc::CLONE_NEWNET;
    }
    if spec.own_ipc {
        flags |= libc::CLONE_NEWIPC;
    }
    let group =
        spec.join.v2.as_deref().map(|dir| crate::sys::open(dir, libc::O_PATH | libc::O_DIRECTORY)).transpose()?;
    // SAFETY: the shim has one thread.
    let (pid, pause) = match unsafe { clone_process(flags, group.as_ref()) }.attempt(|| "make namespaces".into())? {
        Cloned::Child => {
            drop(ours);
            rename_to_pause();
            init::pause::run(spec, theirs)
        }
        Cloned::Parent(pid, pause) => (pid, pause),
    };
    drop(theirs);
    // The namespaces exist from the start; only the process's own part is still under way.
    let kept = keep_handles(spec, pid);
    let mut message = [0; 512];
    let outcome = receive(&ours, &mut message).map(|(count, _)| message[..count].to_vec());
    let result = match outcome {
        Ok(text) if text == b"R" => kept,
        Ok(text) if text.is_empty() => Err(io::Error::other("the pause process died")),
        Ok(text) => Err(io::Error::other(String::from_utf8_lossy(&text[1..]).into_owned())),
        Err(error) => Err(error),
    };
    let result = result.and_then(|()| {
        let started = Started { pid, start_time: start_time(pid)?, at: crate::sys::realtime_nanos(), identity: None };
        let bytes = serde_json::to_vec(&started).map_err(io::Error::other)?;
        write_atomically(&spec.state_dir.join(file::STARTED), &bytes)
    });
    if let Err(error) = result {
        let _ = pause.signal(libc::SIGKILL);
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        return Err(error);
    }
    Ok((pid, pause))
}

fn keep_handles(spec: &SandboxSpec, pid: i32) -> io::Result<()> {
    if spec.own_network {
        let source = c_string(format!("/proc/{pid}/ns/net").as_bytes())?;
        let target = spec.run_dir.join(file::NETNS);
        drop(crate::sys::open(&target, libc::O_CREAT | libc::O_RDONLY)?);
        bind(&source, &target)?;
    }
    if spec.own_ipc {
        let target = spec.run_dir.join(file::SHM);
        std::fs::create_dir_all(&target)?;
        let shm = crate::sys::filesystem(
            c"tmpfs",
            &[("mode", "1777"), ("size", "64m")],
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        )?;
        crate::sys::move_onto(&shm, &crate::sys::open(&target, libc::O_PATH | libc::O_DIRECTORY)?)
            .attempt(|| format!("mount {}", target.display()))?;
    }
    Ok(())
}

fn bind(source: &std::ffi::CStr, target: &Path) -> io::Result<()> {
    let c_target = c_path(target)?;
    // SAFETY: valid C strings; the other pointers may be null for a bind mount.
    check(unsafe { libc::mount(source.as_ptr(), c_target.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null()) })
        .attempt(|| format!("bind {} to {}", source.to_string_lossy(), target.display()))
        .map(drop)
}

/// What `ps` shows of the pause process, also inside a pod that shares its processes.
fn rename_to_pause() {
    // SAFETY: a valid C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr()) };
    // The argument area is ours to overwrite; its bounds are fields 48 and 49 of the stat file.
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((_, fields)) = stat.rsplit_once(") ") else { return };
    let mut fields = fields.split(' ').skip(45).map(|field| field.trim().parse::<usize>().unwrap_or(0));
    if let (Some(start), Some(end)) = (fields.next(), fields.next())
        && start != 0
        && end > start + 7
    {
        // SAFETY: the kernel put argv[0] ("skiff-shim") and its successors there, writable and
        // longer than the new text, as just checked; nobody reads them any more.
        unsafe {
            std::ptr::write_bytes(start as *mut u8, 0, end - start);
            std::ptr::copy_nonoverlapping(b"/pause".as_ptr(), start as *mut u8, 6);
        }
    }
}
