//! Layer archives into directories that overlayfs can mount.
//!
//! An archive is hostile until proven otherwise: every path is resolved beneath the layer's
//! directory, device nodes are not made, and attributes that overlayfs or the host would act on
//! are not set.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::store::{ImageError, ImageStore, LayerSize, digest_text};
use crate::sys::{Attempt, Beneath, c_path, check, open_beneath, owned};

/// The bytes and entries that one layer may have: more than any real image, less than a disk.
const LAYER_BYTES_MAX: u64 = 128 << 30;
const LAYER_ENTRIES_MAX: u64 = 8_000_000;
/// The largest symbolic link or attribute that the kernel takes.
const NAME_BYTES_MAX: usize = 4_096;

impl ImageStore {
    /// Unpacks a (perhaps compressed) layer archive unless the layer is here already. Blocking.
    ///
    /// # Errors
    /// When the archive is broken, attacks its surroundings, or is not what its digest says.
    pub(super) fn unpack_layer(&self, archive: impl Read, diff_id: &str) -> Result<(), ImageError> {
        if self.layer_size(diff_id).is_ok() {
            return Ok(());
        }
        let dir = self.temporary(&self.0.layers_dir);
        let result = fs::create_dir(&dir).map_err(ImageError::from).and_then(|()| {
            let (size, digest) = unpack(decompressed(archive)?, &dir)?;
            if digest != diff_id {
                return Err(ImageError::invalid(format!("layer {diff_id}"), format!("its content is {digest}")));
            }
            self.place_layer(&dir, diff_id, size)
        });
        if result.is_err() {
            let _ = fs::remove_dir_all(&dir);
        }
        result
    }
}

/// The plain bytes behind gzip, zstd or nothing, told apart by their first bytes.
pub(super) fn decompressed<'a>(mut archive: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < head.len() {
        match archive.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let whole = io::Cursor::new(head[..filled].to_vec()).chain(archive);
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(
            ruzstd::decoding::StreamingDecoder::new(whole)
                .map_err(|error| ImageError::invalid("zstd stream", error))?,
        ),
        _ => Box::new(whole),
    })
}

/// Counts and hashes what passes.
struct Meter<R> {
    inner: R,
    hash: ring::digest::Context,
    bytes: u64,
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        if self.bytes > LAYER_BYTES_MAX {
            return Err(io::Error::other("the layer is larger than 128 GiB"));
        }
        Ok(count)
    }
}

/// Unpacks into the empty directory `dir`; gives its size and the digest of the archive.
pub(super) fn unpack(archive: impl Read, dir: &Path) -> Result<(LayerSize, String), ImageError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let mut meter = Meter { inner: archive, hash: ring::digest::Context::new(&ring::digest::SHA256), bytes: 0 };
    let mut layer = Layer { tree: Beneath::open(dir)?, times: Vec::new(), size: LayerSize { bytes: 0, inodes: 1 } };
    {
        let mut archive = tar::Archive::new(&mut meter);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            layer
                .add(&mut entry, &path)
                .map_err(|error| ImageError::invalid(format!("layer entry {}", path.display()), error))?;
            if layer.size.inodes > LAYER_ENTRIES_MAX {
                return Err(ImageError::invalid("layer", "has more than 8 million entries"));
            }
        }
    }
    layer.set_times()?;
    // The padding at the end belongs to the digest.
    io::copy(&mut meter, &mut io::sink())?;
    Ok((layer.size, digest_text(meter.hash.finish().as_ref())))
}

struct Layer {
    tree: Beneath,
    /// Of directories: their content changes them until the end.
    times: Vec<(PathBuf, libc::timespec)>,
    size: LayerSize,
}

/// A path inside the layer; `None` for its root.
fn inside(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(io::Error::other("the path leaves the image")),
        }
    }
    Ok((!inside.as_os_str().is_empty()).then_some(inside))
}

impl Layer {
    fn add<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, tar::EntryType::XGlobalHeader | tar::EntryType::XHeader) {
            return Ok(());
        }
        let Some(path) = inside(path)? else {
            return self.describe(entry, &self.tree.0.try_clone()?, c".", kind);
        };
        let (parent, name) = self.tree.parent(&path)?;
        if let Some(hidden) = name.as_os_str().as_bytes().strip_prefix(b".wh.") {
            return white_out(&parent, hidden);
        }
        let c_name = c_path(&name)?;
        self.make_room(&parent, &c_name, kind)?;
        self.size.inodes += 1;
        match kind {
            tar::EntryType::Directory => {
                // SAFETY: a valid C string below an open directory.
                match check(unsafe { libc::mkdirat(parent.as_raw_fd(), c_name.as_ptr(), 0o755) }) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    other => drop(other?),
                }
                self.times.push((path, time(entry)));
            }
            tar::EntryType::Symlink => {
                let target = link_target(entry)?;
                let target = c_path(&target)?;
                // SAFETY: valid C strings.
                check(unsafe { libc::symlinkat(target.as_ptr(), parent.as_raw_fd(), c_name.as_ptr()) })?;
            }
            tar::EntryType::Link => return self.hard_link(entry, &parent, &c_name),
            tar::EntryType::Fifo => {
                // SAFETY: a valid C string.
                check(unsafe { libc::mknodat(parent.as_raw_fd(), c_name.as_ptr(), libc::S_IFIFO | 0o600, 0) })?;
            }
            // A node 0:0 would hide a file of a lower layer, others open the host's devices to
            // whoever gets the permission; containers have a /dev of their own.
            tar::EntryType::Char | tar::EntryType::Block => return Ok(()),
            _ => self.file(entry, &parent, &c_name)?,
        }
        self.describe(entry, &parent, &c_name, kind)
    }

    /// Removes what an earlier entry of the same layer has put there.
    fn make_room(&self, parent: &OwnedFd, name: &CString, kind: tar::EntryType) -> io::Result<()> {
        // SAFETY: all-zero is a valid buffer, and the string is valid.
        let mode = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            match check(libc::fstatat(parent.as_raw_fd(), name.as_ptr(), &raw mut stat, libc::AT_SYMLINK_NOFOLLOW)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => drop(other?),
            }
            stat.st_mode & libc::S_IFMT
        };
        if mode != libc::S_IFDIR {
            // SAFETY: a valid C string.
            return check(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), 0) }).map(drop);
        }
        if kind == tar::EntryType::Directory {
            return Ok(());
        }
        // One component below a handle: nothing on the way can be exchanged.
        fs::remove_dir_all(beneath(parent, name))
    }

    fn file<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, parent: &OwnedFd, name: &CString) -> io::Result<()> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        // SAFETY: a valid C string; gives a fresh descriptor.
        let fd = unsafe { owned(check(libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, 0o600))?.into()) };
        let copied = io::copy(entry, &mut fs::File::from(fd))?;
        self.size.bytes += copied;
        Ok(())
    }

    fn hard_link<R: Read>(&self, entry: &tar::Entry<'_, R>, parent: &OwnedFd, name: &CString) -> io::Result<()> {
        let target = inside(&link_target(entry)?)?.ok_or_else(|| io::Error::other("a link to the root"))?;
        let source = open_beneath(&self.tree.0, &target, libc::O_PATH | libc::O_NOFOLLOW)
            .attempt(|| format!("link to {}", target.display()))?;
        // SAFETY: valid C strings and descriptors.
        check(unsafe {
            libc::linkat(source.as_raw_fd(), c"".as_ptr(), parent.as_raw_fd(), name.as_ptr(), libc::AT_EMPTY_PATH)
        })
        .map(drop)
    }

    /// Owner, mode, attributes, time; in this order, because a change of owner clears the others.
    fn describe<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        parent: &OwnedFd,
        name: &std::ffi::CStr,
        kind: tar::EntryType,
    ) -> io::Result<()> {
        let header = entry.header();
        // An empty field is zero, as other readers take it.
        let id = |id: io::Result<u64>| u32::try_from(id.unwrap_or(0)).map_err(io::Error::other);
        let (uid, gid, mode) = (id(header.uid())?, id(header.gid())?, header.mode()? & 0o7777);
        let when = [time(entry), time(entry)];
        // SAFETY: a valid C string below an open directory, and two valid times.
        unsafe {
            check(libc::fchownat(parent.as_raw_fd(), name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW))?;
            if kind != tar::EntryType::Symlink {
                check(libc::fchmodat(parent.as_raw_fd(), name.as_ptr(), mode, 0))?;
            }
        }
        for (key, value) in attributes(entry)? {
            let path = c_path(&beneath(parent, name))?;
            // SAFETY: valid C strings, and a value of the given length.
            let set =
                check(unsafe { libc::lsetxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), 0) });
            match set {
                Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
                other => drop(other.attempt(|| format!("set {}", key.to_string_lossy()))?),
            }
        }
        // SAFETY: as above.
        check(unsafe { libc::utimensat(parent.as_raw_fd(), name.as_ptr(), when.as_ptr(), libc::AT_SYMLINK_NOFOLLOW) })
            .map(drop)
    }

    fn set_times(&self) -> io::Result<()> {
        for (path, when) in self.times.iter().rev() {
            // A later entry may have put something else there.
            let Ok(dir) = open_beneath(&self.tree.0, path, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW)
            else {
                continue;
            };
            let when = [*when, *when];
            // SAFETY: two valid times.
            check(unsafe { libc::futimens(dir.as_raw_fd(), when.as_ptr()) })?;
        }
        Ok(())
    }
}

fn beneath(parent: &OwnedFd, name: &std::ffi::CStr) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

fn time<R: Read>(entry: &tar::Entry<'_, R>) -> libc::timespec {
    let seconds = entry.header().mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
    libc::timespec { tv_sec: seconds, tv_nsec: 0 }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?;
    if target.as_os_str().len() >= NAME_BYTES_MAX {
        return Err(io::Error::other("the link's target is too long"));
    }
    Ok(target.into_owned())
}

/// The attributes that an image may set: file capabilities and what users set themselves.
/// `trusted.overlay.*` would redirect lookups, and labels belong to the host.
fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
    for extension in extensions {
        let extension = extension?;
        let Some(key) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        if key == b"security.capability" || key.starts_with(b"user.") {
            found.push((crate::sys::c_string(key)?, extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Docker's marks as overlayfs has them.
fn white_out(parent: &OwnedFd, hidden: &[u8]) -> io::Result<()> {
    if hidden == b".wh..opq" {
        let path = c_path(Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())))?;
        // SAFETY: valid C strings, and a value of the given length.
        return check(unsafe {
            libc::setxattr(path.as_ptr(), c"trusted.overlay.opaque".as_ptr(), b"y".as_ptr().cast(), 1, 0)
        })
        .attempt(|| "mark an opaque directory".into())
        .map(drop);
    }
    if hidden.starts_with(b".wh.") || hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Ok(()); // AUFS's own bookkeeping, or nonsense
    }
    let name = crate::sys::c_string(hidden)?;
    // SAFETY: a valid C string below an open directory.
    match check(unsafe { libc::mknodat(parent.as_raw_fd(), name.as_ptr(), libc::S_IFCHR, 0) }) {
        // What the same layer adds stays: the mark is about the layers below.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    /// An archive of raw entries: kind, path, link target or content.
    fn archive(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, path, text) in entries {
            let mut header = tar::Header::new_gnu();
            let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
            header.set_entry_type(*kind);
            header.set_mode(if *kind == tar::EntryType::Directory { 0o750 } else { 0o4755 });
            header.set_mtime(1_000_000);
            header.set_uid(0);
            header.set_gid(0);
            // Raw, as the library refuses to write what an attacker would.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if is_link {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
                header.set_size(0);
            } else {
                header.set_size(text.len() as u64);
            }
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            if !is_link {
                bytes.extend_from_slice(text.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(512), 0);
            }
        }
        bytes.resize(bytes.len() + 1_024, 0);
        bytes
    }

    fn check_unpack(entries: &[(tar::EntryType, &str, &str)]) -> (tempfile::TempDir, Result<LayerSize, String>) {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("layer");
        fs::create_dir(&dir).unwrap();
        fs::write(outer.path().join("secret"), "host").unwrap();
        let result = unpack(archive(entries).as_slice(), &dir).map(|(size, _)| size).map_err(|error| error.to_string());
        assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "host");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "something was made outside");
        (outer, result)
    }

    use tar::EntryType as Kind;

    #[test]
    fn an_ordinary_layer_keeps_modes_times_and_links() {
        let (outer, result) = check_unpack(&[
            (Kind::Directory, "./dir/", ""),
            (Kind::Regular, "./dir/tool", "content"),
            (Kind::Link, "./dir/same", "./dir/tool"),
            (Kind::Symlink, "./link", "/etc/passwd"),
            (Kind::Fifo, "./pipe", ""),
        ]);
        assert_eq!(result.unwrap().bytes, 7);
        let layer = outer.path().join("layer");
        let tool = fs::metadata(layer.join("dir/tool")).unwrap();
        assert_eq!((tool.mode() & 0o7777, tool.mtime(), tool.nlink()), (0o4755, 1_000_000, 2));
        let dir = fs::metadata(layer.join("dir")).unwrap();
        assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o750, 1_000_000));
        assert!(fs::symlink_metadata(layer.join("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_link(layer.join("link")).unwrap(), Path::new("/etc/passwd"));
    }

    #[test]
    fn nothing_gets_out() {
        for entries in [
            &[(Kind::Regular, "../secret", "evil")][..],
            &[(Kind::Regular, "a/../../secret", "evil")],
            &[(Kind::Link, "x", "../secret"), (Kind::Regular, "x", "evil")],
        ] {
            let (_outer, result) = check_unpack(entries);
            assert!(result.unwrap_err().contains("leaves the image"), "{entries:?}");
        }
        let (outer, result) = check_unpack(&[
            (Kind::Symlink, "up", ".."),
            (Kind::Regular, "up/secret", "evil"),
            (Kind::Symlink, "abs", "/"),
            (Kind::Regular, "abs/inside", "kept in"),
            (Kind::Symlink, "file", "/secret"),
            (Kind::Regular, "file", "replaces the link"),
        ]);
        result.unwrap();
        let layer = outer.path().join("layer");
        assert_eq!(fs::read_to_string(layer.join("inside")).unwrap(), "kept in");
        assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), "replaces the link");
        assert_eq!(fs::read_to_string(layer.join("secret")).unwrap(), "evil");
        let (_outer, result) = check_unpack(&[(Kind::Symlink, "l", "/secret"), (Kind::Link, "hard", "l/x")]);
        assert!(result.is_err());
    }

    #[test]
    fn devices_are_not_made_and_marks_become_overlay_marks() {
        if !nix::unistd::geteuid().is_root() {
            return; // whiteouts are device nodes
        }
        let (outer, result) = check_unpack(&[
            (Kind::Char, "null", ""),
            (Kind::Block, "disk", ""),
            (Kind::Regular, "dir/.wh.gone", ""),
            (Kind::Regular, "dir/.wh..wh..opq", ""),
            (Kind::Regular, "kept", "x"),
            (Kind::Regular, ".wh.kept", ""),
            (Kind::Regular, ".wh...", ""),
        ]);
        result.unwrap();
        let layer = outer.path().join("layer");
        assert!(!layer.join("null").exists() && !layer.join("disk").exists());
        let gone = fs::symlink_metadata(layer.join("dir/gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert_eq!(fs::read_to_string(layer.join("kept")).unwrap(), "x");
    }

    #[test]
    fn broken_archives_are_errors() {
        let whole = archive(&[(Kind::Regular, "file", "some text")]);
        let dir = tempfile::tempdir().unwrap();
        assert!(unpack(&whole[..516], dir.path()).is_err());
        let mut broken = whole;
        broken[0] ^= 1;
        let dir = tempfile::tempdir().unwrap();
        assert!(unpack(broken.as_slice(), dir.path()).is_err());
    }
}
