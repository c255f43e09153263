//! CRI's wishes and an image's defaults as a complete specification. Reads the host's device
//! files and a named seccomp profile, changes nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use tonic::Status;

use crate::cgroup::DeviceRule;
use crate::cri as v1;
use crate::image::{Image, ProcessConfig};
use crate::security::{capabilities, default_profile, seccomp};
use crate::spec::{DeviceNode, MountAccess, MountFlow, MountSpec, PidNamespace, ProcessSpec, UserSpec};

/// A request that cannot be fulfilled as it is.
pub(super) fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

pub(super) fn security(config: &v1::ContainerConfig) -> v1::LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

/// The container's main process.
pub(super) fn process(
    config: &v1::ContainerConfig,
    image: &Image,
    hostname: &str,
    available_capabilities: u64,
) -> Result<ProcessSpec, Status> {
    let defaults = image.config.config.clone().unwrap_or_default();
    let context = security(config);
    let capabilities = capabilities::resolve(context.capabilities.as_ref(), context.privileged, available_capabilities)
        .map_err(invalid)?;
    let cwd = [config.working_dir.as_str(), defaults.working_dir.as_str(), "/"];
    let cwd = PathBuf::from(cwd.into_iter().find(|dir| !dir.is_empty()).unwrap_or("/"));
    if !cwd.is_absolute() {
        return Err(invalid(format!("working directory {cwd:?} is not absolute")));
    }
    Ok(ProcessSpec {
        args: args(config, &defaults)?,
        env: environment(config, &defaults, hostname)?,
        cwd,
        user: user(&context, &defaults.user)?,
        capabilities,
        no_new_privs: context.no_new_privs,
        seccomp: seccomp_program(&context, capabilities.granted)?,
        oom_score_adj: config
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.as_ref())
            .map(|resources| resources.oom_score_adj.clamp(-1_000, 1_000) as i32),
        tty: config.tty,
        ends_with_parent: false,
    })
}

/// A command of the pod replaces the image's command and its arguments.
fn args(config: &v1::ContainerConfig, defaults: &ProcessConfig) -> Result<Vec<String>, Status> {
    let mut args = config.command.clone();
    if args.is_empty() {
        args = defaults.entrypoint.clone();
        args.extend(if config.args.is_empty() { &defaults.cmd } else { &config.args }.iter().cloned());
    } else {
        args.extend(config.args.iter().cloned());
    }
    if args.is_empty() || args[0].is_empty() {
        return Err(invalid("no command specified"));
    }
    Ok(args)
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(config: &v1::ContainerConfig, defaults: &ProcessConfig, hostname: &str) -> Result<Vec<String>, Status> {
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    let mut set = |key: &str, value: &str| match env.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => value.clone_into(old),
        None => env.push((key.to_owned(), value.to_owned())),
    };
    if !hostname.is_empty() {
        set("HOSTNAME", hostname);
    }
    if config.tty {
        set("TERM", "xterm");
    }
    for pair in &defaults.env {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(key, value);
    }
    for pair in &config.envs {
        let value = std::str::from_utf8(&pair.value)
            .map_err(|_| invalid(format!("the value of environment variable {} is not UTF-8", pair.key)))?;
        set(&pair.key, value);
    }
    Ok(env.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
}

fn user(context: &v1::LinuxContainerSecurityContext, image_user: &str) -> Result<UserSpec, Status> {
    let mut user = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(uid), _) => uid.value.to_string(),
        (None, "") => image_user.to_owned(),
        (None, name) => name.to_owned(),
    };
    if let Some(group) = &context.run_as_group {
        if context.run_as_user.is_none() && context.run_as_username.is_empty() {
            return Err(invalid("user group is specified without user"));
        }
        let name = user.split(':').next().unwrap_or_default();
        user = format!("{name}:{}", group.value);
    }
    let groups = context.supplemental_groups.iter();
    let groups = groups.map(|&gid| u32::try_from(gid).map_err(|_| invalid(format!("supplemental group {gid}"))));
    Ok(UserSpec {
        user,
        supplemental_groups: groups.collect::<Result<_, _>>()?,
        strict_groups: context.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Strict,
    })
}

fn seccomp_program(
    context: &v1::LinuxContainerSecurityContext,
    granted: u64,
) -> Result<Option<seccomp::Program>, Status> {
    use v1::security_profile::ProfileType;
    let Some(wanted) = context.seccomp.as_ref().filter(|_| !context.privileged) else { return Ok(None) };
    let profile = match wanted.profile_type() {
        ProfileType::Unconfined => return Ok(None),
        ProfileType::RuntimeDefault => default_profile::runtime_default(granted),
        ProfileType::Localhost => {
            let path = wanted.localhost_ref.strip_prefix("localhost/").unwrap_or(&wanted.localhost_ref);
            let bytes = fs::read(path).map_err(|error| invalid(format!("seccomp profile {path:?}: {error}")))?;
            seccomp::parse_oci(&bytes).map_err(|error| invalid(format!("seccomp profile {path:?}: {error}")))?
        }
    };
    seccomp::compile(&profile).map(Some).map_err(invalid)
}

/// CRI's mounts, and the files of the sandbox that they do not replace.
pub(super) fn mounts(
    config: &v1::ContainerConfig,
    sandbox_files: &[(PathBuf, &str)],
) -> Result<Vec<MountSpec>, Status> {
    let mut mounts = Vec::new();
    for mount in &config.mounts {
        if mount.image.as_ref().is_some_and(|image| !image.image.is_empty()) {
            return Err(Status::unimplemented("image volumes are not supported by this runtime"));
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Status::unimplemented("id-mapped mounts are not supported by this runtime"));
        }
        let source = PathBuf::from(&mount.host_path);
        if !source.is_absolute() {
            return Err(invalid(format!("mount source {:?} is not absolute", mount.host_path)));
        }
        if mount.recursive_read_only
            && (!mount.readonly || mount.propagation() != v1::MountPropagation::PropagationPrivate)
        {
            return Err(invalid("recursive read-only mounts must be read-only and private"));
        }
        mounts.push(MountSpec {
            source,
            target: clean(&mount.container_path),
            access: match (mount.readonly, mount.recursive_read_only) {
                (false, _) => MountAccess::Write,
                (true, false) => MountAccess::Read,
                (true, true) => MountAccess::ReadRecursive,
            },
            propagation: match mount.propagation() {
                v1::MountPropagation::PropagationPrivate => MountFlow::Private,
                v1::MountPropagation::PropagationHostToContainer => MountFlow::HostToContainer,
                v1::MountPropagation::PropagationBidirectional => MountFlow::Bidirectional,
            },
        });
    }
    let read_only = security(config).readonly_rootfs;
    for (source, target) in sandbox_files {
        if !mounts.iter().any(|mount| mount.target == Path::new(target)) {
            mounts.push(MountSpec {
                source: source.clone(),
                target: PathBuf::from(target),
                access: if read_only { MountAccess::Read } else { MountAccess::Write },
                propagation: MountFlow::Private,
            });
        }
    }
    Ok(mounts)
}

/// An absolute path without `.` and `..`.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// Device nodes to make, and what may be used.
pub(super) fn devices(config: &v1::ContainerConfig) -> Result<(Vec<DeviceNode>, Vec<DeviceRule>), Status> {
    if !config.cdi_devices.is_empty() {
        return Err(Status::unimplemented("CDI devices are not supported by this runtime"));
    }
    if security(config).privileged {
        let mut nodes = Vec::new();
        host_devices(Path::new("/dev"), Path::new("/dev"), &mut nodes, 0);
        return Ok((nodes, vec![DeviceRule::everything()]));
    }
    let (mut nodes, mut rules) = (Vec::new(), DeviceRule::defaults());
    for device in &config.devices {
        let before = nodes.len();
        let source = Path::new(&device.host_path);
        let found = fs::metadata(source).map_err(|error| invalid(format!("device {:?}: {error}", device.host_path)))?;
        if found.is_dir() {
            host_devices(source, Path::new(&device.container_path), &mut nodes, 0);
        } else {
            let node = node(source, Path::new(&device.container_path));
            nodes.push(node.ok_or_else(|| invalid(format!("{:?} is not a device node", device.host_path)))?);
        }
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if !access.chars().all(|letter| "rwm".contains(letter)) {
            return Err(invalid(format!("device permissions {access:?} are not of r, w and m")));
        }
        rules.extend(nodes[before..].iter().map(|node| DeviceRule {
            block: Some(node.block),
            major: Some(node.major),
            minor: Some(node.minor),
            access: access.to_owned(),
        }));
    }
    Ok((nodes, rules))
}

fn node(source: &Path, target: &Path) -> Option<DeviceNode> {
    let found = fs::metadata(source).ok()?;
    let kind = found.file_type();
    (kind.is_block_device() || kind.is_char_device()).then(|| DeviceNode {
        path: clean(&target.to_string_lossy()),
        block: kind.is_block_device(),
        major: libc::major(found.rdev()),
        minor: libc::minor(found.rdev()),
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
    })
}

/// Directories of `/dev` that each container has of its own.
const OWN_DIRECTORIES: [&str; 4] = ["pts", "shm", "mqueue", "fd"];
/// `/dev/bus/usb/001` and the like.
const DEVICE_DEPTH_MAX: u32 = 6;

fn host_devices(source: &Path, target: &Path, nodes: &mut Vec<DeviceNode>, depth: u32) {
    for entry in fs::read_dir(source).into_iter().flatten().flatten() {
        let (Ok(kind), name) = (entry.file_type(), entry.file_name()) else { continue };
        let own = name.to_str().is_some_and(|name| OWN_DIRECTORIES.contains(&name) || name == "console");
        if kind.is_dir() && !own && depth < DEVICE_DEPTH_MAX {
            host_devices(&entry.path(), &target.join(&name), nodes, depth + 1);
        } else if (kind.is_char_device() || kind.is_block_device()) && !own {
            nodes.extend(node(&entry.path(), &target.join(&name)));
        }
    }
}

/// Whose processes the container sees. `target` finds another container's process.
pub(super) fn pid_namespace(
    config: &v1::ContainerConfig,
    target: impl FnOnce(&str) -> Result<(i32, u64), Status>,
) -> Result<PidNamespace, Status> {
    let options = security(config).namespace_options.unwrap_or_default();
    if options.userns_options.as_ref().is_some_and(|user| user.mode() != v1::NamespaceMode::Node) {
        return Err(user_namespaces());
    }
    Ok(match options.pid() {
        v1::NamespaceMode::Container => PidNamespace::Container,
        v1::NamespaceMode::Pod => PidNamespace::Pod,
        v1::NamespaceMode::Node => PidNamespace::Node,
        v1::NamespaceMode::Target => {
            let (pid, started) = target(&options.target_id)?;
            PidNamespace::Target(pid, started)
        }
    })
}

/// The answer to a wish for user namespaces.
pub(super) fn user_namespaces() -> Status {
    Status::unimplemented("user namespaces are not supported by this runtime")
}

/// The signal that asks the container to end.
pub(super) fn stop_signal(config: &v1::ContainerConfig, image: &Image) -> Result<i32, Status> {
    let wanted = match config.stop_signal() {
        v1::Signal::RuntimeDefault => {
            image.config.config.as_ref().map(|config| config.stop_signal.clone()).unwrap_or_default()
        }
        // SIGRTMINPLUS3 as SIGRTMIN+3
        signal => signal.as_str_name().trim_start_matches("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-"),
    };
    if wanted.is_empty() {
        return Ok(libc::SIGTERM);
    }
    signal_number(&wanted).ok_or_else(|| invalid(format!("unknown stop signal {wanted:?}")))
}

fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // The C library keeps two real-time signals to itself; programs count from 34.
    let real_time = |rest: &str, base: i32, sign: i32| match rest.strip_prefix(['+', '-']) {
        Some(offset) => offset.parse::<i32>().ok().map(|offset| base + sign * offset),
        None => rest.is_empty().then_some(base),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, 34, 1).filter(|number| (34..=64).contains(number));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, 64, -1).filter(|number| (34..=64).contains(number));
    }
    let number = match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" | "IOT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "STKFLT" => 16,
        "CHLD" | "CLD" => 17,
        "CONT" => 18,
        "STOP" => 19,
        "TSTP" => 20,
        "TTIN" => 21,
        "TTOU" => 22,
        "URG" => 23,
        "XCPU" => 24,
        "XFSZ" => 25,
        "VTALRM" => 26,
        "PROF" => 27,
        "WINCH" => 28,
        "IO" | "POLL" => 29,
        "PWR" => 30,
        "SYS" => 31,
        _ => return None,
    };
    Some(number)
}

/// The sysctls of a sandbox as files below `/proc/sys`; only those with a namespace of their own.
pub(super) fn sysctls(
    config: &v1::PodSandboxConfig,
    own_network: bool,
    own_ipc: bool,
) -> Result<Vec<(PathBuf, String)>, Status> {
    let Some(linux) = &config.linux else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    let mut sorted: Vec<_> = linux.sysctls.iter().collect();
    sorted.sort();
    for (name, value) in sorted {
        // `net.ipv4.conf.eth0/100.x` and `net/ipv4/…` are both customary.
        let path = if name.split_once('/').is_some_and(|(first, _)| !first.contains('.')) {
            name.clone()
        } else {
            name.chars()
                .map(|letter| match letter {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect()
        };
        let network = path.starts_with("net/");
        let ipc = path.starts_with("fs/mqueue/")
            || path.starts_with("kernel/shm")
            || path.starts_with("kernel/msg")
            || path == "kernel/sem";
        let plain = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || !((network && own_network) || (ipc && own_ipc)) {
            return Err(invalid(format!("sysctl {name:?} is not in a namespace of the pod")));
        }
        files.push((PathBuf::from(path), value.clone()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_names() {
        for (text, number) in
            [("SIGTERM", 15), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGRTMIN", 34)]
        {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNO", "SIGRTMIN+99"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let image = ProcessConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["A=image".into(), "B=image".into()],
            ..ProcessConfig::default()
        };
        let pod = |command: &[&str], arguments: &[&str]| v1::ContainerConfig {
            command: command.iter().map(ToString::to_string).collect(),
            args: arguments.iter().map(ToString::to_string).collect(),
            envs: vec![v1::KeyValue { key: "B".into(), value: "pod".into() }],
            ..v1::ContainerConfig::default()
        };
        assert_eq!(args(&pod(&[], &[]), &image).unwrap(), ["/entry", "default"]);
        assert_eq!(args(&pod(&[], &["x"]), &image).unwrap(), ["/entry", "x"]);
        assert_eq!(args(&pod(&["/own"], &[]), &image).unwrap(), ["/own"]);
        assert!(args(&pod(&[], &[]), &ProcessConfig::default()).is_err());
        let env = environment(&pod(&[], &[]), &image, "web-1").unwrap();
        assert_eq!(env[1..], ["HOSTNAME=web-1", "A=image", "B=pod"]);
    }

    #[test]
    fn sysctls_stay_in_the_pod() {
        let with = |name: &str| v1::PodSandboxConfig {
            linux: Some(v1::LinuxPodSandboxConfig {
                sysctls: [(name.to_owned(), "1".to_owned())].into(),
                ..v1::LinuxPodSandboxConfig::default()
            }),
            ..v1::PodSandboxConfig::default()
        };
        let first = |name| sysctls(&with(name), true, true).map(|files| files[0].0.clone());
        assert_eq!(first("net.core.somaxconn").unwrap(), Path::new("net/core/somaxconn"));
        assert_eq!(first("net/ipv4/conf/eth0.1/rp_filter").unwrap(), Path::new("net/ipv4/conf/eth0.1/rp_filter"));
        assert!(first("kernel.panic").is_err());
        assert!(first("net/../kernel/panic").is_err());
        assert!(sysctls(&with("net.core.somaxconn"), false, true).is_err());
    }

    #[test]
    fn targets_are_cleaned() {
        assert_eq!(clean("/a/../../b/./c"), Path::new("/b/c"));
    }
}
