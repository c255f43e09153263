//! The last steps before exec, shared by containers and exec'd commands.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use super::user::Resolved;
use crate::security::{capabilities, seccomp};
use crate::spec::ProcessSpec;
use crate::sys::{Attempt, c_path, c_string, check, reset_signals, send, write_existing};

/// Standard streams of a process.
pub(super) struct Stdio {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Stdio {
    /// All three from one terminal.
    pub(super) fn terminal(terminal: OwnedFd) -> io::Result<Self> {
        Ok(Self { stdin: terminal.try_clone()?, stdout: terminal.try_clone()?, stderr: terminal })
    }
}

/// Opens a terminal of the `dev/pts` below `root`: its master and its process end.
pub(super) fn open_terminal(root: &impl AsRawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let ptmx = crate::sys::open_beneath(root, Path::new("dev/pts/ptmx"), libc::O_RDWR | libc::O_NOCTTY)
        .attempt(|| "open a terminal".into())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int.
    check(unsafe { libc::ioctl(ptmx.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // SAFETY: the request takes open flags and gives a fresh descriptor.
    let end = check(unsafe {
        libc::ioctl(ptmx.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    })?;
    // SAFETY: a fresh descriptor.
    Ok((ptmx, unsafe { crate::sys::owned(end.into()) }))
}

/// Sets the badness for the OOM killer. Lowering it needs a capability that we may lack; then it
/// stays where it is, which is what containerd's `restrict_oom_score_adj` does.
pub(super) fn set_oom_score(adjustment: i32) -> io::Result<()> {
    let path = Path::new("/proc/self/oom_score_adj");
    match write_existing(path, &adjustment.to_string()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied) => Ok(()),
        other => other.attempt(|| format!("set oom_score_adj to {adjustment}")),
    }
}

/// Becomes the process: streams, user, capabilities, filter, exec. Returns only errors. Success
/// is visible on `status` as its end, after the identity was sent.
pub(super) fn become_process(
    spec: &ProcessSpec,
    user: &Resolved,
    stdio: &Stdio,
    status: &OwnedFd,
) -> io::Result<Infallible> {
    // SAFETY: plain calls.
    unsafe { libc::setsid() };
    let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    if spec.tty {
        // SAFETY: the request takes no pointer.
        check(unsafe { libc::ioctl(stdio.stdin.as_raw_fd(), libc::TIOCSCTTY, 0) })
            .attempt(|| "set the controlling terminal".into())?;
    }
    let identity = &user.identity;
    for stream in streams {
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a valid stat buffer.
        check(unsafe { libc::fstat(stream.as_raw_fd(), &raw mut stat) })?;
        // Programs open /dev/stdout again by name, under their own user. Devices stay as they are.
        if stat.st_mode & libc::S_IFMT == libc::S_IFIFO || spec.tty {
            // SAFETY: plain call; gid -1 keeps the group (devpts has its own).
            let gid = if spec.tty { u32::MAX } else { identity.gid };
            check(unsafe { libc::fchown(stream.as_raw_fd(), identity.uid, gid) })?;
        }
    }
    let (paths, argv, envp) = arguments(spec, user)?;
    for (number, stream) in streams.into_iter().enumerate() {
        // SAFETY: both are descriptors; dup2 clears close-on-exec.
        check(unsafe { libc::dup2(stream.as_raw_fd(), number as i32) })?;
    }
    // Whatever else is open stays behind.
    // SAFETY: no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    reset_signals();
    if let (Some(program), false) = (&spec.seccomp, spec.no_new_privs) {
        seccomp::install(program).attempt(|| "install the seccomp filter".into())?;
    }
    drop_privileges(spec, user)?;
    if spec.ends_with_parent {
        // After the change of user, which clears it.
        // SAFETY: no memory is involved.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    }
    let cwd = c_path(&spec.cwd)?;
    // SAFETY: a valid C string.
    check(unsafe { libc::chdir(cwd.as_ptr()) }).attempt(|| format!("chdir to cwd ({:?})", spec.cwd))?;
    // SAFETY: no memory is involved. Other modes of the process (dumpable) are reset by exec.
    unsafe { libc::umask(0o022) };
    if spec.no_new_privs {
        // SAFETY: no memory is involved.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    }
    let report = serde_json::to_vec(&user.identity).map_err(io::Error::other)?;
    send(status, &report, &[]).attempt(|| "report the identity".into())?;
    if let (Some(program), true) = (&spec.seccomp, spec.no_new_privs) {
        seccomp::install(program).attempt(|| "install the seccomp filter".into())?;
    }
    Err(exec(&spec.args[0], &paths, &argv, &envp))
}

fn drop_privileges(spec: &ProcessSpec, user: &Resolved) -> io::Result<()> {
    let identity = &user.identity;
    capabilities::bound(spec.capabilities).attempt(|| "bound the capabilities".into())?;
    // SAFETY: plain calls; the group list is valid for its length.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        check(libc::setgroups(identity.groups.len(), identity.groups.as_ptr()))
            .attempt(|| format!("set groups {:?}", identity.groups))?;
        check(libc::setresgid(identity.gid, identity.gid, identity.gid))
            .attempt(|| format!("set gid {}", identity.gid))?;
        check(libc::setresuid(identity.uid, identity.uid, identity.uid))
            .attempt(|| format!("set uid {}", identity.uid))?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))?;
    }
    capabilities::apply(spec.capabilities).attempt(|| "set the capabilities".into())
}

type Strings = Vec<CString>;

/// The files to try, the arguments and the environment.
fn arguments(spec: &ProcessSpec, user: &Resolved) -> io::Result<(Strings, Strings, Strings)> {
    let first = spec.args.first().ok_or_else(|| io::Error::other("no command specified"))?;
    let mut env = spec.env.clone();
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let paths = if first.contains('/') {
        vec![c_string(first.as_bytes())?]
    } else {
        let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or("");
        let files = path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| format!("{dir}/{first}"));
        files.map(|file| c_string(file.as_bytes())).collect::<io::Result<_>>()?
    };
    let all = |texts: &[String]| texts.iter().map(|text| c_string(text.as_bytes())).collect::<io::Result<Strings>>();
    Ok((paths, all(&spec.args)?, all(&env)?))
}

fn exec(name: &str, paths: &[CString], argv: &[CString], envp: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect::<Vec<*const libc::c_char>>()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    let mut worst = None;
    for path in paths {
        // SAFETY: null-terminated arrays of valid C strings.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        let error = io::Error::last_os_error();
        let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
        if !missing || name.contains('/') {
            worst = Some(error);
        }
    }
    match worst {
        Some(error) => {
            // runc's words, which users search for: `stat X: no such file or directory`, lower case.
            let reason = match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => format!("stat {name}: no such file or directory"),
                Some(libc::EACCES) => "permission denied".to_owned(),
                Some(libc::ENOEXEC) => "exec format error".to_owned(),
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("exec: {name:?}: {reason}"))
        }
        None => io::Error::new(io::ErrorKind::NotFound, format!("exec: {name:?}: executable file not found in $PATH")),
    }
}
