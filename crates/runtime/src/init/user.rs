//! Users and groups by name, looked up in the container's own files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::spec::{Identity, UserSpec};
use crate::sys::open_beneath;

/// Larger files are cut: they belong to an image, not to us.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A user with what its entry tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) identity: Identity,
    pub(super) home: String,
}

/// Resolves against `etc/passwd` and `etc/group` below `root`.
pub(super) fn resolve(root: &impl AsRawFd, spec: &UserSpec) -> io::Result<Resolved> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    lookup(spec, &passwd, &group).map_err(io::Error::other)
}

fn read(root: &impl AsRawFd, path: &str) -> io::Result<String> {
    // Non-blocking: an image may have put a FIFO there.
    let fd: OwnedFd = match open_beneath(root, Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK) {
        Ok(fd) => fd,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
            return Ok(String::new());
        }
        Err(error) => return Err(error),
    };
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or("")))
    })
}

fn lookup(spec: &UserSpec, passwd: &str, group: &str) -> Result<Resolved, String> {
    let (user, wanted_group) = match spec.user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec.user.as_str(), None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = entries(passwd).find(|entry| entry.name == user || Some(entry.uid) == number);
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
    };
    let gid = match wanted_group.filter(|name| !name.is_empty()) {
        None => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(name) => match groups(group).find(|(known, _, _)| *known == name) {
            Some((_, gid, _)) => gid,
            None => {
                name.parse().map_err(|_| format!("unable to find group {name}: no matching entries in group file"))?
            }
        },
    };
    // The primary group is listed too, so that a file mode can deny it (CVE-2023-25173).
    let mut all = vec![gid];
    if let (Some(entry), false) = (&entry, spec.strict_groups) {
        let member = |list: &str| list.split(',').any(|name| name == entry.name);
        all.extend(groups(group).filter(|(_, _, list)| member(list)).map(|(_, gid, _)| gid));
    }
    all.extend(&spec.supplemental_groups);
    let mut unique = Vec::new();
    for gid in all {
        if !unique.contains(&gid) {
            unique.push(gid);
        }
    }
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(Resolved { identity: Identity { uid, gid, groups: unique }, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:::/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:web,other\nstaff:x:50:web\nwebgroup:x:1001:\n";

    fn check(user: &str, strict_groups: bool, expected: Result<(u32, u32, &[u32], &str), &str>) {
        let spec = UserSpec { user: user.into(), supplemental_groups: vec![7, 33], strict_groups };
        let found = lookup(&spec, PASSWD, GROUP);
        match expected {
            Ok((uid, gid, groups, home)) => assert_eq!(
                found,
                Ok(Resolved { identity: Identity { uid, gid, groups: groups.into() }, home: home.into() }),
                "{user}"
            ),
            Err(text) => assert_eq!(found.unwrap_err(), text),
        }
    }

    #[test]
    fn users_resolve_as_with_containerd() {
        check("", false, Ok((0, 0, &[0, 7, 33], "/root")));
        check("web", false, Ok((1000, 1001, &[1001, 33, 50, 7], "/")));
        check("web", true, Ok((1000, 1001, &[1001, 7, 33], "/")));
        check("1000:www", false, Ok((1000, 33, &[33, 50, 7], "/")));
        check("4711", false, Ok((4711, 0, &[0, 7, 33], "/")));
        check("4711:4712", false, Ok((4711, 4712, &[4712, 7, 33], "/")));
        check("nobody", false, Err("unable to find user nobody: no matching entries in passwd file"));
        check("0:nogroup", false, Err("unable to find group nogroup: no matching entries in group file"));
    }
}
