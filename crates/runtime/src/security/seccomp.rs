//! System call filters: profiles (our default, or OCI JSON) compiled to classic BPF.
//!
//! One compiler for both, with several actions per filter: `RuntimeDefault` needs EPERM for what
//! is forbidden beside ENOSYS for what the C library shall not find (`clone3`, newer calls).

use std::io;

use serde::Deserialize;

use super::default_profile;
use crate::sys::check;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is executed.
    Allow,
    /// It is executed and logged.
    Log,
    /// It fails with this errno.
    Errno(u16),
    /// The caller gets SIGSYS.
    Trap,
    /// The tracer decides; ENOSYS without one.
    Trace(u16),
    /// The thread is killed.
    KillThread,
    /// The process is killed.
    KillProcess,
}

impl Action {
    /// `SECCOMP_RET_*`.
    fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trap => 0x0003_0000,
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::KillThread => 0x0000_0000,
            Self::KillProcess => 0x8000_0000,
        }
    }
}

/// A comparison of one 64-bit argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Masked { mask: u64, equals: u64 },
}

/// A condition of a rule; all of a rule's conditions must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// 0..6.
    pub(crate) argument: u8,
    pub(crate) compare: Compare,
}

/// An action for some calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) calls: Vec<u32>,
    pub(crate) action: Action,
    pub(crate) conditions: Vec<Condition>,
}

impl Rule {
    /// A rule without conditions.
    pub(crate) fn plain(calls: Vec<u32>, action: Action) -> Self {
        Self { calls, action, conditions: Vec::new() }
    }
}

/// A whole profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// For calls that no rule names.
    pub(crate) default: Action,
    pub(crate) rules: Vec<Rule>,
}

/// A compiled filter: each instruction as in `struct sock_filter`, big end first
/// (`code << 48 | jt << 40 | jf << 32 | k`).
pub(crate) type Program = Vec<u64>;

/// The kernel's bound on a program (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4_096;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Calls of the x32 table carry this bit.
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

fn instruction(code: u16, if_true: u8, if_false: u8, value: u32) -> u64 {
    u64::from(code) << 48 | u64::from(if_true) << 40 | u64::from(if_false) << 32 | u64::from(value)
}

/// Compiles a profile.
///
/// # Errors
/// When the profile needs more instructions than the kernel takes.
pub(crate) fn compile(profile: &Profile) -> Result<Program, String> {
    let no_such_call = Action::Errno(libc::ENOSYS as u16).code();
    let mut program = vec![
        instruction(LOAD, 0, 0, 4),
        // Another machine's table (32-bit programs) would get past checks of numbers.
        instruction(JUMP_EQUAL, 1, 0, AUDIT_ARCH),
        instruction(RETURN, 0, 0, no_such_call),
        instruction(LOAD, 0, 0, 0),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(instruction(JUMP_GREATER_OR_EQUAL, 0, 1, X32_BIT));
        program.push(instruction(RETURN, 0, 0, no_such_call));
    }
    for rule in profile.rules.iter().filter(|rule| !rule.conditions.is_empty()) {
        for &call in &rule.calls {
            let mut body = Vec::new();
            conditions(&rule.conditions, rule.action, &mut body);
            let over = u8::try_from(body.len()).map_err(|_| "a rule has too many conditions".to_owned())?;
            program.push(instruction(JUMP_EQUAL, 0, over, call));
            program.extend(body);
        }
    }
    let mut newest = 0;
    for rule in profile.rules.iter().filter(|rule| rule.conditions.is_empty()) {
        for (first, last) in ranges(&rule.calls) {
            newest = newest.max(last);
            program.push(instruction(JUMP_GREATER_OR_EQUAL, 0, 2, first));
            program.push(instruction(JUMP_GREATER, 1, 0, last));
            program.push(instruction(RETURN, 0, 0, rule.action.code()));
        }
    }
    if matches!(profile.default, Action::Errno(_)) && newest > 0 {
        // Programs try calls newer than the profile and take ENOSYS, not EPERM, for "old kernel".
        program.push(instruction(JUMP_GREATER, 0, 1, newest));
        program.push(instruction(RETURN, 0, 0, no_such_call));
    }
    program.push(instruction(RETURN, 0, 0, profile.default.code()));
    if program.len() > INSTRUCTIONS_MAX {
        return Err(format!("the seccomp profile needs {} instructions of {INSTRUCTIONS_MAX}", program.len()));
    }
    Ok(program)
}

/// Runs of neighbouring numbers.
fn ranges(calls: &[u32]) -> Vec<(u32, u32)> {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for call in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == call => *last = call,
            _ => ranges.push((call, call)),
        }
    }
    ranges
}

/// Marks of jumps that are resolved once the length of the body is known.
const FAIL: u8 = 0xff;

/// All conditions, then the action; afterwards the call's number is loaded again.
fn conditions(conditions: &[Condition], action: Action, body: &mut Vec<u64>) {
    for condition in conditions {
        one_condition(condition, body);
    }
    body.push(instruction(RETURN, 0, 0, action.code()));
    let end = body.len();
    for (index, word) in body.iter_mut().enumerate() {
        if matches!((*word >> 48) as u16, JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL) {
            let over = (end - index - 1).min(254) as u64;
            for shift in [40, 32] {
                if (*word >> shift) as u8 == FAIL {
                    *word = *word & !(0xff << shift) | over << shift;
                }
            }
        }
    }
    body.push(instruction(LOAD, 0, 0, 0));
}

/// Falls through when the condition holds, jumps to [`FAIL`] when not. Arguments are compared in
/// halves, as classic BPF has 32 bits.
fn one_condition(condition: &Condition, body: &mut Vec<u64>) {
    let low = 16 + 8 * u32::from(condition.argument);
    let high = low + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let mut put = |code, if_true, if_false, value| body.push(instruction(code, if_true, if_false, value));
    match condition.compare {
        Compare::Equal(value) => {
            let (top, bottom) = halves(value);
            put(LOAD, 0, 0, high);
            put(JUMP_EQUAL, 0, FAIL, top);
            put(LOAD, 0, 0, low);
            put(JUMP_EQUAL, 0, FAIL, bottom);
        }
        Compare::NotEqual(value) => {
            let (top, bottom) = halves(value);
            put(LOAD, 0, 0, high);
            put(JUMP_EQUAL, 0, 2, top);
            put(LOAD, 0, 0, low);
            put(JUMP_EQUAL, FAIL, 0, bottom);
        }
        Compare::Masked { mask, equals } => {
            let ((mask_top, mask_bottom), (top, bottom)) = (halves(mask), halves(equals));
            put(LOAD, 0, 0, high);
            put(AND, 0, 0, mask_top);
            put(JUMP_EQUAL, 0, FAIL, top);
            put(LOAD, 0, 0, low);
            put(AND, 0, 0, mask_bottom);
            put(JUMP_EQUAL, 0, FAIL, bottom);
        }
        Compare::Greater(value) | Compare::GreaterOrEqual(value) => {
            let (top, bottom) = halves(value);
            let last =
                if matches!(condition.compare, Compare::Greater(_)) { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
            put(LOAD, 0, 0, high);
            put(JUMP_GREATER, 3, 0, top);
            put(JUMP_EQUAL, 0, FAIL, top);
            put(LOAD, 0, 0, low);
            put(last, 0, FAIL, bottom);
        }
        Compare::Less(value) | Compare::LessOrEqual(value) => {
            let (top, bottom) = halves(value);
            let last = if matches!(condition.compare, Compare::Less(_)) { JUMP_GREATER_OR_EQUAL } else { JUMP_GREATER };
            put(LOAD, 0, 0, high);
            put(JUMP_GREATER, FAIL, 0, top);
            put(JUMP_EQUAL, 0, 2, top);
            put(LOAD, 0, 0, low);
            put(last, FAIL, 0, bottom);
        }
    }
}

/// Installs a filter for this process. Needs `no_new_privs` or SYS_ADMIN.
pub(crate) fn install(program: &Program) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|word| libc::sock_filter {
            code: (word >> 48) as u16,
            jt: (word >> 40) as u8,
            jf: (word >> 32) as u8,
            k: *word as u32,
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until after the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciProfile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<OciRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciRule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Vec<OciArgument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciArgument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Reads a profile in OCI's JSON (`seccompProfile.type: Localhost`). Names that this machine does
/// not have are left out, as runc does.
///
/// # Errors
/// What is not understood: a profile must not be weaker than it reads.
pub(crate) fn parse_oci(json: &[u8]) -> Result<Profile, String> {
    let oci: OciProfile = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let rules = oci.syscalls.iter().map(|rule| {
        let conditions = rule.args.iter().map(condition).collect::<Result<_, _>>()?;
        Ok(Rule {
            calls: rule.names.iter().filter_map(|name| default_profile::number(name)).collect(),
            action: action(&rule.action, rule.errno_ret)?,
            conditions,
        })
    });
    Ok(Profile {
        default: action(&oci.default_action, oci.default_errno_ret)?,
        rules: rules.collect::<Result<_, String>>()?,
    })
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, String> {
    let errno = errno.unwrap_or(libc::EPERM as u16);
    match name {
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        "SCMP_ACT_ERRNO" => Ok(Action::Errno(errno)),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        "SCMP_ACT_TRACE" => Ok(Action::Trace(errno)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
        other => Err(format!("seccomp action {other:?} is not supported")),
    }
}

fn condition(argument: &OciArgument) -> Result<Condition, String> {
    if argument.index > 5 {
        return Err(format!("seccomp argument index {} is beyond 5", argument.index));
    }
    let value = argument.value;
    let compare = match argument.op.as_str() {
        "SCMP_CMP_EQ" => Compare::Equal(value),
        "SCMP_CMP_NE" => Compare::NotEqual(value),
        "SCMP_CMP_LT" => Compare::Less(value),
        "SCMP_CMP_LE" => Compare::LessOrEqual(value),
        "SCMP_CMP_GT" => Compare::Greater(value),
        "SCMP_CMP_GE" => Compare::GreaterOrEqual(value),
        "SCMP_CMP_MASKED_EQ" => Compare::Masked { mask: value, equals: argument.value_two },
        other => return Err(format!("seccomp operator {other:?} is not supported")),
    };
    Ok(Condition { argument: argument.index, compare })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a call, as the kernel would.
    fn run(program: &Program, call: u32, arguments: [u64; 6]) -> u32 {
        let load = |offset: u32| match offset {
            0 => call,
            4 => AUDIT_ARCH,
            offset => {
                let word = arguments[(offset as usize - 16) / 8];
                if (offset - 16) % 8 == 0 { word as u32 } else { (word >> 32) as u32 }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let word = program[at];
            let value = word as u32;
            let jump = |taken: bool| at + 1 + usize::from(if taken { (word >> 40) as u8 } else { (word >> 32) as u8 });
            at = match (word >> 48) as u16 {
                LOAD => {
                    accumulator = load(value);
                    at + 1
                }
                AND => {
                    accumulator &= value;
                    at + 1
                }
                JUMP_EQUAL => jump(accumulator == value),
                JUMP_GREATER => jump(accumulator > value),
                JUMP_GREATER_OR_EQUAL => jump(accumulator >= value),
                RETURN => return value,
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn the_default_profile_decides_as_documented() {
        let program = compile(&default_profile::runtime_default(super::super::capabilities::default_mask())).unwrap();
        let decide =
            |name: &str, first: u64| run(&program, default_profile::number(name).unwrap(), [first, 0, 0, 0, 0, 0]);
        let (allow, eperm, enosys) = (Action::Allow.code(), Action::Errno(1).code(), Action::Errno(38).code());
        for name in ["read", "execve", "futex", "setuid", "capset", "chroot", "ptrace", "openat2", "prctl", "mknod"] {
            assert_eq!(decide(name, 0), allow, "{name}");
        }
        for name in ["mount", "reboot", "keyctl", "bpf", "unshare", "setns", "init_module", "io_uring_setup", "swapon"]
        {
            assert_eq!(decide(name, 0), eperm, "{name}");
        }
        assert_eq!(decide("clone3", 0), enosys);
        assert_eq!(decide("clone", 0x0100_0000), allow);
        assert_eq!(decide("clone", 0x1000_0000), eperm);
        assert_eq!(decide("clone", 0x1_1000_0000), eperm);
        assert_eq!(decide("socket", 2), allow);
        assert_eq!(decide("socket", 40), eperm);
        assert_eq!(decide("personality", 0xffff_ffff), allow);
        assert_eq!(decide("personality", 0x0400_0000), eperm);
        assert_eq!(run(&program, 9_999, [0; 6]), enosys);
        assert_eq!(run(&program, X32_BIT | 1, [0; 6]), enosys);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let program = compile(&default_profile::runtime_default(!0)).unwrap();
        let mount = default_profile::number("mount").unwrap();
        assert_eq!(run(&program, mount, [0; 6]), Action::Allow.code());
    }

    #[test]
    fn every_comparison_is_64_bit() {
        let big = 0x1_0000_0005_u64;
        let rows: [(Compare, &[u64], &[u64]); 7] = [
            (Compare::Equal(big), &[big], &[5, big + 1, 0x1_0000_0000]),
            (Compare::NotEqual(big), &[5, big + 1], &[big]),
            (Compare::Less(big), &[5, big - 1, 0], &[big, big + 1, 0x2_0000_0000]),
            (Compare::LessOrEqual(big), &[5, big], &[big + 1, 0x2_0000_0000]),
            (Compare::Greater(big), &[big + 1, 0x2_0000_0000], &[big, 7, 0]),
            (Compare::GreaterOrEqual(big), &[big, 0x2_0000_0000], &[big - 1, 0xffff_ffff]),
            (Compare::Masked { mask: 0xf0, equals: 0x20 }, &[0x2f, 0x1_0000_0020], &[0x30]),
        ];
        for (compare, hits, misses) in rows {
            let rule =
                Rule { calls: vec![7], action: Action::Allow, conditions: vec![Condition { argument: 1, compare }] };
            let program = compile(&Profile { default: Action::KillProcess, rules: vec![rule] }).unwrap();
            let decide = |value: u64| run(&program, 7, [0, value, 0, 0, 0, 0]);
            assert!(hits.iter().all(|&value| decide(value) == Action::Allow.code()), "{compare:?}");
            assert!(misses.iter().all(|&value| decide(value) == Action::KillProcess.code()), "{compare:?}");
        }
    }

    #[test]
    fn oci_json_is_read_strictly() {
        let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["mkdir","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
        let program = compile(&parse_oci(json).unwrap()).unwrap();
        assert_eq!(run(&program, default_profile::number("mkdir").unwrap(), [0; 6]), Action::Errno(13).code());
        assert_eq!(run(&program, default_profile::number("read").unwrap(), [0; 6]), Action::Allow.code());
        assert!(parse_oci(br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).is_err());
    }
}
