//! A start of the server: what is in the state directories and still runs is taken over, so that
//! every list reads as before.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Runtime;
use super::container::remove_left_over;
use super::shim::Client;
use super::state::{Container, Sandbox, load_json, load_message};
use crate::cri as v1;
use crate::spec::{ContainerRecord, Exited, SandboxRecord, Started, file};
use crate::sys::PidFd;

impl Runtime {
    pub(super) async fn adopt(&self) -> io::Result<()> {
        let data_dir = self.0.config.data_dir.clone();
        let run_dir = self.0.config.run_dir.clone();
        for id in names(&data_dir.join("sandboxes"))? {
            let dir = data_dir.join("sandboxes").join(&id);
            let config = load_message::<v1::PodSandboxConfig>(&dir.join(file::CONFIG));
            let record = load_json::<SandboxRecord>(&dir.join(file::RECORD));
            let (Some(config), Some(record)) = (config, record) else {
                remove_left_over(&dir, &run_dir.join("sandboxes").join(&id));
                continue;
            };
            let sandbox = Sandbox::new(self, &id, config, record);
            self.0.sandboxes.lock().insert(id, sandbox);
        }
        for id in names(&data_dir.join("containers"))? {
            let dir = data_dir.join("containers").join(&id);
            match self.load_container(&id, &dir) {
                Some(container) => drop(self.0.containers.lock().insert(id, container)),
                None => remove_left_over(&dir, &run_dir.join("containers").join(&id)),
            }
        }
        let sandboxes: Vec<_> = self.0.sandboxes.lock().values().cloned().collect();
        for sandbox in sandboxes {
            self.adopt_state(&sandbox).await;
        }
        Ok(())
    }

    fn load_container(&self, id: &str, dir: &Path) -> Option<Arc<Container>> {
        let record = load_json::<ContainerRecord>(&dir.join(file::RECORD))?;
        let config = load_message::<v1::ContainerConfig>(&dir.join(file::CONFIG))?;
        let sandbox = self.0.sandboxes.lock().get(&record.sandbox_id).cloned()?;
        let container = Container::new(self, id, sandbox, config, record);
        self.0.images.hold(id, container.record.layers.clone());
        if let Some(started) = load_json::<Started>(&dir.join(file::STARTED)) {
            container.set_started(started);
        }
        if let Some(exited) = load_json::<Exited>(&dir.join(file::EXIT)) {
            container.set_exited(exited);
        }
        Some(container)
    }

    async fn adopt_state(&self, sandbox: &Arc<Sandbox>) {
        let stopped = sandbox.state.lock().record.stopped;
        let pause = load_json::<Started>(&sandbox.state_dir.join(file::STARTED));
        let pause = pause.filter(|pause| !stopped && PidFd::open(pause.pid, pause.start_time).is_ok());
        let alive = pause.is_some();
        {
            let mut state = sandbox.state.lock();
            // A sandbox whose network was never attached was never announced to anybody.
            state.ready =
                alive && (!sandbox.own_network() || !state.record.addresses.is_empty() || self.no_addresses());
            state.pause = pause;
        }
        if !alive {
            for container in self.containers_of(&sandbox.id) {
                self.look_after(&container).await;
            }
            return;
        }
        // Its shim, as a rule, has never noticed that the server was away.
        if Client::new(&sandbox.run_dir).watch().is_ok() && self.keep_shim(sandbox, None).is_ok() {
            for container in self.containers_of(&sandbox.id) {
                self.container_ended(&container).await;
            }
            return;
        }
        tracing::warn!(sandbox = %sandbox.id, "found without a shim; starting one");
        if let Err(error) = self.adopt_sandbox(sandbox).await {
            tracing::error!(sandbox = %sandbox.id, %error, "the sandbox has no shim");
        }
    }

    /// Whether this network gives no addresses at all.
    fn no_addresses(&self) -> bool {
        !self.0.config.network.gives_addresses()
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
