//! Files that change all at once: a timestamped directory behind the `..data` link.
//!
//! Readers see either the old set or the new one. The layout is what programs that watch
//! ConfigMaps and Secrets expect (`..data` is a link to `..<time>`, each name a link into it).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use skiff_base::{Random, Timestamp};

/// One file of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileContent {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// The owner when it is not root.
    pub(crate) owner: Option<u32>,
}

/// The files of a volume by their relative path.
pub(crate) type Payload = BTreeMap<String, FileContent>;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes `dir` hold exactly `payload`; the group of everything is `group` when given.
///
/// Gives whether something changed.
pub(crate) fn write(
    dir: &Path,
    payload: &Payload,
    group: Option<u32>,
    now: Timestamp,
    random: &Random,
) -> io::Result<bool> {
    for path in payload.keys() {
        check_path(path)?;
    }
    fs::create_dir_all(dir)?;
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(dir, Permissions::from_mode(mode))?;
    if let Some(group) = group {
        chown(dir, None, Some(group))?;
    }
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && matches(&data, payload, group)? {
        return Ok(false);
    }
    let next = format!("..{}.{}", stamp(now), random.below(4_000_000_000));
    let next_dir = dir.join(&next);
    fs::create_dir(&next_dir)?;
    fs::set_permissions(&next_dir, Permissions::from_mode(0o755))?;
    if let Some(group) = group {
        chown(&next_dir, None, Some(group))?;
    }
    for (path, content) in payload {
        write_one(&next_dir, path, content, group)?;
    }
    let link = dir.join(DATA_NEXT);
    drop(fs::remove_file(&link));
    symlink(&next, &link)?;
    fs::rename(&link, &data)?;
    link_names(dir, payload)?;
    if let Some(old) = old.filter(|old| old.components().count() == 1) {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn check_path(path: &str) -> io::Result<()> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("invalid path {path:?}: must be relative, without `..`"),
        ));
    }
    Ok(())
}

fn write_one(dir: &Path, path: &str, content: &FileContent, group: Option<u32>) -> io::Result<()> {
    let file = dir.join(path);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&file, &content.data)?;
    // The umask must not take part.
    fs::set_permissions(&file, Permissions::from_mode(content.mode))?;
    if group.is_some() || content.owner.is_some() {
        chown(&file, content.owner, group)?;
    }
    Ok(())
}

/// Whether the present files are the wanted ones, modes included.
fn matches(data: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let mut count = 0;
    let mut pending = vec![data.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                count += 1;
            }
        }
    }
    if count != payload.len() {
        return Ok(false);
    }
    for (path, content) in payload {
        let file = data.join(path);
        let Ok(meta) = fs::metadata(&file) else { return Ok(false) };
        let same = meta.mode() & 0o7777 == content.mode && group.is_none_or(|group| meta.gid() == group);
        if !same || fs::read(&file)? != content.data {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Links every top-level name into `..data` and removes links whose file is gone.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: std::collections::BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_symlink() && !name.starts_with("..") && !wanted.contains(&*name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `2026_11_22_17_03_59`, as upstream names the directories.
fn stamp(now: Timestamp) -> String {
    let time = k8s_openapi::jiff::Timestamp::from_second(now.as_secs()).unwrap_or_default();
    time.strftime("%Y_%m_%d_%H_%M_%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> FileContent {
        FileContent { data: text.into(), mode: 0o644, owner: None }
    }

    fn put(dir: &Path, payload: &Payload) -> bool {
        write(dir, payload, None, Timestamp::from_secs(1), &Random::system()).unwrap()
    }

    #[test]
    fn a_change_swaps_all_files_at_once_and_leaves_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = Payload::from([("a".into(), file("1")), ("sub/b".into(), file("2"))]);
        assert!(put(dir.path(), &first));
        assert!(!put(dir.path(), &first), "nothing changed");
        let before = fs::read_link(dir.path().join(DATA)).unwrap();
        let second = Payload::from([("a".into(), file("3"))]);
        assert!(put(dir.path(), &second));
        assert_ne!(fs::read_link(dir.path().join(DATA)).unwrap(), before);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(fs::symlink_metadata(dir.path().join("sub")).is_err());
        let directories =
            fs::read_dir(dir.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(directories.count(), 1);
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "", "..data"] {
            let payload = Payload::from([(path.to_owned(), file("1"))]);
            assert!(write(dir.path(), &payload, None, Timestamp::EPOCH, &Random::system()).is_err(), "{path}");
        }
    }
}
