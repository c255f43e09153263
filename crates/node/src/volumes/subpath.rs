//! `subPath`: a part of a volume, resolved beneath a directory handle so that no link planted in
//! the volume leads out of it (the class of CVE-2017-1002101).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::is_mount_point;

/// Binds `sub_path` of the volume at `root` to `target` (made here), creating missing directories.
pub(crate) fn bind(root: &Path, sub_path: &str, target: &Path) -> io::Result<PathBuf> {
    let relative = Path::new(sub_path);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {sub_path:?} must be relative and without `..`"),
        ));
    }
    let handle = open_beneath(root, relative)?;
    let directory = SFlag::from_bits_truncate(fstat(&handle)?.st_mode).contains(SFlag::S_IFDIR);
    if target.exists() && is_mount_point(target)? {
        return Ok(target.to_path_buf());
    }
    if directory {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(target, b"")?;
    }
    let source = format!("/proc/self/fd/{}", handle.as_raw_fd());
    nix::mount::mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(target.to_path_buf())
}

fn open_beneath(root: &Path, relative: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut handle = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    match openat2(handle.as_fd(), relative, how) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    for part in relative.components().filter(|part| matches!(part, Component::Normal(_))) {
        let name = part.as_os_str();
        match mkdirat(handle.as_fd(), name, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        handle = openat2(handle.as_fd(), name, how)?;
    }
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_the_volume_cannot_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../..", dir.path().join("up")).unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        std::os::unix::fs::symlink("in", dir.path().join("inside")).unwrap();
        assert!(open_beneath(dir.path(), Path::new("out/passwd")).is_err());
        assert!(open_beneath(dir.path(), Path::new("up")).is_err());
        assert!(open_beneath(dir.path(), Path::new("inside")).is_ok());
        assert!(open_beneath(dir.path(), Path::new("new/deep")).is_ok());
        assert!(dir.path().join("new/deep").is_dir());
    }
}
