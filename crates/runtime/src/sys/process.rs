//! Processes by handle: cloning, waiting, signalling, identity.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::{check, owned};

/// `CLONE_INTO_CGROUP` of `clone3(2)`; the C library's constant does not fit its type.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where a cloned process finds itself.
pub(crate) enum Cloned {
    /// In the new process.
    Child,
    /// In the caller, with the new process.
    Parent(i32, PidFd),
}

/// Copies the calling process with `clone3`, into `cgroup` (v2) when given.
///
/// # Safety
/// The process must be single-threaded: the child runs ordinary Rust, and locks held by other
/// threads would stay locked in it.
pub(crate) unsafe fn clone_process(flags: i32, cgroup: Option<&OwnedFd>) -> io::Result<Cloned> {
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let mut pidfd: RawFd = -1;
    args.flags = flags as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no stack is given, so this behaves like fork; see the function's contract.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD has filled in a fresh descriptor.
    Ok(Cloned::Parent(pid as i32, PidFd(unsafe { owned(pidfd.into()) })))
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug)]
pub(crate) struct PidFd(pub(crate) OwnedFd);

impl PidFd {
    /// Opens the process `pid` if it is still the one that started at `started` (clock ticks since
    /// boot, field 22 of `/proc/PID/stat`).
    pub(crate) fn open(pid: i32, started: u64) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: a fresh descriptor.
        let fd = Self(unsafe { owned(fd) });
        // Checked after the open: the number cannot be reused while the start time is compared.
        match start_time(pid) {
            Ok(found) if found == started && !fd.has_exited() => Ok(fd),
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: a null siginfo is allowed.
        check(unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        })
        .map(drop)
    }

    /// Whether the process is dead (reaped or not).
    pub(crate) fn has_exited(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    /// The wait status of a dead process (of number `pid`) that we cannot wait for: from the
    /// zombie while there is one, and afterwards from the descriptor (Linux ≥ 6.15).
    pub(crate) fn exit_status(&self, pid: i32) -> Option<i32> {
        if !self.has_exited() {
            return None;
        }
        self.kept_status().or_else(|| {
            let zombie = std::fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| zombie_status(&stat));
            // Reaped in between: the number may be somebody else's by now.
            self.kept_status().or(zombie)
        })
    }

    fn kept_status(&self) -> Option<i32> {
        // SAFETY: all-zero is a valid pidfd_info.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: the request writes at most the structure's size.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) }).ok()?;
        (info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0).then_some(info.exit_code)
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The shell's convention for a wait status: 128 + signal for a killed process.
pub(crate) fn exit_code_of_status(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// When the process started, in clock ticks since boot.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable /proc/PID/stat"))
}

fn parse_start_time(stat: &[u8]) -> Option<u64> {
    field(stat, 22)?.parse().ok()
}

/// The wait status in the stat file of a zombie.
fn zombie_status(stat: &[u8]) -> Option<i32> {
    if field(stat, 3)? == "Z" { field(stat, 52)?.parse().ok() } else { None }
}

/// A field of `/proc/PID/stat` as proc(5) numbers them, from 3 on.
fn field(stat: &[u8], number: usize) -> Option<&str> {
    // The command may contain spaces and parentheses; the last one ends it.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// Nanoseconds since the epoch, for processes that have no `Clock` (shim and helpers).
pub(crate) fn realtime_nanos() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Puts every signal back to its default action and unblocks all, as an exec'd program expects.
pub(crate) fn reset_signals() {
    // SAFETY: an empty set and default actions are always valid; numbers that cannot be changed
    // are refused without effect.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets go of the program's own read-only pages: they stay in the page cache and come back one by
/// one when they are run again. A process that only waits then maps next to nothing.
pub(crate) fn forget_program() {
    // SAFETY: the callback touches only what it is given, and dropping clean file-backed pages
    // changes nothing but when they are read again.
    unsafe { libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut()) };
}

unsafe extern "C" fn forget_segments(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const PAGE: u64 = 4_096;
    // SAFETY: the loader gives a valid description with this many headers.
    let headers = unsafe {
        let info = &*info;
        std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()).iter().map(|header| (header, info.dlpi_addr))
    };
    for (header, base) in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            // Whole pages only: the ends may share a page with a writable segment.
            let start = (base + header.p_vaddr).next_multiple_of(PAGE);
            let end = (base + header.p_vaddr + header.p_memsz) & !(PAGE - 1);
            if end > start {
                // SAFETY: the range lies within one read-only mapping of the program.
                unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED) };
            }
        }
    }
    0
}

/// Writes to an existing file (a file of `/proc`, `/sys` or a cgroup) in one call.
pub(crate) fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    let file = super::open(path, libc::O_WRONLY)?;
    super::write(&file, text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_command_name_does_not_move_the_fields() {
        let stat = b"42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 1 1";
        assert_eq!(parse_start_time(stat), Some(987_654));
    }

    #[test]
    fn own_process_is_found_by_its_start_time_only() {
        let pid = std::process::id() as i32;
        let started = start_time(pid).unwrap();
        assert!(PidFd::open(pid, started).is_ok());
        assert!(PidFd::open(pid, started + 1).is_err());
    }

    #[test]
    fn exit_codes_follow_the_shell() {
        assert_eq!(exit_code_of_status(7 << 8), 7);
        assert_eq!(exit_code_of_status(9), 137);
    }
}
