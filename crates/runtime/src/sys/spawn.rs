//! Starting our own helpers from the server.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::{PidFd, c_path, owned};

/// Starts `program` in a session of its own with `argv` and an empty environment; descriptor
/// `index` of the new process is `fds[index]`, and it has no others.
///
/// `posix_spawn` shares the memory until exec, so the size of the server does not matter.
pub(crate) fn spawn(program: &Path, argv: &[&str], fds: &[&OwnedFd]) -> io::Result<(i32, PidFd)> {
    let path = c_path(program)?;
    let argv: Vec<CString> = argv.iter().map(|text| super::c_string(text.as_bytes())).collect::<io::Result<_>>()?;
    let mut pointers: Vec<*mut libc::c_char> = argv.iter().map(|text| text.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let environment = [std::ptr::null_mut()];
    // A source below a target's number would be overwritten by an earlier dup2.
    let sources: Vec<OwnedFd> = fds.iter().map(|fd| above(fd, 16)).collect::<io::Result<_>>()?;
    let mut pid = 0;
    // SAFETY: both objects are initialised before use and destroyed after it, and every pointer
    // given outlives the call. The opened sources are close-on-exec; dup2 targets are not.
    let code = unsafe {
        let mut actions: libc::posix_spawn_file_actions_t = std::mem::zeroed();
        let mut attributes: libc::posix_spawnattr_t = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawnattr_init(&raw mut attributes);
        for (target, source) in sources.iter().enumerate() {
            libc::posix_spawn_file_actions_adddup2(&raw mut actions, source.as_raw_fd(), target as i32);
        }
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const signals);
        libc::sigfillset(&raw mut signals);
        libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const signals);
        libc::posix_spawnattr_setflags(
            &raw mut attributes,
            libc::POSIX_SPAWN_SETSID
                | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short
                | libc::POSIX_SPAWN_SETSIGDEF as libc::c_short,
        );
        let code = libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions,
            &raw const attributes,
            pointers.as_ptr(),
            environment.as_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        code
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    // Our own unreaped child cannot be confused with anything.
    // SAFETY: no memory is involved; gives a fresh descriptor.
    let fd = super::check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: fresh.
    Ok((pid, PidFd(unsafe { owned(fd) })))
}

fn above(fd: &OwnedFd, lowest: i32) -> io::Result<OwnedFd> {
    // SAFETY: gives a fresh descriptor.
    let fd = super::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) })?;
    // SAFETY: fresh.
    Ok(unsafe { owned(fd.into()) })
}

/// Waits for a child that has exited; the wait status when it was our child.
pub(crate) fn reap(child: &PidFd) -> Option<i32> {
    // SAFETY: a valid siginfo buffer.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        super::check(libc::waitid(libc::P_PIDFD, child.as_raw_fd() as libc::id_t, &raw mut info, libc::WEXITED))
            .ok()?;
        Some(info.si_status())
    }
}
