//! Pod sandboxes: from nothing to ready and back to nothing.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tonic::Status;

use super::Runtime;
use super::shim::{self, Client, News};
use super::state::{Sandbox, blocking, failed, namespaces, save_json, save_message, unmount};
use super::translate;
use crate::cgroup::Limits;
use crate::cri as v1;
use crate::image::remove_dir;
use crate::shim::{ADOPT, NEW};
use crate::spec::{Exited, SandboxRecord, SandboxSpec, Started, file};
use crate::sys::{Attempt, PidFd};

/// The pause process should be the last of its pod to be killed.
const PAUSE_OOM_SCORE: i32 = -998;

impl Runtime {
    pub(super) async fn run_sandbox(&self, request: v1::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.unwrap_or_default();
        let metadata =
            config.metadata.clone().ok_or_else(|| translate::invalid("sandbox config must include metadata"))?;
        if !request.runtime_handler.is_empty() {
            return Err(Status::invalid_argument(format!(
                "no runtime for {:?} is configured: this node only has the default handler",
                request.runtime_handler
            )));
        }
        let spaces = namespaces(&config);
        if spaces.userns_options.as_ref().is_some_and(|user| user.mode() != v1::NamespaceMode::Node) {
            return Err(translate::user_namespaces());
        }
        let id = self.new_id();
        let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
        let record = SandboxRecord {
            created_at: self.now(),
            runtime_handler: request.runtime_handler,
            addresses: Vec::new(),
            stopped: false,
            cgroup: format!("{parent}/{id}"),
        };
        let sandbox = Sandbox::new(self, &id, config, record);
        {
            let mut sandboxes = self.0.sandboxes.lock();
            let same = sandboxes.values().find(|other| other.config.metadata.as_ref() == Some(&metadata));
            if let Some(other) = same {
                let name = format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt);
                return Err(Status::already_exists(format!(
                    "failed to reserve sandbox name {name:?}: name is reserved for {:?}",
                    other.id
                )));
            }
            sandboxes.insert(id.clone(), sandbox.clone());
        }
        // A cancelled call must not leave half a sandbox: the work goes on and is undone there.
        let (runtime, task) = (self.clone(), sandbox.clone());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.0.config.tasks.spawn("run-sandbox", async move {
            let result = runtime.start_sandbox(&task).await;
            if result.is_err() || sender.is_closed() {
                if let Err(error) = runtime.remove_sandbox(&task.id).await {
                    tracing::warn!(sandbox = %task.id, %error, "failed sandbox was not undone");
                }
            } else {
                runtime.emit(&task.id, v1::ContainerEventType::ContainerCreatedEvent, &task);
                runtime.emit(&task.id, v1::ContainerEventType::ContainerStartedEvent, &task);
            }
            let _ = sender.send(result);
        });
        match receiver.await {
            Ok(result) => result.map(|()| id),
            Err(_) => Err(Status::aborted("the runtime is stopping")),
        }
    }

    async fn start_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
        let _work = sandbox.work.lock().await;
        let (runtime, this) = (self.clone(), sandbox.clone());
        let sysctls = {
            let options = namespaces(&sandbox.config);
            let own_ipc = options.ipc() != v1::NamespaceMode::Node;
            translate::sysctls(&sandbox.config, sandbox.own_network(), own_ipc)?
        };
        let (started, shim) =
            blocking("create sandbox", move || runtime.start_sandbox_blocking(&this, sysctls)).await?;
        self.keep_shim(sandbox, Some(shim))?;
        {
            let mut state = sandbox.state.lock();
            state.pause = Some(started);
        }
        if sandbox.own_network() {
            let attached = self.0.config.network.attach(&sandbox.id, &sandbox.netns(), &sandbox.config).await;
            let addresses =
                attached.map_err(|error| failed(&format!("setup network for sandbox {:?}", sandbox.id), error))?;
            sandbox.state.lock().record.addresses = addresses;
        }
        sandbox.save().map_err(|error| failed("save sandbox", error))?;
        sandbox.state.lock().ready = true;
        Ok(())
    }

    fn start_sandbox_blocking(
        &self,
        sandbox: &Sandbox,
        sysctls: Vec<(PathBuf, String)>,
    ) -> io::Result<(Started, PidFd)> {
        let inner = &self.0;
        let options = namespaces(&sandbox.config);
        fs::create_dir_all(&sandbox.state_dir).attempt(|| format!("make {}", sandbox.state_dir.display()))?;
        fs::create_dir_all(&sandbox.run_dir).attempt(|| format!("make {}", sandbox.run_dir.display()))?;
        save_message(&sandbox.state_dir.join(file::CONFIG), &sandbox.config)?;
        sandbox.save()?;
        self.write_sandbox_files(sandbox)?;
        let cgroup = sandbox.state.lock().record.cgroup.clone();
        let resources = v1::LinuxContainerResources { cpu_shares: 2, ..v1::LinuxContainerResources::default() };
        let limits = Limits::from(&resources);
        inner.cgroups.create(&cgroup, &limits, None)?;
        let spec = SandboxSpec {
            id: sandbox.id.clone(),
            state_dir: sandbox.state_dir.clone(),
            run_dir: sandbox.run_dir.clone(),
            hostname: self.hostname(sandbox),
            own_network: sandbox.own_network(),
            node_netns: inner.config.network.node_netns(),
            own_ipc: options.ipc() != v1::NamespaceMode::Node,
            sysctls,
            join: inner.cgroups.join(&cgroup, &limits)?,
            oom_score_adj: PAUSE_OOM_SCORE,
        };
        save_json(&sandbox.state_dir.join(file::SPEC), &spec)?;
        let shim = shim::start(&inner.config.executable, &sandbox.state_dir, NEW)?;
        let started = super::state::load_json(&sandbox.state_dir.join(file::STARTED));
        Ok((started.ok_or_else(|| io::Error::other("the shim left no record of its start"))?, shim))
    }

    pub(super) fn hostname(&self, sandbox: &Sandbox) -> String {
        match sandbox.config.hostname.as_str() {
            "" => self.0.config.node_hostname.clone(),
            name => name.to_owned(),
        }
    }

    /// The files that containers see unless their pod mounts others over them.
    fn write_sandbox_files(&self, sandbox: &Sandbox) -> io::Result<()> {
        let hostname = self.hostname(sandbox);
        fs::write(sandbox.state_dir.join("hostname"), format!("{hostname}\n"))?;
        let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
        fs::write(sandbox.state_dir.join("hosts"), hosts)?;
        let resolv = match &sandbox.config.dns_config {
            Some(dns) => resolv_conf(dns),
            None => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        };
        fs::write(sandbox.state_dir.join("resolv.conf"), resolv)?;
        for name in ["hostname", "hosts", "resolv.conf"] {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(sandbox.state_dir.join(name), fs::Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// Watches the sandbox's shim from now on, and replaces it when it dies.
    pub(super) fn keep_shim(&self, sandbox: &Arc<Sandbox>, child: Option<PidFd>) -> Result<(), Status> {
        let client = Client::new(&sandbox.run_dir);
        let watch = client.watch().map_err(|error| failed("watch the shim", error))?;
        let (runtime, sandbox) = (self.clone(), sandbox.clone());
        if let Some(child) = child {
            let child = Arc::new(child);
            self.0.config.tasks.spawn("reap-shim", async move {
                if super::state::process_end(&child).await.is_ok() {
                    crate::sys::reap(&child);
                }
            });
        }
        self.0.config.tasks.clone().spawn("watch-shim", async move {
            let mut watch = watch;
            loop {
                match watch.next().await {
                    News::Exit(id) => {
                        if let Ok(container) = runtime.container(&id) {
                            runtime.container_ended(&container).await;
                        }
                    }
                    News::Pause => runtime.pause_ended(&sandbox),
                    News::Gone => return runtime.replace_shim(&sandbox).await,
                }
            }
        });
        Ok(())
    }

    fn pause_ended(&self, sandbox: &Sandbox) {
        {
            let mut state = sandbox.state.lock();
            state.pause = None;
            state.ready = false;
        }
        self.emit(&sandbox.id, v1::ContainerEventType::ContainerStoppedEvent, sandbox);
    }

    /// Starts another shim for a sandbox that lives without one.
    async fn replace_shim(&self, sandbox: &Arc<Sandbox>) {
        let _work = sandbox.work.lock().await;
        let alive = {
            let state = sandbox.state.lock();
            let pause = state.pause.as_ref();
            !state.record.stopped && pause.is_some_and(|pause| PidFd::open(pause.pid, pause.start_time).is_ok())
        };
        if !alive {
            if sandbox.state.lock().pause.is_some() {
                self.pause_ended(sandbox);
            }
            for container in self.containers_of(&sandbox.id) {
                self.look_after(&container).await;
            }
            return;
        }
        tracing::warn!(sandbox = %sandbox.id, "the shim died; starting another");
        if let Err(error) = self.adopt_sandbox(sandbox).await {
            tracing::error!(sandbox = %sandbox.id, %error, "the sandbox has no shim");
        }
    }

    /// Starts an adopting shim and hands it the running containers.
    pub(super) async fn adopt_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
        let (executable, state_dir) = (self.0.config.executable.clone(), sandbox.state_dir.clone());
        let shim = blocking("start shim", move || shim::start(&executable, &state_dir, ADOPT)).await?;
        self.keep_shim(sandbox, Some(shim))?;
        for container in self.containers_of(&sandbox.id) {
            if container.phase() != v1::ContainerState::ContainerRunning {
                continue;
            }
            let client = Client::new(&sandbox.run_dir);
            let text = format!("adopt {}", container.state_dir.display());
            if let Err(error) = blocking("adopt container", move || client.request(&text, &[])).await {
                tracing::info!(container = %container.id, %error, "not adopted");
            }
            self.look_after(&container).await;
        }
        Ok(())
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        for container in self.containers_of(&sandbox.id) {
            self.stop_container_now(&container, std::time::Duration::ZERO).await?;
        }
        let _work = sandbox.work.lock().await;
        // Before the pause process ends, so that addresses are never free while packets flow.
        if sandbox.own_network() {
            let detached = self.0.config.network.detach(&sandbox.id, &sandbox.netns()).await;
            detached.map_err(|error| failed(&format!("destroy network for sandbox {:?}", sandbox.id), error))?;
        }
        let was_ready = {
            let mut state = sandbox.state.lock();
            state.record.stopped = true;
            std::mem::replace(&mut state.ready, false)
        };
        let (runtime, this) = (self.clone(), sandbox.clone());
        blocking("stop sandbox", move || runtime.stop_sandbox_blocking(&this)).await?;
        if was_ready {
            self.emit(&sandbox.id, v1::ContainerEventType::ContainerStoppedEvent, &sandbox);
        }
        Ok(())
    }

    fn stop_sandbox_blocking(&self, sandbox: &Sandbox) -> io::Result<()> {
        if sandbox.state_dir.exists() {
            sandbox.save()?;
        }
        // The shim may be gone; then the pause process is ours to kill.
        let _ = Client::new(&sandbox.run_dir).request("stop", &[]);
        let started: Option<Started> = sandbox.state.lock().pause.take();
        let started = started.or_else(|| super::state::load_json(&sandbox.state_dir.join(file::STARTED)));
        if let Some(pause) = started
            && let Ok(process) = PidFd::open(pause.pid, pause.start_time)
        {
            let _ = process.signal(libc::SIGKILL);
        }
        unmount(&sandbox.netns())?;
        unmount(&sandbox.run_dir.join(file::SHM))?;
        remove_dir(&sandbox.run_dir)?;
        let cgroup = sandbox.state.lock().record.cgroup.clone();
        self.0.cgroups.kill(&cgroup);
        self.0.cgroups.remove(&cgroup)?;
        let exit = sandbox.state_dir.join(file::EXIT);
        if sandbox.state_dir.exists() && !exit.exists() {
            let exited = Exited { code: 137, at: self.now(), reason: String::new(), message: String::new() };
            save_json(&exit, &exited)?;
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container_now(&container).await?;
        }
        let _work = sandbox.work.lock().await;
        let state_dir = sandbox.state_dir.clone();
        blocking("remove sandbox", move || remove_dir(&state_dir)).await?;
        self.0.sandboxes.lock().remove(&sandbox.id);
        self.emit(&sandbox.id, v1::ContainerEventType::ContainerDeletedEvent, &sandbox);
        Ok(())
    }
}

fn resolv_conf(dns: &v1::DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_the_usual_order() {
        let dns = v1::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(&dns),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }
}
