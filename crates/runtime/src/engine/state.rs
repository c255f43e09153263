//! What is known of sandboxes and containers, in memory and in their state directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::Status;

use super::Runtime;
use crate::cri as v1;
use crate::spec::{ContainerRecord, Exited, SandboxRecord, Started, file};
use crate::sys::{Attempt, PidFd, write_atomically};

pub(super) struct Sandbox {
    pub(super) id: String,
    pub(super) config: v1::PodSandboxConfig,
    pub(super) state_dir: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) state: Mutex<SandboxState>,
    /// Held by whoever changes the sandbox or starts something in it.
    pub(super) work: tokio::sync::Mutex<()>,
}

pub(super) struct SandboxState {
    pub(super) record: SandboxRecord,
    /// The pause process while it lives.
    pub(super) pause: Option<Started>,
    pub(super) ready: bool,
}

pub(super) struct Container {
    pub(super) id: String,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) config: v1::ContainerConfig,
    pub(super) record: ContainerRecord,
    pub(super) state_dir: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) state: Mutex<ContainerState>,
    /// Turns to the exit once there is one.
    pub(super) exit: watch::Sender<Option<Exited>>,
    pub(super) work: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct ContainerState {
    pub(super) started: Option<Started>,
    pub(super) exited: Option<Exited>,
    /// The process while it lives; also after its end if no shim saw that.
    pub(super) process: Option<Arc<PidFd>>,
    /// As changed since the start.
    pub(super) resources: v1::LinuxContainerResources,
}

impl Sandbox {
    pub(super) fn new(runtime: &Runtime, id: &str, config: v1::PodSandboxConfig, record: SandboxRecord) -> Arc<Self> {
        Arc::new(Self {
            id: id.to_owned(),
            config,
            state_dir: runtime.0.config.data_dir.join("sandboxes").join(id),
            run_dir: runtime.0.config.run_dir.join("sandboxes").join(id),
            state: Mutex::new(SandboxState { record, pause: None, ready: false }),
            work: tokio::sync::Mutex::new(()),
        })
    }

    /// Whether it has a network of its own.
    pub(super) fn own_network(&self) -> bool {
        namespaces(&self.config).network() != v1::NamespaceMode::Node
    }

    pub(super) fn netns(&self) -> PathBuf {
        self.run_dir.join(file::NETNS)
    }

    /// Writes what a restart needs.
    pub(super) fn save(&self) -> io::Result<()> {
        let record = self.state.lock().record.clone();
        save_json(&self.state_dir.join(file::RECORD), &record)
    }

    pub(super) fn to_list_item(&self) -> v1::PodSandbox {
        let state = self.state.lock();
        v1::PodSandbox {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: ready_state(state.ready) as i32,
            created_at: state.record.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: state.record.runtime_handler.clone(),
        }
    }

    pub(super) fn to_status(&self) -> v1::PodSandboxStatus {
        let item = self.to_list_item();
        let addresses = self.state.lock().record.addresses.clone();
        let mut ips = addresses.iter().map(ToString::to_string);
        let network = v1::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
        };
        v1::PodSandboxStatus {
            id: item.id,
            metadata: item.metadata,
            state: item.state,
            created_at: item.created_at,
            network: Some(network),
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace { options: Some(namespaces(&self.config)) }),
            }),
            labels: item.labels,
            annotations: item.annotations,
            runtime_handler: item.runtime_handler,
        }
    }
}

fn ready_state(ready: bool) -> v1::PodSandboxState {
    if ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
}

/// The namespace modes of a sandbox.
pub(super) fn namespaces(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
}

impl Container {
    pub(super) fn new(
        runtime: &Runtime,
        id: &str,
        sandbox: Arc<Sandbox>,
        config: v1::ContainerConfig,
        record: ContainerRecord,
    ) -> Arc<Self> {
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        Arc::new(Self {
            id: id.to_owned(),
            sandbox,
            config,
            record,
            state_dir: runtime.0.config.data_dir.join("containers").join(id),
            run_dir: runtime.0.config.run_dir.join("containers").join(id),
            state: Mutex::new(ContainerState { resources, ..ContainerState::default() }),
            exit: watch::Sender::new(None),
            work: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn phase(&self) -> v1::ContainerState {
        let state = self.state.lock();
        match (&state.started, &state.exited) {
            (_, Some(_)) => v1::ContainerState::ContainerExited,
            (Some(_), None) => v1::ContainerState::ContainerRunning,
            (None, None) => v1::ContainerState::ContainerCreated,
        }
    }

    /// The live process.
    ///
    /// # Errors
    /// As containerd words it.
    pub(super) fn process(&self) -> Result<(Started, Arc<PidFd>), Status> {
        let state = self.state.lock();
        match (&state.started, &state.exited, &state.process) {
            (Some(started), None, Some(process)) => Ok((started.clone(), process.clone())),
            _ => {
                drop(state);
                let phase = self.phase().as_str_name();
                Err(Status::unknown(format!("container {} is in {phase} state", self.id)))
            }
        }
    }

    /// Takes a start into memory.
    pub(super) fn set_started(&self, started: Started) {
        let process = PidFd::open(started.pid, started.start_time).ok().map(Arc::new);
        let mut state = self.state.lock();
        state.started = Some(started);
        state.process = process;
    }

    /// Takes an end into memory and wakes who waits for it.
    pub(super) fn set_exited(&self, exited: Exited) {
        {
            let mut state = self.state.lock();
            state.exited = Some(exited.clone());
            state.process = None;
        }
        self.exit.send_replace(Some(exited));
    }

    /// Resolves once the container has exited.
    pub(super) async fn ended(&self) {
        let mut exit = self.exit.subscribe();
        // The sender lives as long as we do.
        let _ = exit.wait_for(Option::is_some).await;
    }

    /// The log's place, when it has one.
    pub(super) fn log_path(&self) -> Option<PathBuf> {
        log_path(&self.sandbox.config, &self.config)
    }

    pub(super) fn to_list_item(&self) -> v1::Container {
        v1::Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox.id.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.record.image_ref.clone(),
            state: self.phase() as i32,
            created_at: self.record.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: self.record.image_id.clone(),
        }
    }

    pub(super) fn to_status(&self) -> v1::ContainerStatus {
        let phase = self.phase() as i32;
        let state = self.state.lock();
        let exited = state.exited.clone();
        let user = state.started.as_ref().and_then(|started| started.identity.as_ref()).map(|identity| {
            let linux = v1::LinuxContainerUser {
                uid: identity.uid.into(),
                gid: identity.gid.into(),
                supplemental_groups: identity.groups.iter().map(|&gid| gid.into()).collect(),
            };
            v1::ContainerUser { linux: Some(linux) }
        });
        v1::ContainerStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: phase,
            created_at: self.record.created_at,
            started_at: state.started.as_ref().map_or(0, |started| started.at),
            finished_at: exited.as_ref().map_or(0, |exited| exited.at),
            exit_code: exited.as_ref().map_or(0, |exited| exited.code),
            image: self.config.image.clone(),
            image_ref: self.record.image_ref.clone(),
            reason: exited.as_ref().map(reason).unwrap_or_default(),
            message: exited.map(|exited| exited.message).unwrap_or_default(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log_path().map(|path| path.display().to_string()).unwrap_or_default(),
            resources: Some(v1::ContainerResources { linux: Some(state.resources.clone()), windows: None }),
            image_id: self.record.image_id.clone(),
            user,
            stop_signal: self.config.stop_signal,
        }
    }
}

fn reason(exited: &Exited) -> String {
    match (exited.reason.as_str(), exited.code) {
        ("", 0) => "Completed".to_owned(),
        ("", _) => "Error".to_owned(),
        (reason, _) => reason.to_owned(),
    }
}

pub(super) fn log_path(sandbox: &v1::PodSandboxConfig, container: &v1::ContainerConfig) -> Option<PathBuf> {
    let named = !container.log_path.is_empty() && !sandbox.log_directory.is_empty();
    named.then(|| Path::new(&sandbox.log_directory).join(&container.log_path))
}

/// Loads a JSON file; `None` when it does not exist or is torn.
pub(super) fn load_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(super) fn save_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other)?;
    write_atomically(path, &bytes)
}

pub(super) fn load_message<T: Message + Default>(path: &Path) -> Option<T> {
    T::decode(fs::read(path).ok()?.as_slice()).ok()
}

pub(super) fn save_message<T: Message>(path: &Path, message: &T) -> io::Result<()> {
    write_atomically(path, &message.encode_to_vec())
}

impl Runtime {
    /// A sandbox by id or a unique beginning of it.
    pub(super) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Status> {
        by_prefix(&self.0.sandboxes.lock(), id)
            .ok_or_else(|| Status::not_found(format!("an error occurred when try to find sandbox {id:?}: not found")))
    }

    /// A container by id or a unique beginning of it.
    pub(super) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        by_prefix(&self.0.containers.lock(), id)
            .ok_or_else(|| Status::not_found(format!("an error occurred when try to find container {id:?}: not found")))
    }

    pub(super) fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        self.0.containers.lock().values().filter(|container| container.sandbox.id == sandbox_id).cloned().collect()
    }

    /// Tells the readers of events.
    pub(super) fn emit(&self, id: &str, kind: v1::ContainerEventType, sandbox: &Sandbox) {
        if self.0.events.receiver_count() == 0 {
            return;
        }
        let statuses = self.containers_of(&sandbox.id).iter().map(|container| container.to_status()).collect();
        let _ = self.0.events.send(v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: self.now(),
            pod_sandbox_status: Some(sandbox.to_status()),
            containers_statuses: statuses,
        });
    }
}

fn by_prefix<T>(all: &std::collections::BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if id.is_empty() {
        return None;
    }
    if let Some(exact) = all.get(id) {
        return Some(exact.clone());
    }
    let mut matching = all.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, one)), None) => Some(one.clone()),
        _ => None,
    }
}

/// An I/O failure as containerd reports it.
pub(super) fn failed(attempt: &str, error: impl std::fmt::Display) -> Status {
    Status::unknown(format!("failed to {attempt}: {error}"))
}

/// Runs blocking work off the reactor.
pub(super) async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(attempt, error)),
        Err(error) => Err(failed(attempt, error)),
    }
}

/// Unmounts what may be mounted at `path`.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let c_path = crate::sys::c_path(path)?;
    // SAFETY: a valid C string.
    let outcome =
        crate::sys::check(unsafe { libc::umount2(c_path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) });
    match outcome {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        other => other.map(drop).attempt(|| format!("unmount {}", path.display())),
    }
}

/// Resolves when the process is dead.
pub(super) async fn process_end(process: &Arc<PidFd>) -> io::Result<()> {
    let fd = crate::sys::on_reactor(process.0.try_clone()?, tokio::io::Interest::READABLE)?;
    fd.readable().await.map(drop)
}
