//! Paths that come from images and pods, resolved beneath a directory handle (`openat2`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use super::{c_path, check, owned};

/// Opens `path` as if `root` were `/`: absolute paths, symlinks and `..` stay inside, and links
/// of `/proc` are refused.
pub(crate) fn open_beneath(root: &impl AsRawFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: all-zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // EAGAIN: something was renamed while the kernel walked; bounded, then an error.
    for _ in 0..64 {
        // SAFETY: a valid C string and an open_how of the given size.
        let fd = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match fd {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // SAFETY: a fresh descriptor.
            other => return other.map(|fd| unsafe { owned(fd) }),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the directory tree keeps changing"))
}

/// A directory below which paths are made and opened.
#[derive(Debug)]
pub(crate) struct Beneath(pub(crate) OwnedFd);

impl Beneath {
    /// The tree at `path` of the host.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        super::open(path, libc::O_PATH | libc::O_DIRECTORY).map(Self)
    }

    /// An `O_PATH` handle, following symlinks inside the tree.
    pub(crate) fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        open_beneath(&self.0, relative(path), libc::O_PATH)
    }

    /// The directory at `path`, made (mode 0755) together with its missing parents.
    pub(crate) fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = relative(path);
        match open_beneath(&self.0, path, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut made = PathBuf::new();
        let mut current = self.0.try_clone()?;
        for component in path.components() {
            match component {
                Component::Normal(name) => made.push(name),
                Component::ParentDir => made.push(".."),
                _ => continue,
            }
            current = match open_beneath(&self.0, &made, libc::O_PATH | libc::O_DIRECTORY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let name = c_path(Path::new(made.file_name().unwrap_or_default()))?;
                    // SAFETY: a valid C string below an open directory.
                    match check(unsafe { libc::mkdirat(current.as_raw_fd(), name.as_ptr(), 0o755) }) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => open_beneath(&self.0, &made, libc::O_PATH | libc::O_DIRECTORY)?,
                    }
                }
                other => other?,
            };
        }
        Ok(current)
    }

    /// The existing thing at `path`, or a new empty file there (parents are made too): the target
    /// of a bind mount of a file.
    pub(crate) fn file(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = relative(path);
        match open_beneath(&self.0, path, libc::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = self.parent(path)?;
        let name = c_path(&name)?;
        // SAFETY: a valid C string below an open directory.
        let fd = check(unsafe {
            libc::openat(
                parent.as_raw_fd(),
                name.as_ptr(),
                libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC,
                0o644,
            )
        })?;
        // SAFETY: a fresh descriptor.
        drop(unsafe { owned(fd.into()) });
        open_beneath(&parent, Path::new(std::ffi::OsStr::new(name.to_str().unwrap_or_default())), libc::O_PATH)
    }

    /// The directory that holds `path` (made if missing) and its last name.
    pub(crate) fn parent(&self, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
        let path = relative(path);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{}: names nothing", path.display())))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.directory(parent)?, PathBuf::from(name)))
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `/a/b` as `a/b`, and the tree itself as `.`.
fn relative(path: &Path) -> &Path {
    let stripped = path.strip_prefix("/").unwrap_or(path);
    if stripped.as_os_str().is_empty() { Path::new(".") } else { stripped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_never_leave_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", dir.path().join("up")).unwrap();
        let tree = Beneath::open(dir.path()).unwrap();
        assert_eq!(tree.find(Path::new("/out/passwd")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(tree.find(Path::new("../../etc/passwd")).unwrap_err().kind(), io::ErrorKind::NotFound);
        tree.file(Path::new("/a/b/file")).unwrap();
        assert!(dir.path().join("a/b/file").is_file());
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        tree.file(Path::new("/out/made")).unwrap();
        tree.directory(Path::new("up/deep/er")).unwrap();
        assert!(dir.path().join("etc/made").is_file());
        assert!(dir.path().join("etc/deep/er").is_dir());
    }
}
