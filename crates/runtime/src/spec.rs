//! What the server tells the shim and its children: files and messages in JSON.
//!
//! A specification is complete: the process that applies it looks nothing up, so a container is
//! started by the shim alone, and a killed server changes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup::Join;
use crate::security::capabilities::Sets;
use crate::security::seccomp::Program;

/// A sandbox: the pause process and the namespaces it holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxSpec {
    pub(crate) id: String,
    /// Where exit codes and start records of the sandbox go.
    pub(crate) state_dir: PathBuf,
    /// Where the socket, the namespace file and the shared memory are.
    pub(crate) run_dir: PathBuf,
    /// Empty keeps the host's.
    pub(crate) hostname: String,
    /// A network namespace of its own rather than the node's.
    pub(crate) own_network: bool,
    /// The node's network namespace, when it is not that of the shim.
    pub(crate) node_netns: Option<PathBuf>,
    pub(crate) own_ipc: bool,
    /// Files below `/proc/sys` and their values.
    pub(crate) sysctls: Vec<(PathBuf, String)>,
    pub(crate) join: Join,
    pub(crate) oom_score_adj: i32,
}

/// What the shim itself must know of a container; the rest is read by the container's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerIo {
    pub(crate) id: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) pid_namespace: PidNamespace,
    /// The log in CRI format.
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    /// Version 2 group to clone into.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PidNamespace {
    /// Its own.
    Container,
    /// Those of its pod.
    Pod,
    /// Those of the node.
    Node,
    /// Those of another container: its process and start time.
    Target(i32, u64),
}

/// A container's process and its surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) io: ContainerIo,
    /// Holds the unpacked layers.
    pub(crate) layers_dir: PathBuf,
    /// Directory names, the top layer first.
    pub(crate) layers: Vec<String>,
    /// Holds `upper` and `work`.
    pub(crate) scratch_dir: PathBuf,
    pub(crate) readonly_rootfs: bool,
    pub(crate) privileged: bool,
    pub(crate) host_ipc: bool,
    /// The sandbox's shared memory filesystem.
    pub(crate) shm_dir: Option<PathBuf>,
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) devices: Vec<DeviceNode>,
    pub(crate) masked_paths: Vec<PathBuf>,
    pub(crate) readonly_paths: Vec<PathBuf>,
    pub(crate) join: Join,
    pub(crate) process: ProcessSpec,
}

/// A host path shown in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountSpec {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) access: MountAccess,
    pub(crate) propagation: MountFlow,
}

/// What may be written below a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountAccess {
    Write,
    Read,
    ReadRecursive,
}

/// How mount events travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountFlow {
    Private,
    HostToContainer,
    Bidirectional,
}

/// A device node to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceNode {
    pub(crate) path: PathBuf,
    pub(crate) block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A process in a container, its main one or an exec'd one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessSpec {
    pub(crate) args: Vec<String>,
    /// `KEY=value`.
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: UserSpec,
    pub(crate) capabilities: Sets,
    pub(crate) no_new_privs: bool,
    pub(crate) seccomp: Option<Program>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) tty: bool,
    /// Kill the process when its parent (a helper) dies.
    pub(crate) ends_with_parent: bool,
}

/// Who the process runs as; names are looked up in the container's own files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserSpec {
    /// `user`, `uid`, `user:group`…; empty for root.
    pub(crate) user: String,
    /// Added to the groups.
    pub(crate) supplemental_groups: Vec<u32>,
    /// Do not add the groups that the image's `/etc/group` lists for the user.
    pub(crate) strict_groups: bool,
}

/// A user looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// A command in a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) join: Join,
    pub(crate) process: ProcessSpec,
}

/// Record of a start (file `started`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    /// Clock ticks since boot; with the pid it names the process for ever.
    pub(crate) start_time: u64,
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
    /// `None` for a pause process.
    pub(crate) identity: Option<Identity>,
}

/// Record of an end (file `exit`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    /// Nanoseconds since the epoch.
    pub(crate) at: i64,
    /// Empty unless the runtime has something to say.
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// What the server remembers of a sandbox (file `record.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) created_at: i64,
    pub(crate) runtime_handler: String,
    /// Empty with the node's network.
    pub(crate) addresses: Vec<std::net::IpAddr>,
    /// Stopped for good: its network is released.
    pub(crate) stopped: bool,
    pub(crate) cgroup: String,
}

/// What the server remembers of a container (file `record.json`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) sandbox_id: String,
    pub(crate) created_at: i64,
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    pub(crate) stop_signal: i32,
    pub(crate) cgroup: String,
    pub(crate) layers: Vec<String>,
}

/// File names in the state directory of a sandbox or container.
pub(crate) mod file {
    pub(crate) const SPEC: &str = "spec.json";
    pub(crate) const CONFIG: &str = "config.pb";
    pub(crate) const RECORD: &str = "record.json";
    pub(crate) const STARTED: &str = "started";
    pub(crate) const EXIT: &str = "exit";
    pub(crate) const SOCKET: &str = "shim.sock";
    pub(crate) const NETNS: &str = "netns";
    pub(crate) const SHM: &str = "shm";
}
