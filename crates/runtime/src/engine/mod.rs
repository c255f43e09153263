//! The embedded runtime: CRI v1 over our own shims.
//!
//! What exists is in the state directories; this process holds a copy and changes both together.
//! Reading order: [`Config`], `state` (what is known), `sandbox`, `container`, `translate` (CRI
//! to specification), `adopt` (a restart), `streams`, `stats`.

mod adopt;
mod container;
mod cri;
mod sandbox;
mod shim;
mod state;
mod stats;
mod streams;
mod translate;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use skiff_base::{Clock, Random, Tasks};
use tokio::sync::broadcast;

use crate::cgroup::Cgroups;
use crate::cri as v1;
use crate::image::ImageStore;
use crate::network::SandboxNetwork;
use state::{Container, Sandbox};
pub(crate) use stats::tree_size;

/// What the runtime is given.
pub struct Config {
    /// Holds images, layers, and the state of sandboxes and containers.
    pub data_dir: PathBuf,
    /// Holds sockets, FIFOs and mounts; best on a tmpfs.
    pub run_dir: PathBuf,
    /// This program, for shims and helpers; its `main` calls [`crate::shim::dispatch`] first.
    pub executable: PathBuf,
    /// The hostname of pods that use the node's; empty keeps that of this machine.
    pub node_hostname: String,
    /// The clock.
    pub clock: Clock,
    /// Ids come from here.
    pub random: Random,
    /// Connects sandboxes.
    pub network: Arc<dyn SandboxNetwork>,
    /// Runs the watchers.
    pub tasks: Tasks,
}

/// The embedded runtime. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    config: Config,
    images: ImageStore,
    cgroups: Cgroups,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
}

/// A slower reader of events loses the oldest and is told so; it then lists.
const EVENTS_BUFFER: usize = 1_024;

impl Runtime {
    /// Opens the runtime and adopts what runs already.
    ///
    /// # Errors
    /// When the directories cannot be made or the machine has no usable control groups.
    pub async fn open(config: Config, images: ImageStore) -> io::Result<Self> {
        for dir in ["sandboxes", "containers"] {
            std::fs::create_dir_all(config.data_dir.join(dir))?;
            std::fs::create_dir_all(config.run_dir.join(dir))?;
        }
        let inner = Inner {
            cgroups: Cgroups::detect()?,
            config,
            images,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_BUFFER),
        };
        let runtime = Self(Arc::new(inner));
        runtime.adopt().await?;
        Ok(runtime)
    }

    /// The images it runs.
    pub fn images(&self) -> &ImageStore {
        &self.0.images
    }

    fn now(&self) -> i64 {
        self.0.config.clock.now().as_nanos()
    }

    /// 64 hexadecimal digits, as other runtimes have them.
    fn new_id(&self) -> String {
        let mut bytes = [0; 32];
        self.0.config.random.fill(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
