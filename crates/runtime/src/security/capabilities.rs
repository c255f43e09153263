//! Capability sets: names, the default of a container, add and drop, and applying them.

use std::io;

use serde::{Deserialize, Serialize};

use crate::cri::Capability;
use crate::sys::check;

/// Names in bit order (`include/uapi/linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when its pod says nothing, as with containerd.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The sets a container's process starts with. The inheritable set is the ambient one: never
/// more, so that a file's inheritable capabilities give nothing (CVE-2022-24769).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sets {
    /// Bounding, permitted and effective.
    pub(crate) granted: u64,
    /// Ambient and inheritable.
    pub(crate) ambient: u64,
}

/// The bit of a name with or without `CAP_`, in any case; `None` for an unknown name.
pub(crate) fn bit(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|&known| known == short).map(|index| index as u32)
}

/// The default set as a mask.
pub(crate) fn default_mask() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |mask, bit| mask | 1 << bit)
}

/// The sets for a container, from what its pod adds and drops. `available` is what this process
/// may give (its own permitted set): more cannot be granted, so it is left out.
///
/// # Errors
/// The name that is no capability.
pub(crate) fn resolve(change: Option<&Capability>, privileged: bool, available: u64) -> Result<Sets, String> {
    if privileged {
        return Ok(Sets { granted: available, ambient: 0 });
    }
    let empty = Capability::default();
    let change = change.unwrap_or(&empty);
    let mask = |names: &[String]| {
        names.iter().try_fold(0_u64, |mask, name| match name.to_ascii_uppercase().as_str() {
            "ALL" | "CAP_ALL" => Ok(!0),
            _ => bit(name).map(|bit| mask | 1 << bit).ok_or_else(|| format!("unknown capability {name:?}")),
        })
    };
    let (add, drop) = (mask(&change.add_capabilities)?, mask(&change.drop_capabilities)?);
    let all =
        |names: &[String]| names.iter().any(|name| matches!(name.to_ascii_uppercase().as_str(), "ALL" | "CAP_ALL"));
    // ALL comes first on either side, single names after it.
    let mut granted = if all(&change.add_capabilities) { !0 } else { default_mask() };
    if all(&change.drop_capabilities) {
        granted = 0;
    }
    if !all(&change.add_capabilities) {
        granted |= add;
    }
    if !all(&change.drop_capabilities) {
        granted &= !drop;
    }
    let ambient = mask(&change.add_ambient_capabilities)?;
    let granted = (granted | ambient) & available;
    Ok(Sets { granted, ambient: ambient & granted })
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Halves {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

/// The permitted set of this process.
pub(crate) fn permitted() -> io::Result<u64> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Halves::default(); 2];
    // SAFETY: version 3 reads the header and fills in two halves.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) })?;
    Ok(u64::from(halves[0].permitted) | u64::from(halves[1].permitted) << 32)
}

/// Drops everything else from the bounding set. Needs `SETPCAP`, so it comes before [`apply`].
pub(crate) fn bound(sets: Sets) -> io::Result<()> {
    for bit in 0..64_u32 {
        if sets.granted & 1 << bit == 0 {
            // SAFETY: no memory is involved. EINVAL: the kernel knows no such capability.
            match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(bit), 0, 0, 0) }) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                other => drop(other?),
            }
        }
    }
    Ok(())
}

/// Sets permitted, effective, inheritable and ambient of this process.
pub(crate) fn apply(sets: Sets) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Halves {
        effective: (sets.granted >> shift) as u32,
        permitted: (sets.granted >> shift) as u32,
        inheritable: (sets.ambient >> shift) as u32,
    };
    let mut halves = [half(0), half(32)];
    // SAFETY: version 3 reads the header and two halves.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_mut_ptr()) })?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    for bit in (0..64_u32).filter(|bit| sets.ambient & 1 << bit != 0) {
        // SAFETY: as above.
        check(unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(bit), 0, 0)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_row(add: &[&str], drop: &[&str], expected: &[&str]) {
        let change = Capability {
            add_capabilities: add.iter().map(ToString::to_string).collect(),
            drop_capabilities: drop.iter().map(ToString::to_string).collect(),
            add_ambient_capabilities: Vec::new(),
        };
        let all = (1 << NAMES.len()) - 1;
        let granted = resolve(Some(&change), false, all).unwrap().granted;
        let mut names: Vec<_> =
            NAMES.iter().enumerate().filter(|(i, _)| granted & 1 << i != 0).map(|(_, n)| *n).collect();
        let mut expected = expected.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected, "add {add:?} drop {drop:?}");
    }

    #[test]
    fn add_and_drop_combine_as_with_containerd() {
        check_row(&[], &[], &DEFAULT);
        check_row(&[], &["ALL"], &[]);
        check_row(&["NET_BIND_SERVICE"], &["ALL"], &["NET_BIND_SERVICE"]);
        check_row(&["CAP_SYS_TIME"], &["cap_mknod"], &{
            let mut names: Vec<_> = DEFAULT.iter().copied().filter(|name| *name != "MKNOD").collect();
            names.push("SYS_TIME");
            names
        });
    }

    #[test]
    fn all_but_one_and_unknown_names() {
        let all = (1_u64 << NAMES.len()) - 1;
        let change = Capability {
            add_capabilities: vec!["ALL".into()],
            drop_capabilities: vec!["SYS_ADMIN".into()],
            add_ambient_capabilities: Vec::new(),
        };
        assert_eq!(resolve(Some(&change), false, all).unwrap().granted, all & !(1 << bit("SYS_ADMIN").unwrap()));
        let change = Capability { add_capabilities: vec!["FLY".into()], ..Capability::default() };
        assert_eq!(resolve(Some(&change), false, all).unwrap_err(), "unknown capability \"FLY\"");
    }

    #[test]
    fn what_this_process_lacks_is_not_granted() {
        assert_eq!(resolve(None, true, 0b101).unwrap(), Sets { granted: 0b101, ambient: 0 });
        assert_eq!(resolve(None, false, 0).unwrap().granted, 0);
    }
}
