//! Which device nodes the processes of a group may use.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::{Attempt, check, owned, write_existing};

/// Access that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRule {
    /// Block device rather than character device; `None` for both.
    pub(crate) block: Option<bool>,
    /// `None` for all.
    pub(crate) major: Option<u32>,
    /// `None` for all.
    pub(crate) minor: Option<u32>,
    /// Letters of `rwm`.
    pub(crate) access: String,
}

impl DeviceRule {
    /// A character device, with all access.
    fn character(major: u32, minor: impl Into<Option<u32>>) -> Self {
        Self { block: Some(false), major: Some(major), minor: minor.into(), access: "rwm".into() }
    }

    /// Everything: privileged containers.
    pub(crate) fn everything() -> Self {
        Self { block: None, major: None, minor: None, access: "rwm".into() }
    }

    /// What every container may use: making (not using) any node, the memory devices, terminals.
    pub(crate) fn defaults() -> Vec<Self> {
        let make = |block| Self { block: Some(block), major: None, minor: None, access: "m".into() };
        vec![
            make(false),
            make(true),
            Self::character(1, 3),
            Self::character(1, 5),
            Self::character(1, 7),
            Self::character(1, 8),
            Self::character(1, 9),
            Self::character(5, 0),
            Self::character(5, 1),
            Self::character(5, 2),
            Self::character(136, None),
        ]
    }

    fn v1_line(&self) -> String {
        let part = |value: Option<u32>| value.map_or_else(|| "*".to_owned(), |value| value.to_string());
        let kind = match self.block {
            None => return "a".to_owned(),
            Some(true) => 'b',
            Some(false) => 'c',
        };
        format!("{kind} {}:{} {}", part(self.major), part(self.minor), self.access)
    }
}

pub(super) fn set_v1(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let deny = dir.join("devices.deny");
    write_existing(&deny, "a").attempt(|| format!("write {}", deny.display()))?;
    let allow = dir.join("devices.allow");
    for rule in rules {
        write_existing(&allow, &rule.v1_line())
            .attempt(|| format!("write {:?} to {}", rule.v1_line(), allow.display()))?;
    }
    Ok(())
}

/// Version 2 has no files for this: a small program decides (`BPF_PROG_TYPE_CGROUP_DEVICE`).
pub(super) fn set_v2(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let program = program(rules);
    let license = c"Apache-2.0";
    let mut load = LoadAttributes {
        kind: PROGRAM_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 12],
    };
    // SAFETY: the attributes point to a program and a string that outlive the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, COMMAND_LOAD, &raw mut load, size_of::<LoadAttributes>()) })
        .attempt(|| "load the device program".into())?;
    // SAFETY: a fresh descriptor.
    let fd = unsafe { owned(fd) };
    let group = crate::sys::open(dir, libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut attach = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: fd.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ATTACH_MULTI,
        replace: 0,
    };
    // SAFETY: plain values.
    check(unsafe { libc::syscall(libc::SYS_bpf, COMMAND_ATTACH, &raw mut attach, size_of::<AttachAttributes>()) })
        .attempt(|| "attach the device program".into())
        .map(drop)
}

const COMMAND_LOAD: i32 = 5;
const COMMAND_ATTACH: i32 = 8;
const PROGRAM_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of parents stay in force.
const ATTACH_MULTI: u32 = 2;

#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    rest: [u32; 12],
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

/// One eBPF instruction.
fn word(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(destination) << 8
        | u64::from(source) << 12
        | u64::from(offset as u16) << 16
        | u64::from(value as u32) << 32
}

/// `struct bpf_cgroup_dev_ctx`: access << 16 | type, major, minor. Returns 1 for the first rule
/// that matches and covers the access, else 0.
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const MOVE_VALUE: u8 = 0xb7;
    const AND_VALUE_32: u8 = 0x54;
    const RIGHT_SHIFT_32: u8 = 0x74;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
    const EXIT: u8 = 0x95;
    // r2 type, r3 access, r4 major, r5 minor
    let mut program = vec![
        word(LOAD_WORD, 2, 1, 0, 0),
        word(MOVE, 3, 2, 0, 0),
        word(AND_VALUE_32, 2, 0, 0, 0xffff),
        word(RIGHT_SHIFT_32, 3, 0, 0, 16),
        word(LOAD_WORD, 4, 1, 4, 0),
        word(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests = Vec::new();
        if let Some(block) = rule.block {
            tests.push((2, if block { 1 } else { 2 }));
        }
        tests.extend(rule.major.map(|major| (4, major as i32)));
        tests.extend(rule.minor.map(|minor| (5, minor as i32)));
        let access = rule.access.chars().fold(0, |mask, letter| {
            mask | match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        // After the tests: three for the access, two for the answer.
        let length = tests.len() + 5;
        for (index, (register, value)) in tests.iter().enumerate() {
            program.push(word(JUMP_NOT_EQUAL, *register, 0, (length - index - 1) as i16, *value));
        }
        program.push(word(MOVE, 0, 3, 0, 0));
        program.push(word(AND_VALUE_32, 0, 0, 0, access));
        program.push(word(JUMP_NOT_EQUAL_REGISTER, 0, 3, 2, 0));
        program.push(word(MOVE_VALUE, 0, 0, 0, 1));
        program.push(word(EXIT, 0, 0, 0, 0));
    }
    program.push(word(MOVE_VALUE, 0, 0, 0, 0));
    program.push(word(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_lines_read_as_the_kernel_wants_them() {
        let lines: Vec<_> = DeviceRule::defaults().iter().map(DeviceRule::v1_line).collect();
        assert_eq!(lines[0], "c *:* m");
        assert_eq!(lines[2], "c 1:3 rwm");
        assert_eq!(lines[10], "c 136:* rwm");
        assert_eq!(DeviceRule::everything().v1_line(), "a");
    }

    #[test]
    fn the_kernel_takes_and_applies_the_program() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let point = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let Some(point) = point.and_then(|line| line.split(' ').nth(1)) else { return };
        let dir = Path::new(point).join(format!("skiff-devices-{}", std::process::id()));
        if !nix::unistd::geteuid().is_root() || std::fs::create_dir(&dir).is_err() {
            return;
        }
        let outcome = set_v2(&dir, &DeviceRule::defaults());
        let script =
            format!("echo $$ > {}/cgroup.procs && echo x > /dev/null && ! (: < /dev/kmsg) 2>/dev/null", dir.display());
        let status = std::process::Command::new("/bin/sh").args(["-c", &script]).status();
        // The group may have a dying member for a moment.
        for _ in 0..1_000 {
            if std::fs::remove_dir(&dir).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        outcome.unwrap();
        assert!(status.unwrap().success(), "{script}");
    }
}
