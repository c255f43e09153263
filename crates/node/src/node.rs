//! What all parts of one node's kubelet share.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::{Mutex, RwLock};
use skiff_base::{Clock, Random, Tasks};
use skiff_client::{Client, ObjectKey};
use skiff_runtime::{ImageService, RuntimeService, Streaming};

use crate::config::{NodeConfig, NodeNetwork};
use crate::events::Events;
use crate::objects::Objects;
use crate::resources::Amounts;
use crate::server::access::Access;
use crate::volumes::payload::Token;
use crate::worker::Handle;

/// The node: its settings, its ways out, and its pods.
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) runtime: Arc<dyn RuntimeService>,
    pub(crate) images: Arc<dyn ImageService>,
    pub(crate) streaming: Arc<dyn Streaming>,
    pub(crate) network: Arc<dyn NodeNetwork>,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) tasks: Tasks,
    pub(crate) events: Events,
    pub(crate) objects: Objects,
    pub(crate) services: RwLock<BTreeMap<ObjectKey, Arc<Service>>>,
    /// The pods by uid.
    pub(crate) pods: Mutex<BTreeMap<String, Handle>>,
    /// Service account tokens by pod uid, audience and asked lifetime.
    pub(crate) tokens: Mutex<BTreeMap<(String, String, i64), Token>>,
    /// Who was let in lately, and who was not.
    pub(crate) access: Access,
    pub(crate) machine: Machine,
}

/// The size of the machine the node offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) cpu_milli: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) storage_bytes: i64,
}

impl Machine {
    /// Measures the machine, unless the settings say otherwise.
    pub(crate) fn measure(config: &NodeConfig) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
        let memory = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| meminfo(&text, "MemTotal:"))
            .unwrap_or(1 << 30);
        let storage = nix::sys::statvfs::statvfs(&config.data_dir)
            .map_or(0, |stat| i64::try_from(stat.blocks().saturating_mul(stat.fragment_size())).unwrap_or(0));
        Self {
            cpu_milli: config.cpu_milli.unwrap_or(cpus * 1000),
            memory_bytes: config.memory_bytes.unwrap_or(memory),
            storage_bytes: storage,
        }
    }
}

/// A line of `/proc/meminfo` in bytes.
pub(crate) fn meminfo(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<i64>().ok().map(|kib| kib * 1024)
}

impl Node {
    /// What the node has in all.
    pub(crate) fn capacity(&self) -> Amounts {
        let cpu = match self.machine.cpu_milli {
            milli if milli % 1000 == 0 => (milli / 1000).to_string(),
            milli => format!("{milli}m"),
        };
        Amounts::from([
            ("cpu".to_owned(), Quantity(cpu)),
            ("memory".to_owned(), Quantity(format!("{}Ki", self.machine.memory_bytes / 1024))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", self.machine.storage_bytes / 1024))),
            ("hugepages-1Gi".to_owned(), Quantity("0".into())),
            ("hugepages-2Mi".to_owned(), Quantity("0".into())),
            ("pods".to_owned(), Quantity(self.config.max_pods.to_string())),
        ])
    }

    /// What pods may use: all but the eviction reserve of memory and a tenth of the disk.
    pub(crate) fn allocatable(&self) -> Amounts {
        const EVICTION_MEMORY_BYTES: i64 = 100 << 20;
        let mut amounts = self.capacity();
        let memory = (self.machine.memory_bytes - EVICTION_MEMORY_BYTES).max(0) / 1024;
        amounts.insert("memory".into(), Quantity(format!("{memory}Ki")));
        amounts.insert("ephemeral-storage".into(), Quantity((self.machine.storage_bytes / 10 * 9).to_string()));
        amounts
    }

    /// The pod of this name, if the node has it.
    pub(crate) fn pod_named(&self, namespace: &str, name: &str) -> Option<Arc<crate::pod::PodView>> {
        let pods = self.pods.lock();
        let mut found = pods.values().map(Handle::pod).filter(|pod| pod.namespace == namespace && pod.name == name);
        found.next_back()
    }
}
