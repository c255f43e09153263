//! Mounts by descriptor: make or clone one detached, set its attributes, then move it in place.

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use super::{c_path, c_string, check, owned};

/// How mount events travel between a mount and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// Not at all.
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways; the clone stays a peer of its origin.
    Shared,
}

/// A new detached filesystem of `kind` with `options` (an empty value makes a flag).
pub(crate) fn filesystem(kind: &CStr, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: a valid C string.
    let fs = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })?; // FSOPEN_CLOEXEC
    // SAFETY: a fresh descriptor.
    let fs = unsafe { owned(fs) };
    for (key, value) in options {
        let key = c_string(key.as_bytes())?;
        let text = c_string(value.as_bytes())?;
        let (command, value) = if value.is_empty() {
            (libc::FSCONFIG_SET_FLAG, ptr::null())
        } else {
            (libc::FSCONFIG_SET_STRING, text.as_ptr())
        };
        configure(&fs, command as i64, key.as_ptr(), value)
            .map_err(|error| explain(&fs, error, &format!("option {}", key.to_string_lossy())))?;
    }
    configure(&fs, libc::FSCONFIG_CMD_CREATE as i64, ptr::null(), ptr::null())
        .map_err(|error| explain(&fs, error, "create"))?;
    // SAFETY: plain descriptor call.
    let mount =
        check(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes as u32) })?;
    // SAFETY: a fresh descriptor.
    Ok(unsafe { owned(mount) })
}

fn configure(fs: &OwnedFd, command: i64, key: *const libc::c_char, value: *const libc::c_char) -> io::Result<()> {
    // SAFETY: key and value are null or valid C strings, as the command wants them.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key, value, 0) }).map(drop)
}

/// The kernel leaves its reason as text on the context's descriptor.
fn explain(fs: &OwnedFd, error: io::Error, attempt: &str) -> io::Error {
    let mut text = [0_u8; 256];
    let reason = super::read(fs, &mut text).map(|count| String::from_utf8_lossy(&text[..count]).trim().to_owned());
    match reason {
        Ok(reason) if !reason.is_empty() => io::Error::new(error.kind(), format!("{attempt}: {error} ({reason})")),
        _ => io::Error::new(error.kind(), format!("{attempt}: {error}")),
    }
}

/// A detached copy of the mount tree at `path` below `at` (the descriptor itself for an empty
/// path). The copy is a peer of its origin until its propagation is set.
pub(crate) fn clone_tree(at: Option<&OwnedFd>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    let at = at.map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
    // SAFETY: a valid C string.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) })?;
    // SAFETY: a fresh descriptor.
    Ok(unsafe { owned(fd) })
}

/// Sets (never clears) mount attributes of a mount, or of the whole tree.
pub(crate) fn set_attributes(mount: &OwnedFd, set: u64, recursive: bool) -> io::Result<()> {
    change(mount, set, 0, recursive)
}

/// Sets the propagation of a whole mount tree.
pub(crate) fn set_propagation(mount: &OwnedFd, propagation: Propagation) -> io::Result<()> {
    let flag = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    change(mount, 0, flag, true)
}

fn change(mount: &OwnedFd, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    // SAFETY: all-zero is a valid mount_attr.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = set;
    attributes.propagation = propagation;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty C string and a mount_attr of the given size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Attaches a detached mount on top of `target`.
pub(crate) fn move_onto(mount: &OwnedFd, target: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: empty C strings; both descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}
