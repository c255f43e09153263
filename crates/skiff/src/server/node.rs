//! A node as a value: a machine with its pod network, proxy, DNS, runtime and kubelet.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use skiff_base::{Clock, Random, Tasks, Timestamp};
use skiff_net::pod::{HostPort, PodNetwork};
use skiff_net::proxy::Protocol;
use skiff_net::{Cidr, Machine, MachineConfig, dns, proxy};
use skiff_node::{Component, Kubelet, NodeConfig, NodeNetwork, Parts};
use skiff_runtime::cri::{
    ListPodSandboxRequest, PodSandboxConfig, Protocol as CriProtocol, RemovePodSandboxRequest, StopPodSandboxRequest,
};
use skiff_runtime::{Config as RuntimeConfig, ImageStore, NetworkError, Runtime, RuntimeService, SandboxNetwork};
use tokio::net::{TcpListener, TcpStream};

use super::control_plane::ControlPlane;
use super::dialer::Dialer;
use crate::components::{COMPONENTS, log_file};
use crate::profile::{CLUSTER_DOMAIN, DNS_SERVICE_IP, Profile, SERVICE_CIDR};

/// Every node's pods of every cluster: they are told apart by machine, not by address.
const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// The last octet of the first node's address.
const FIRST_HOST: u8 = 2;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The machine that `profile`'s first node is.
pub fn machine_config(profile: &Profile) -> Result<MachineConfig> {
    let cidr = |text: &str| text.parse::<Cidr>().with_context(|| format!("read the network {text}"));
    Ok(MachineConfig {
        cluster: profile.settings.cluster_id.parse().context("read the cluster's id")?,
        subnet: profile.settings.index,
        host: FIRST_HOST,
        namespace: profile.run().join("netns").join(profile.node_name()),
        pod_cidr: cidr(&profile.pod_cidr())?,
        cluster_cidr: cidr(CLUSTER_CIDR)?,
        service_cidr: cidr(SERVICE_CIDR)?,
    })
}

/// Makes the machine or adopts it; tells what was changed on the host.
pub async fn machine(profile: &Profile) -> Result<(Arc<Machine>, Vec<String>)> {
    crate::files::create_private_dir(&profile.run().join("netns"))?;
    let config = machine_config(profile)?;
    let (machine, changes) = tokio::task::spawn_blocking(move || Machine::ensure(config))
        .await
        .context("make the node's network")?
        .context("make the node's network; see: skiff doctor")?;
    Ok((Arc::new(machine), changes))
}

/// The cgroup below which everything of the cluster runs.
pub fn cgroup_root(profile: &Profile) -> String {
    format!("/skiff-{}", profile.settings.cluster_id)
}

/// What a node needs beside the control plane.
pub struct Host<'a> {
    /// Whose node it is.
    pub profile: &'a Profile,
    /// Its machine.
    pub machine: Arc<Machine>,
    /// Its images.
    pub images: ImageStore,
    /// The kubelet's TLS configuration.
    pub tls: Arc<rustls::ServerConfig>,
    /// Told how the kubelet is reached.
    pub dialer: Arc<Dialer>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Everything runs under these.
    pub tasks: Tasks,
}

/// Starts the proxy and the DNS server: they need no runtime.
pub fn start_network(host: &Host<'_>, plane: &ControlPlane) -> Result<(proxy::Handle, dns::Handle)> {
    let config = proxy::Config { node_name: host.profile.node_name(), zone: None };
    let proxy =
        proxy::start(&plane.informers, &host.machine, config, &host.tasks).context("start the Service proxy")?;
    let place = host.machine.config();
    let config = dns::Config {
        domain: CLUSTER_DOMAIN.to_owned(),
        reverse: vec![place.service_cidr, place.cluster_cidr],
        service_address: DNS_SERVICE_IP,
        resolv_conf: RESOLV_CONF.into(),
        port: dns::PORT,
    };
    let dns = dns::start(&plane.informers, &host.machine, config, &host.clock, &host.random, &host.tasks)
        .context("start the cluster's DNS")?;
    Ok((proxy, dns))
}

/// Opens the runtime, adopting what runs.
pub async fn start_runtime(host: &Host<'_>) -> Result<Runtime> {
    let network = PodNetwork::open(Arc::clone(&host.machine), host.profile.run().join("pods-network"))
        .context("open the pods' network")?;
    let config = RuntimeConfig {
        data_dir: host.profile.data().join("runtime"),
        run_dir: host.profile.run().join("runtime"),
        executable: std::env::current_exe().context("find this binary")?,
        node_hostname: host.profile.node_name(),
        clock: host.clock.clone(),
        random: host.random.clone(),
        network: Arc::new(PodsNetwork { pods: network.clone(), namespace: host.machine.config().namespace.clone() }),
        tasks: host.tasks.clone(),
    };
    let runtime = Runtime::open(config, host.images.clone()).await.context("open the container runtime")?;
    let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.context("list the sandboxes")?;
    let live: Vec<String> = sandboxes.items.into_iter().map(|sandbox| sandbox.id).collect();
    network.adopt(live).await.context("adopt the pods' network")?;
    let (socket, shutdown) = (host.profile.cri_socket(), host.tasks.shutdown().clone());
    let (served, images) = (Arc::new(runtime.clone()), Arc::new(host.images.clone()));
    host.tasks.spawn_draining("cri", async move {
        if let Err(error) = skiff_runtime::cri::serve(&socket, served, images, shutdown).await {
            tracing::error!(socket = %socket.display(), %error, "serve CRI");
        }
    });
    Ok(runtime)
}

/// Starts the kubelet.
pub async fn start_kubelet(host: &Host<'_>, plane: &ControlPlane, runtime: &Runtime) -> Result<Kubelet> {
    let name = host.profile.node_name();
    let address = IpAddr::V4(host.machine.config().address());
    let started = host.clock.now();
    let mut config =
        NodeConfig::new(&name, address, host.profile.data().join("kubelet"), host.profile.run().join("kubelet"));
    config.cgroup_root = cgroup_root(host.profile);
    config.cluster_dns = vec![IpAddr::V4(DNS_SERVICE_IP)];
    config.cluster_domain = CLUSTER_DOMAIN.to_owned();
    config.resolv_conf = PathBuf::from(RESOLV_CONF);
    config.components = components(&host.profile.logs(), started);
    config.tls = Some(Arc::clone(&host.tls));
    let parts = Parts {
        client: plane.node_client(&name),
        runtime: Arc::new(runtime.clone()),
        images: Arc::new(host.images.clone()),
        streaming: Arc::new(runtime.clone()),
        network: Arc::new(MachineNetwork(Arc::clone(&host.machine))),
        clock: host.clock.clone(),
        random: host.random.clone(),
        tasks: host.tasks.clone(),
    };
    let kubelet = Kubelet::start(config, parts).await.with_context(|| format!("start the kubelet of {name}"))?;
    host.dialer.add(&name, Arc::clone(&host.machine), kubelet.address());
    Ok(kubelet)
}

fn components(logs: &Path, started: Timestamp) -> Vec<Component> {
    COMPONENTS
        .iter()
        .map(|component| Component {
            name: component.name.to_owned(),
            log_path: log_file(logs, component.name),
            started,
        })
        .collect()
}

/// Ends every container of the node, gracefully where it has time left for it.
pub async fn stop_containers(runtime: &Runtime) -> Result<()> {
    let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await.context("list the sandboxes")?;
    let stops = sandboxes.items.into_iter().map(|sandbox| async move {
        let id = sandbox.id;
        runtime
            .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() })
            .await
            .with_context(|| format!("stop the sandbox {id}"))?;
        runtime
            .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.clone() })
            .await
            .with_context(|| format!("remove the sandbox {id}"))
    });
    futures::future::join_all(stops).await.into_iter().collect::<Result<Vec<_>>>().map(drop)
}

/// The kubelet's sockets are the machine's.
struct MachineNetwork(Arc<Machine>);

#[async_trait]
impl NodeNetwork for MachineNetwork {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.0.tcp_connect(address).await.map_err(std::io::Error::other)
    }

    async fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        self.0.tcp_listen(address).map_err(std::io::Error::other)
    }
}

/// Connects the runtime's sandboxes to the machine's pod network.
struct PodsNetwork {
    pods: PodNetwork,
    namespace: PathBuf,
}

#[async_trait]
impl SandboxNetwork for PodsNetwork {
    async fn attach(
        &self,
        sandbox_id: &str,
        netns: &Path,
        config: &PodSandboxConfig,
    ) -> Result<Vec<IpAddr>, NetworkError> {
        let ports = host_ports(config)
            .map_err(|cause| NetworkError { attempt: format!("read the host ports of {sandbox_id}"), cause })?;
        let attached = self.pods.attach(sandbox_id, netns, &ports).await;
        let address = attached.map_err(|error| NetworkError {
            attempt: format!("connect the sandbox {sandbox_id}"),
            cause: error.to_string(),
        })?;
        Ok(vec![IpAddr::V4(address)])
    }

    async fn detach(&self, sandbox_id: &str, _: &Path) -> Result<(), NetworkError> {
        self.pods.detach(sandbox_id).await.map_err(|error| NetworkError {
            attempt: format!("disconnect the sandbox {sandbox_id}"),
            cause: error.to_string(),
        })
    }

    fn node_netns(&self) -> Option<PathBuf> {
        Some(self.namespace.clone())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

fn host_ports(config: &PodSandboxConfig) -> Result<Vec<HostPort>, String> {
    let mut ports = Vec::new();
    for mapping in config.port_mappings.iter().filter(|mapping| mapping.host_port > 0) {
        let number = |port: i32| u16::try_from(port).map_err(|_| format!("{port} is no port"));
        let host_ip = match mapping.host_ip.as_str() {
            "" | "0.0.0.0" => None,
            text => Some(text.parse().map_err(|_| format!("{text:?} is no IPv4 address"))?),
        };
        let protocol = match mapping.protocol() {
            CriProtocol::Tcp => Protocol::Tcp,
            CriProtocol::Udp => Protocol::Udp,
            CriProtocol::Sctp => return Err("SCTP host ports are not supported".to_owned()),
        };
        ports.push(HostPort {
            host_ip,
            host_port: number(mapping.host_port)?,
            pod_port: number(mapping.container_port)?,
            protocol,
        });
    }
    Ok(ports)
}
