//! A runtime of its own for one test, and the check that it leaves nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skiff_base::{Clock, Random, Shutdown, Tasks};
use skiff_runtime::cri as v1;
use skiff_runtime::image::{ImageBuilder, LayerFile, ProcessConfig};
use skiff_runtime::{Config, ImageStore, LoopbackOnly, Runtime, RuntimeService};

use crate::Outcome;

pub(crate) const BUSYBOX: &str = "/bin/busybox";
pub(crate) const IMAGE: &str = "skiff.local/busybox:test";
/// No event in these tests takes longer than this on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroup: String,
    running: Mutex<Option<(Runtime, Tasks)>>,
}

impl Machine {
    pub(crate) async fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::Builder::new().prefix("skiff-runtime-").tempdir()?;
        let cgroup = format!("/{}", dir.path().file_name().unwrap().to_string_lossy());
        let machine = Self { dir, cgroup, running: Mutex::new(None) };
        machine.start().await?;
        machine.runtime().images().build(&busybox())?;
        Ok(machine)
    }

    /// Starts the server (again).
    pub(crate) async fn start(&self) -> Outcome {
        let clock = Clock::system();
        let tasks = Tasks::new("test", Shutdown::new());
        let data_dir = self.dir.path().join("data");
        let images = ImageStore::open(&data_dir, clock.clone(), Random::system())?;
        let config = Config {
            data_dir,
            run_dir: self.dir.path().join("run"),
            executable: PathBuf::from("/proc/self/exe"),
            node_hostname: "node-1".into(),
            clock,
            random: Random::system(),
            network: Arc::new(LoopbackOnly),
            tasks: tasks.clone(),
        };
        let runtime = Runtime::open(config, images).await?;
        *self.running.lock() = Some((runtime, tasks));
        Ok(())
    }

    /// Ends the server as a kill would: nothing is told to anybody.
    pub(crate) async fn kill_server(&self) {
        let running = self.running.lock().take();
        if let Some((_, tasks)) = running {
            tasks.stop().await;
        }
    }

    pub(crate) fn runtime(&self) -> Runtime {
        self.running.lock().as_ref().unwrap().0.clone()
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// A pod with its own network.
    pub(crate) fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.logs().display().to_string(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod-{name}", self.cgroup),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container as i32,
                        ..v1::NamespaceOption::default()
                    }),
                    ..v1::LinuxSandboxSecurityContext::default()
                }),
                ..v1::LinuxPodSandboxConfig::default()
            }),
            ..v1::PodSandboxConfig::default()
        }
    }

    pub(crate) async fn run_pod(&self, config: v1::PodSandboxConfig) -> Result<String, tonic::Status> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        self.runtime().run_pod_sandbox(request).await.map(|answer| answer.pod_sandbox_id)
    }

    pub(crate) async fn create(&self, pod: &str, config: v1::ContainerConfig) -> Result<String, tonic::Status> {
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod.into(), config: Some(config), sandbox_config: None };
        self.runtime().create_container(request).await.map(|answer| answer.container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), tonic::Status> {
        let request = v1::StartContainerRequest { container_id: id.into() };
        self.runtime().start_container(request).await.map(drop)
    }

    /// Creates and starts.
    pub(crate) async fn run(&self, pod: &str, config: v1::ContainerConfig) -> Result<String, tonic::Status> {
        let id = self.create(pod, config).await?;
        self.start_container(&id).await?;
        Ok(id)
    }

    pub(crate) async fn status(&self, id: &str) -> Result<v1::ContainerStatus, tonic::Status> {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        Ok(self.runtime().container_status(request).await?.status.unwrap_or_default())
    }

    /// The main process.
    pub(crate) async fn pid(&self, id: &str) -> i32 {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.runtime().container_status(request).await.unwrap().info["info"].clone();
        serde_json::from_str::<serde_json::Value>(&info).unwrap()["pid"].as_i64().unwrap() as i32
    }

    /// Waits for the exit.
    pub(crate) async fn wait(&self, id: &str) -> Result<v1::ContainerStatus, Box<dyn std::error::Error>> {
        let exited = v1::ContainerState::ContainerExited as i32;
        eventually(&format!("container {id} exits"), || async {
            self.status(id).await.is_ok_and(|status| status.state == exited)
        })
        .await?;
        Ok(self.status(id).await?)
    }

    /// Runs a shell script in a new pod's container to its end; its exit code and output.
    pub(crate) async fn script(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::ContainerConfig),
        script: &str,
    ) -> Result<(i32, String), Box<dyn std::error::Error>> {
        let pod = self.run_pod(self.pod(name)).await?;
        let mut config = sh(name, script);
        change(&mut config);
        let id = self.run(&pod, config).await?;
        let status = self.wait(&id).await?;
        Ok((status.exit_code, self.output(name)))
    }

    /// The text of a log, without the records' heads.
    pub(crate) fn output(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.logs().join(format!("{name}.log"))).unwrap_or_default();
        log.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or(""))).collect()
    }

    /// Removes all pods and looks for what they left.
    pub(crate) async fn finish(self) -> Outcome {
        if self.running.lock().is_none() {
            self.start().await?;
        }
        let runtime = self.runtime();
        for pod in runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items {
            runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await?;
            runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id }).await?;
        }
        self.kill_server().await;
        let path = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(&path)).collect();
        assert_none("mounts", &left)?;
        for dir in ["data/containers", "data/sandboxes", "run/containers", "run/sandboxes"] {
            let left: Vec<_> =
                std::fs::read_dir(self.dir.path().join(dir))?.flatten().map(|entry| entry.path()).collect();
            assert_none("files", &left)?;
        }
        eventually("all processes are gone", || async { processes_of(&path, &self.cgroup).is_empty() }).await?;
        // The pods' parent groups belong to the kubelet, here to us.
        for group in groups(&self.cgroup) {
            let children: Vec<_> = std::fs::read_dir(&group)?.flatten().filter(|entry| entry.path().is_dir()).collect();
            for pod in children {
                let nested: Vec<_> =
                    std::fs::read_dir(pod.path())?.flatten().filter(|entry| entry.path().is_dir()).collect();
                assert_none("cgroups", &nested.iter().map(|entry| entry.path()).collect::<Vec<_>>())?;
                std::fs::remove_dir(pod.path())?;
            }
            std::fs::remove_dir(&group)?;
        }
        Ok(())
    }
}

fn assert_none<T: std::fmt::Debug>(what: &str, left: &[T]) -> Outcome {
    if left.is_empty() { Ok(()) } else { Err(format!("{what} are left: {left:?}").into()) }
}

/// The directories of a group in all hierarchies.
pub(crate) fn groups(path: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| Path::new(point).join(path.trim_start_matches('/')))
    });
    points.filter(|group| group.is_dir()).collect()
}

/// Shims of the directory and members of the groups.
fn processes_of(dir: &str, cgroup: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let group = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if command.contains(dir) || group.contains(cgroup) {
            found.push(format!("{}: {command}", entry.path().display()));
        }
    }
    found
}

/// Waits until something is so. The kernel has no event for some of what tests look at, so this
/// looks again and again, up to a bound.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) -> Outcome {
    let wait = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_| format!("not within {PATIENCE:?}: {what}").into())
}

fn busybox() -> ImageBuilder {
    let mut files = vec![
        LayerFile::host("/bin/busybox", BUSYBOX),
        LayerFile::text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n"),
        LayerFile::text("/etc/group", "root:x:0:\nweb:x:1000:\nwww:x:33:web\n"),
        LayerFile::directory("/tmp", 0o1777),
    ];
    for name in [
        "sh", "cat", "echo", "sleep", "id", "ls", "mkdir", "mount", "ps", "kill", "stty", "tty", "nc", "dd", "grep",
        "touch", "chown", "head", "hostname", "true", "date", "wc", "seq", "test", "readlink", "mknod", "rm", "ip",
        "env",
    ] {
        files.push(LayerFile::link(format!("/bin/{name}"), "busybox"));
    }
    ImageBuilder {
        name: IMAGE.into(),
        process: ProcessConfig {
            cmd: vec!["/bin/sh".into()],
            env: vec!["FROM_IMAGE=yes".into(), "BOTH=image".into()],
            ..ProcessConfig::default()
        },
        files,
        pinned: false,
    }
}

/// A container that runs a shell script and logs to `NAME.log`.
pub(crate) fn sh(name: &str, script: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..v1::ImageSpec::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources { cpu_shares: 100, ..v1::LinuxContainerResources::default() }),
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container as i32,
                    ..v1::NamespaceOption::default()
                }),
                masked_paths: [
                    "/proc/kcore",
                    "/proc/keys",
                    "/proc/timer_list",
                    "/sys/firmware",
                    "/proc/acpi",
                    "/proc/scsi",
                ]
                .map(str::to_owned)
                .to_vec(),
                readonly_paths: ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"]
                    .map(str::to_owned)
                    .to_vec(),
                ..v1::LinuxContainerSecurityContext::default()
            }),
        }),
        ..v1::ContainerConfig::default()
    }
}

/// The security part of a container.
pub(crate) fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}
