//! Thin, safe wrappers over the Linux calls the runtime needs and `std` does not have.
//!
//! Everything takes descriptors or C strings and gives `io::Result`. New mounts are made with the
//! file-descriptor API (Linux ≥ 5.12), so no path is ever resolved twice.

mod mount;
mod process;
mod spawn;
mod tree;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

pub(crate) use mount::{Propagation, clone_tree, filesystem, move_onto, set_attributes, set_propagation};
pub(crate) use process::{
    Cloned, PidFd, clone_process, exit_code_of_status, forget_program, realtime_nanos, reset_signals, start_time,
    write_existing,
};
pub(crate) use spawn::{reap, spawn};
pub(crate) use tree::{Beneath, open_beneath};

/// Turns the C convention (`-1` and errno) into a result.
pub(crate) fn check<T: Into<i64> + Copy>(value: T) -> io::Result<T> {
    if value.into() == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A path for the kernel.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    c_string(path.as_os_str().as_bytes())
}

/// A string for the kernel; an embedded NUL is an input error.
pub(crate) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "contains a NUL byte"))
}

/// Adds what was attempted to an error, keeping its kind.
pub(crate) trait Attempt<T> {
    /// `attempt` is only called on failure.
    fn attempt(self, attempt: impl FnOnce() -> String) -> io::Result<T>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, attempt: impl FnOnce() -> String) -> io::Result<T> {
        self.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", attempt())))
    }
}

/// Takes ownership of a descriptor that a call has just returned.
///
/// # Safety
/// `fd` must be open and owned by nobody else.
pub(crate) unsafe fn owned(fd: i64) -> OwnedFd {
    // SAFETY: promised by the caller; descriptors fit an int.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A pipe whose ends are closed on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array holds the two descriptors that the call fills in.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: fresh descriptors.
    Ok(unsafe { (owned(fds[0].into()), owned(fds[1].into())) })
}

/// Opens a file by plain path with `flags` (close-on-exec is added).
pub(crate) fn open(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: a valid C string.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) })?;
    // SAFETY: a fresh descriptor.
    Ok(unsafe { owned(fd.into()) })
}

/// Makes a FIFO; an existing one stays.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a valid C string.
    match check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

/// Switches non-blocking mode on.
pub(crate) fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain fcntl on an open descriptor.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Reads into `buffer`; `Ok(0)` is the end.
pub(crate) fn read(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is valid for its length.
        match check(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) } as i64) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|count| count as usize),
        }
    }
}

/// Writes some of `bytes`.
pub(crate) fn write(fd: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the slice is valid for its length.
        match check(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) } as i64) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(|count| count as usize),
        }
    }
}

/// Sets a namespace of the calling thread.
pub(crate) fn setns(fd: &impl AsRawFd, kinds: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }).map(drop)
}

/// Replaces a file in one step: readers see the old or the new content, also after a kill. Of
/// several writers, in this process or others, one wins and none fails.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    // A shim and the server may both have an exit to record: a name of their own for each.
    temporary.push(format!(".{}.new", nix::unistd::gettid()));
    std::fs::write(&temporary, content).attempt(|| format!("write {}", path.display()))?;
    std::fs::rename(&temporary, path).attempt(|| format!("replace {}", path.display()))
}

/// Two connected sockets that keep message boundaries.
pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array holds the two descriptors that the call fills in.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) })?;
    // SAFETY: fresh descriptors.
    Ok(unsafe { (owned(fds[0].into()), owned(fds[1].into())) })
}

/// The descriptors that fit one message.
const MESSAGE_DESCRIPTORS_MAX: usize = 3;

/// Room for the control message of [`MESSAGE_DESCRIPTORS_MAX`] descriptors.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends one message with descriptors.
pub(crate) fn send(socket: &impl AsRawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    assert!(fds.len() <= MESSAGE_DESCRIPTORS_MAX, "too many descriptors for one message");
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid msghdr; the pointers set below outlive the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let size = size_of_val(fds) as u32;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE of three descriptors is below the buffer's 64 bytes, the buffer is
        // aligned, and CMSG_FIRSTHDR points into it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
            std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(header), size as usize);
        }
    }
    // SAFETY: the message is fully set up.
    check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as i64).map(drop)
}

/// Receives one message with the descriptors that came with it. A length of 0 is the end.
pub(crate) fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid msghdr; the pointers set below outlive the call.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    let count = loop {
        // SAFETY: the message is fully set up.
        match check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) } as i64) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled in well-formed control messages within the buffer, and every
    // descriptor in them is fresh.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((count as usize, fds))
}

/// Puts a descriptor that its holder owns on the reactor.
pub(crate) fn on_reactor<T: AsRawFd + std::os::fd::AsFd>(
    holder: T,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<T>> {
    // SAFETY: `AsFd` promises that the descriptor stays open and the same while the holder lives,
    // and all our holders own theirs.
    unsafe { tokio::io::unix::AsyncFd::register_with_interest(holder, interest) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::write_atomically;

    #[test]
    fn of_several_writers_of_a_file_none_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || (0..500).for_each(|_| write_atomically(path, &[writer]).unwrap()));
            }
        });
        assert_eq!(std::fs::read(&path).unwrap().len(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
