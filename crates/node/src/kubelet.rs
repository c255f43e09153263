//! The kubelet as a whole: where pods come from, what wakes their workers, what is cleaned up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::{Mutex, RwLock};
use skiff_base::{Clock, Random, Tasks};
use skiff_client::{Client, ObjectKey, Selection};
use skiff_runtime::cri;
use skiff_runtime::{ImageService, RuntimeService, Streaming};
use tokio::sync::{Notify, watch};

use crate::config::{NodeConfig, NodeNetwork};
use crate::cri::{POD_NAME, POD_NAMESPACE, POD_UID};
use crate::events::{Events, Severity};
use crate::follow::{Change, follow};
use crate::node::{Machine, Node};
use crate::objects::Objects;
use crate::pod::PodView;
use crate::{collect, mirror, registration, server, worker};

/// The pause before a broken event stream of the runtime is opened again.
const EVENTS_RETRY: Duration = Duration::from_secs(1);
/// Every worker looks again this seldom, should an event have been lost.
const RELIST: Duration = Duration::from_secs(60);

/// What a kubelet works with.
pub struct Parts {
    /// To the API server, with the node's identity.
    pub client: Client,
    /// Sandboxes and containers.
    pub runtime: Arc<dyn RuntimeService>,
    /// Images.
    pub images: Arc<dyn ImageService>,
    /// exec, attach and port-forward.
    pub streaming: Arc<dyn Streaming>,
    /// The node's network namespace.
    pub network: Arc<dyn NodeNetwork>,
    /// The time.
    pub clock: Clock,
    /// Randomness for names.
    pub random: Random,
    /// The tasks of this kubelet; stopping them leaves the containers running.
    pub tasks: Tasks,
}

/// A running kubelet.
#[derive(Clone)]
pub struct Kubelet {
    node: Arc<Node>,
    address: SocketAddr,
    ready: watch::Receiver<bool>,
}

impl Kubelet {
    /// Starts the node described by `config`.
    ///
    /// # Errors
    /// When its directories cannot be made or its port is taken.
    pub async fn start(config: NodeConfig, parts: Parts) -> std::io::Result<Self> {
        for dir in [config.data_dir.join("pods"), config.runtime_dir.join("pods"), config.data_dir.join("logs/pods")] {
            std::fs::create_dir_all(dir)?;
        }
        let listener = parts.network.listen(config.listen).await?;
        let address = listener.local_addr()?;
        let mut config = config;
        config.listen.set_port(address.port());
        let node = Arc::new(Node {
            machine: Machine::measure(&config),
            events: Events::start(parts.client.clone(), parts.clock.clone(), &config.name, &parts.tasks),
            objects: Objects::new(parts.client.clone(), parts.clock.clone(), parts.tasks.clone()),
            config,
            client: parts.client,
            runtime: parts.runtime,
            images: parts.images,
            streaming: parts.streaming,
            network: parts.network,
            clock: parts.clock,
            random: parts.random,
            tasks: parts.tasks,
            services: RwLock::default(),
            pods: Mutex::default(),
            tokens: Mutex::default(),
            access: crate::server::access::Access::default(),
        });
        server::start(&node, listener);
        let (ready_sender, ready) = watch::channel(false);
        let main = Main { node: Arc::clone(&node), status_wake: Arc::new(Notify::new()) };
        node.tasks.spawn("main", main.run(ready_sender));
        Ok(Self { node, address, ready })
    }

    /// Where the HTTPS server listens, within the node's network.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves once the node is registered and its pods are known.
    pub async fn ready(&self) {
        drop(self.ready.clone().wait_for(|ready| *ready).await);
    }

    /// How many pods the node has, mirror pods not counted.
    pub fn pod_count(&self) -> usize {
        self.node.pods.lock().len()
    }
}

/// The mirror pods the API has, by uid.
type Mirrors = Arc<Mutex<BTreeMap<String, Arc<PodView>>>>;

struct Main {
    node: Arc<Node>,
    status_wake: Arc<Notify>,
}

impl Main {
    async fn run(self, ready: watch::Sender<bool>) {
        let node = &self.node;
        let services_synced = self.follow_services();
        let registered = registration::register(node).await;
        if let Some(pod_cidr) = registered.pod_cidr.clone().filter(|cidr| !cidr.is_empty()) {
            let config = cri::RuntimeConfig { network_config: Some(cri::NetworkConfig { pod_cidr }) };
            let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(config) };
            if let Err(error) = node.runtime.update_runtime_config(request).await {
                tracing::debug!(%error, "the runtime took no pod address range");
            }
        }
        node.events.node(&node.config.name, Severity::Normal, "Starting", "Starting kubelet.");
        node.tasks.spawn("lease", registration::keep_lease(Arc::clone(node), registered.uid.clone()));
        node.tasks.spawn("node-status", registration::keep_status(Arc::clone(node), Arc::clone(&self.status_wake)));
        node.tasks.spawn("runtime-events", runtime_events(Arc::clone(node)));
        node.tasks.spawn("collect", collect::run(Arc::clone(node)));
        // Variables of services are fixed at a container's start: know them first.
        services_synced.notified().await;
        self.follow_pods(registered.uid, ready).await;
    }

    fn follow_services(&self) -> Arc<Notify> {
        let synced = Arc::new(Notify::new());
        let (node, tell_synced) = (Arc::clone(&self.node), Arc::clone(&synced));
        let tell = move |change: Change<Service>| match change {
            Change::Put(service) => {
                let key = ObjectKey::of(&service.metadata);
                node.services.write().insert(key, Arc::new(service));
            }
            Change::Gone(service) => drop(node.services.write().remove(&ObjectKey::of(&service.metadata))),
            Change::Synced => tell_synced.notify_one(),
        };
        let node = &self.node;
        let run = follow::<Service>(node.client.clone(), node.clock.clone(), String::new(), Selection::default(), tell);
        node.tasks.spawn("services", run);
        synced
    }

    async fn follow_pods(self, node_uid: String, ready: watch::Sender<bool>) {
        let node = Arc::clone(&self.node);
        let mirrors = Mirrors::default();
        let tell = {
            let (node, mirrors) = (Arc::clone(&node), Arc::clone(&mirrors));
            move |change: Change<Pod>| match change {
                Change::Put(pod) => put(&node, &mirrors, pod),
                Change::Gone(pod) => gone(&node, &mirrors, &pod, &node_uid),
                Change::Synced => {
                    ready.send_replace(true);
                    let (node, mirrors, node_uid) = (Arc::clone(&node), Arc::clone(&mirrors), node_uid.clone());
                    node.clone().tasks.spawn("synced", async move {
                        orphans(&node).await;
                        let known: Vec<_> = mirrors.lock().values().cloned().collect();
                        mirror::sync(&node, &known, &node_uid).await;
                    });
                }
            }
        };
        let selection = Selection::fields(format!("spec.nodeName={}", node.config.name));
        follow::<Pod>(node.client.clone(), node.clock.clone(), String::new(), selection, tell).await;
    }
}

fn put(node: &Arc<Node>, mirrors: &Mirrors, pod: Pod) {
    let Some(pod) = PodView::new(Arc::new(pod)) else { return };
    if pod.is_mirror() {
        if pod.deleted_at().is_some() {
            // Nothing runs for it: its deletion needs only the kubelet's word.
            mirrors.lock().remove(&pod.uid);
            let node = Arc::clone(node);
            node.clone().tasks.spawn("mirror", async move {
                let options = skiff_client::DeleteOptions::uid(pod.uid.clone()).grace(0);
                drop(node.client.delete::<Pod>(&pod.namespace, &pod.name, &options).await);
            });
            return;
        }
        mirrors.lock().insert(pod.uid.clone(), pod);
        return;
    }
    let mut pods = node.pods.lock();
    match pods.get(&pod.uid) {
        Some(handle) => handle.update(pod),
        None => {
            let uid = pod.uid.clone();
            pods.insert(uid, worker::start(node, pod));
        }
    }
}

fn gone(node: &Arc<Node>, mirrors: &Mirrors, pod: &Pod, node_uid: &str) {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let handle = node.pods.lock().get(&uid).cloned();
    if let Some(handle) = handle {
        handle.gone();
    }
    let was_mirror = pod.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(crate::pod::CONFIG_MIRROR));
    mirrors.lock().remove(&uid);
    if was_mirror {
        // Somebody deleted it; the component is still there.
        let (node, mirrors, node_uid) = (Arc::clone(node), Arc::clone(mirrors), node_uid.to_owned());
        node.clone().tasks.spawn("mirror", async move {
            let known: Vec<_> = mirrors.lock().values().cloned().collect();
            mirror::sync(&node, &known, &node_uid).await;
        });
    }
}

/// Stops and removes what the runtime has of pods that the API no longer has.
async fn orphans(node: &Arc<Node>) {
    let listed = match node.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await {
        Ok(listed) => listed.items,
        Err(error) => return tracing::warn!(%error, "sandboxes not listed"),
    };
    let known: BTreeSet<String> = node.pods.lock().keys().cloned().collect();
    let mut seen = BTreeSet::new();
    for sandbox in listed {
        let label = |key: &str| sandbox.labels.get(key).cloned();
        let (Some(uid), Some(namespace), Some(name)) = (label(POD_UID), label(POD_NAMESPACE), label(POD_NAME)) else {
            continue;
        };
        if known.contains(&uid) || !seen.insert(uid.clone()) {
            continue;
        }
        tracing::info!(pod = %name, %namespace, "removing a pod that the API no longer has");
        let pod = Pod {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                uid: Some(uid),
                ..Default::default()
            },
            spec: Some(Default::default()),
            status: None,
        };
        let Some(pod) = PodView::new(Arc::new(pod)) else { continue };
        let stopper = crate::stop::Stopper { node, pod: &pod };
        stopper.stop(crate::stop::Reason::Deleted, 30).await;
        stopper.remove().await;
        if let Err(error) = crate::volumes::tear_down(node, &pod.uid).await {
            tracing::warn!(pod = %pod.name, %error, "volumes not removed");
        }
    }
    collect::orphaned_dirs(node).await;
}

/// Wakes workers by the runtime's events, and all of them once a minute.
async fn runtime_events(node: Arc<Node>) {
    loop {
        match node.runtime.get_container_events(cri::GetEventsRequest {}).await {
            Ok(mut events) => {
                wake_all(&node);
                loop {
                    tokio::select! {
                        biased;
                        event = events.next() => match event {
                            Some(Ok(event)) => wake(&node, &event),
                            Some(Err(error)) => {
                                tracing::debug!(%error, "runtime events broke off");
                                break;
                            }
                            None => break,
                        },
                        () = node.clock.sleep(RELIST) => wake_all(&node),
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "the runtime gives no events"),
        }
        node.clock.sleep(EVENTS_RETRY).await;
    }
}

fn wake_all(node: &Node) {
    node.pods.lock().values().for_each(crate::worker::Handle::wake);
}

fn wake(node: &Node, event: &cri::ContainerEventResponse) {
    let uid = event
        .pod_sandbox_status
        .as_ref()
        .and_then(|status| status.metadata.as_ref())
        .map(|metadata| metadata.uid.as_str());
    match uid {
        Some(uid) => {
            if let Some(handle) = node.pods.lock().get(uid) {
                handle.wake();
            }
        }
        // It does not say whose it is.
        None => wake_all(node),
    }
}
