//! Containers: created, running, exited, gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::Runtime;
use super::shim::Client;
use super::state::{Container, blocking, failed, log_path, namespaces, process_end, save_json, save_message};
use super::translate;
use crate::cgroup::Limits;
use crate::cri as v1;
use crate::image::{Image, remove_dir};
use crate::security::capabilities;
use crate::spec::{ContainerIo, ContainerRecord, ContainerSpec, Exited, PidNamespace, Started, file};
use crate::sys::{Attempt, exit_code_of_status, make_fifo};

/// containerd's exit code and reason for a container whose process could not be started.
const START_ERROR_CODE: i32 = 128;
const START_ERROR_REASON: &str = "StartError";
/// containerd's exit code and reason for an end that nobody saw.
const UNKNOWN_CODE: i32 = 255;
const UNKNOWN_REASON: &str = "Unknown";
const OOM_REASON: &str = "OOMKilled";
/// How long a shim may take to report an end that the kernel has reported.
const REPORT_WAIT: Duration = Duration::from_secs(2);
/// How long a killed container may take to die before the call fails.
const KILL_WAIT: Duration = Duration::from_secs(30);

impl Runtime {
    pub(super) async fn create(&self, request: v1::CreateContainerRequest) -> Result<String, Status> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.state.lock().ready {
            return Err(Status::failed_precondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let config = request.config.unwrap_or_default();
        let metadata =
            config.metadata.clone().ok_or_else(|| translate::invalid("container config must include metadata"))?;
        let same =
            self.containers_of(&sandbox.id).into_iter().find(|other| other.config.metadata.as_ref() == Some(&metadata));
        if let Some(other) = same {
            return Err(Status::already_exists(format!(
                "failed to reserve container name \"{}_{}\": name is reserved for {:?}",
                metadata.name, metadata.attempt, other.id
            )));
        }
        let wanted = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self
            .0
            .images
            .find(&wanted)
            .ok_or_else(|| Status::not_found(format!("failed to resolve image {wanted:?}: not found")))?;
        let id = self.new_id();
        let parent = sandbox.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
        let record = ContainerRecord {
            sandbox_id: sandbox.id.clone(),
            created_at: self.now(),
            image_id: image.id.clone(),
            image_ref: image.digests.iter().next().unwrap_or(&image.id).clone(),
            stop_signal: translate::stop_signal(&config, &image)?,
            cgroup: format!("{parent}/{id}"),
            layers: image.layer_names(),
        };
        let container = Container::new(self, &id, sandbox.clone(), config, record);
        let spec = self.specification(&container, &image)?;
        self.0.images.hold(&id, container.record.layers.clone());
        let this = container.clone();
        let made = blocking("create container", move || make_files(&this, &spec)).await;
        if let Err(error) = made {
            let _ = remove_files(&container);
            self.0.images.release(&id);
            return Err(error);
        }
        self.0.containers.lock().insert(id.clone(), container);
        self.emit(&id, v1::ContainerEventType::ContainerCreatedEvent, &sandbox);
        Ok(id)
    }

    fn specification(&self, container: &Container, image: &Image) -> Result<ContainerSpec, Status> {
        let (config, sandbox) = (&container.config, &container.sandbox);
        let context = translate::security(config);
        let available = capabilities::permitted().map_err(|error| failed("read own capabilities", error))?;
        let process = translate::process(config, image, &self.hostname(sandbox), available)?;
        let files = [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")]
            .map(|(name, target)| (sandbox.state_dir.join(name), target));
        let limits = limits(config);
        let join = self
            .0
            .cgroups
            .join(&container.record.cgroup, &limits)
            .map_err(|error| translate::invalid(error.to_string()))?;
        let host_ipc = namespaces(&sandbox.config).ipc() == v1::NamespaceMode::Node;
        let paths = |paths: &[String]| -> Vec<PathBuf> {
            if context.privileged { Vec::new() } else { paths.iter().map(PathBuf::from).collect() }
        };
        Ok(ContainerSpec {
            io: ContainerIo {
                id: container.id.clone(),
                run_dir: container.run_dir.clone(),
                pid_namespace: self.pid_namespace(container)?,
                log_path: log_path(&sandbox.config, config),
                stdin: config.stdin,
                stdin_once: config.stdin_once,
                tty: config.tty,
                cgroup: join.v2.clone(),
            },
            layers_dir: self.0.images.layers_dir().to_path_buf(),
            layers: container.record.layers.clone(),
            scratch_dir: container.state_dir.clone(),
            readonly_rootfs: context.readonly_rootfs,
            privileged: context.privileged,
            host_ipc,
            shm_dir: Some(if host_ipc { PathBuf::from("/dev/shm") } else { sandbox.run_dir.join(file::SHM) }),
            mounts: translate::mounts(config, &files)?,
            devices: translate::devices(config)?.0,
            masked_paths: paths(&context.masked_paths),
            readonly_paths: paths(&context.readonly_paths),
            join,
            process,
        })
    }

    fn pid_namespace(&self, container: &Container) -> Result<PidNamespace, Status> {
        translate::pid_namespace(&container.config, |id| {
            let target = self.container(id)?;
            if target.sandbox.id != container.sandbox.id {
                return Err(translate::invalid(format!("container {id:?} is not in the same sandbox")));
            }
            target.process().map(|(started, _)| (started.pid, started.start_time))
        })
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        let (runtime, this) = (self.clone(), container.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A cancelled call must not leave a container whose start is not known.
        self.0.config.tasks.spawn("start-container", async move {
            let _ = sender.send(runtime.start_now(&this).await);
        });
        receiver.await.map_err(|_| Status::aborted("the runtime is stopping"))?
    }

    async fn start_now(&self, container: &Arc<Container>) -> Result<(), Status> {
        let _work = container.work.lock().await;
        if container.phase() != v1::ContainerState::ContainerCreated {
            return Err(Status::failed_precondition(format!(
                "container {:?} is in {} state",
                container.id,
                container.phase().as_str_name()
            )));
        }
        if !container.sandbox.state.lock().ready {
            return Err(Status::failed_precondition(format!("sandbox {} is not running", container.sandbox.id)));
        }
        let (runtime, this) = (self.clone(), container.clone());
        match blocking("start container", move || runtime.start_blocking(&this)).await {
            Ok(started) => {
                container.set_started(started);
                self.emit(&container.id, v1::ContainerEventType::ContainerStartedEvent, &container.sandbox);
                // The process may have ended before it was known here.
                if let Some(exited) = super::state::load_json::<Exited>(&container.state_dir.join(file::EXIT)) {
                    self.settle(container, exited).await;
                }
                Ok(())
            }
            Err(error) => {
                let exited = Exited {
                    code: START_ERROR_CODE,
                    at: self.now(),
                    reason: START_ERROR_REASON.into(),
                    message: error.message().to_owned(),
                };
                let _ = save_json(&container.state_dir.join(file::EXIT), &exited);
                container.set_exited(exited);
                self.remove_cgroup(container).await;
                Err(error)
            }
        }
    }

    fn start_blocking(&self, container: &Container) -> io::Result<Started> {
        let (_, rules) =
            translate::devices(&container.config).map_err(|error| io::Error::other(error.message().to_owned()))?;
        self.0.cgroups.create(&container.record.cgroup, &limits(&container.config), Some(&rules))?;
        let text = format!("start {}", container.state_dir.display());
        let (answer, _) = Client::new(&container.sandbox.run_dir).request(&text, &[])?;
        serde_json::from_slice(&answer).map_err(io::Error::other)
    }

    /// A shim has reported the end of a container.
    pub(super) async fn container_ended(&self, container: &Arc<Container>) {
        let _work = container.work.lock().await;
        if container.phase() == v1::ContainerState::ContainerExited {
            return;
        }
        if let Some(exited) = super::state::load_json::<Exited>(&container.state_dir.join(file::EXIT)) {
            self.settle(container, exited).await;
        }
    }

    /// Completes an end: its reason, its left-overs, its announcement.
    async fn settle(&self, container: &Arc<Container>, mut exited: Exited) {
        if exited.reason.is_empty() && self.0.cgroups.oom_kills(&container.record.cgroup) > 0 {
            exited.reason = OOM_REASON.into();
            let _ = save_json(&container.state_dir.join(file::EXIT), &exited);
        }
        container.set_exited(exited);
        self.emit(&container.id, v1::ContainerEventType::ContainerStoppedEvent, &container.sandbox);
        self.remove_cgroup(container).await;
    }

    async fn remove_cgroup(&self, container: &Arc<Container>) {
        let (runtime, this) = (self.clone(), container.clone());
        let removed = blocking("remove cgroup", move || {
            // Processes of a shared process namespace outlive the first one.
            runtime.0.cgroups.kill(&this.record.cgroup);
            runtime.0.cgroups.remove(&this.record.cgroup)
        });
        if let Err(error) = removed.await {
            tracing::warn!(container = %container.id, %error, "cgroup is left; removal will try again");
        }
    }

    /// Looks whether a container that no shim watches still runs, and records its end if not.
    pub(super) async fn look_after(&self, container: &Arc<Container>) {
        let _work = container.work.lock().await;
        if container.phase() != v1::ContainerState::ContainerRunning {
            return;
        }
        let (process, pid) = {
            let state = container.state.lock();
            (state.process.clone(), state.started.as_ref().map_or(0, |started| started.pid))
        };
        if process.as_ref().is_some_and(|process| !process.has_exited()) {
            return;
        }
        let exited = super::state::load_json::<Exited>(&container.state_dir.join(file::EXIT)).unwrap_or_else(|| {
            let code = process.and_then(|process| process.exit_status(pid)).map(exit_code_of_status);
            Exited {
                code: code.unwrap_or(UNKNOWN_CODE),
                at: self.now(),
                reason: if code.is_some() { String::new() } else { UNKNOWN_REASON.into() },
                message: String::new(),
            }
        });
        let _ = save_json(&container.state_dir.join(file::EXIT), &exited);
        self.settle(container, exited).await;
    }

    pub(super) async fn stop(&self, id: &str, timeout: Duration) -> Result<(), Status> {
        match self.container(id) {
            Ok(container) => self.stop_container_now(&container, timeout).await,
            // Idempotent, as the interface asks for.
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn stop_container_now(&self, container: &Arc<Container>, timeout: Duration) -> Result<(), Status> {
        let Ok((_, process)) = container.process() else { return Ok(()) };
        if !timeout.is_zero() {
            let _ = process.signal(container.record.stop_signal);
            if tokio::time::timeout(timeout, container.ended()).await.is_ok() {
                return Ok(());
            }
        }
        let _ = process.signal(libc::SIGKILL);
        let ended = async {
            tokio::select! {
                biased;
                () = container.ended() => {}
                _ = process_end(&process) => {
                    // The shim reports it in a moment, unless there is none.
                    if tokio::time::timeout(REPORT_WAIT, container.ended()).await.is_err() {
                        self.look_after(container).await;
                    }
                }
            }
        };
        tokio::time::timeout(KILL_WAIT, ended)
            .await
            .map_err(|_| Status::deadline_exceeded(format!("container {} was killed and does not die", container.id)))
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), Status> {
        match self.container(id) {
            Ok(container) => self.remove_container_now(&container).await,
            Err(_) => Ok(()),
        }
    }

    pub(super) async fn remove_container_now(&self, container: &Arc<Container>) -> Result<(), Status> {
        self.stop_container_now(container, Duration::ZERO).await?;
        let _work = container.work.lock().await;
        let (runtime, this) = (self.clone(), container.clone());
        blocking("remove container", move || {
            runtime.0.cgroups.kill(&this.record.cgroup);
            runtime.0.cgroups.remove(&this.record.cgroup)?;
            remove_files(&this)
        })
        .await?;
        self.0.images.release(&container.id);
        if self.0.containers.lock().remove(&container.id).is_some() {
            self.emit(&container.id, v1::ContainerEventType::ContainerDeletedEvent, &container.sandbox);
        }
        Ok(())
    }

    pub(super) async fn update_resources(&self, request: v1::UpdateContainerResourcesRequest) -> Result<(), Status> {
        let container = self.container(&request.container_id)?;
        let _work = container.work.lock().await;
        let wanted = request.linux.unwrap_or_default();
        if container.phase() == v1::ContainerState::ContainerRunning {
            let (runtime, this, limits) = (self.clone(), container.clone(), Limits::from(&wanted));
            blocking("update container resources", move || runtime.0.cgroups.update(&this.record.cgroup, &limits))
                .await?;
        }
        let mut state = container.state.lock();
        merge(&mut state.resources, wanted);
        Ok(())
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        container.process().map_err(|_| Status::failed_precondition("container is not running"))?;
        let client = Client::new(&container.sandbox.run_dir);
        let text = format!("reopen {}", container.id);
        blocking("reopen container log", move || client.request(&text, &[])).await.map(drop)
    }
}

fn limits(config: &v1::ContainerConfig) -> Limits {
    let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    resources.map(Limits::from).unwrap_or_default()
}

/// Non-zero values replace.
fn merge(current: &mut v1::LinuxContainerResources, change: v1::LinuxContainerResources) {
    let set = |old: &mut i64, new: i64| {
        if new != 0 {
            *old = new;
        }
    };
    set(&mut current.cpu_period, change.cpu_period);
    set(&mut current.cpu_quota, change.cpu_quota);
    set(&mut current.cpu_shares, change.cpu_shares);
    set(&mut current.memory_limit_in_bytes, change.memory_limit_in_bytes);
    set(&mut current.memory_swap_limit_in_bytes, change.memory_swap_limit_in_bytes);
    set(&mut current.oom_score_adj, change.oom_score_adj);
    if !change.cpuset_cpus.is_empty() {
        current.cpuset_cpus = change.cpuset_cpus;
    }
    if !change.cpuset_mems.is_empty() {
        current.cpuset_mems = change.cpuset_mems;
    }
    if !change.hugepage_limits.is_empty() {
        current.hugepage_limits = change.hugepage_limits;
    }
    current.unified.extend(change.unified);
}

fn make_files(container: &Container, spec: &ContainerSpec) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let (state, run) = (&container.state_dir, &container.run_dir);
    // The writable layer belongs to the container's root; nobody else passes through above it.
    fs::DirBuilder::new().mode(0o700).create(state).attempt(|| format!("make {}", state.display()))?;
    fs::create_dir(state.join("upper"))?;
    fs::create_dir(state.join("work"))?;
    fs::DirBuilder::new().mode(0o700).create(run).attempt(|| format!("make {}", run.display()))?;
    fs::create_dir(run.join("rootfs"))?;
    if !spec.io.tty {
        make_fifo(&run.join("stdout"))?;
        make_fifo(&run.join("stderr"))?;
        if spec.io.stdin {
            make_fifo(&run.join("stdin"))?;
        }
    }
    for mount in &spec.mounts {
        // As Docker does: a missing host path is an empty directory.
        if !mount.source.exists() {
            fs::create_dir_all(&mount.source).attempt(|| format!("make {}", mount.source.display()))?;
        }
    }
    if let Some(log) = &spec.io.log_path
        && let Some(dir) = log.parent()
    {
        fs::create_dir_all(dir).attempt(|| format!("make {}", dir.display()))?;
    }
    save_message(&state.join(file::CONFIG), &container.config)?;
    save_json(&state.join(file::SPEC), spec)?;
    // Last: a directory without a record is a left-over.
    save_json(&state.join(file::RECORD), &container.record)
}

fn remove_files(container: &Container) -> io::Result<()> {
    // The record goes first, for the same reason.
    let record = container.state_dir.join(file::RECORD);
    match fs::remove_file(&record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).attempt(|| format!("remove {}", record.display()));
        }
        _ => {}
    }
    remove_dir(&container.run_dir)?;
    remove_dir(&container.state_dir)
}

/// The directories of a container that was never finished.
pub(super) fn remove_left_over(state_dir: &Path, run_dir: &Path) {
    let _ = remove_dir(run_dir);
    let _ = remove_dir(state_dir);
}
