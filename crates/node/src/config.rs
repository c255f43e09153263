//! What a node is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// The node's own addresses, the primary one first (`InternalIP`).
    pub addresses: Vec<IpAddr>,
    /// Pod directories and logs live below it.
    pub data_dir: PathBuf,
    /// On a memory file system: secrets and tokens live below it.
    pub runtime_dir: PathBuf,
    /// The cgroup all pods of this node live below, as the runtime's `cgroup_parent` wants it.
    pub cgroup_root: String,
    /// Where the kubelet's HTTPS server listens; port 0 picks one.
    pub listen: SocketAddr,
    /// The address of the cluster DNS, for pods with `ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// The DNS suffix of the cluster.
    pub cluster_domain: String,
    /// The resolver configuration that pods with `dnsPolicy: Default` inherit.
    pub resolv_conf: PathBuf,
    /// At most this many pods.
    pub max_pods: u32,
    /// Labels beside the standard ones.
    pub labels: Vec<(String, String)>,
    /// The system components shown as mirror pods.
    pub components: Vec<Component>,
    /// The certificate, key and client authority of the HTTPS server.
    pub tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
    /// CPU the node offers, in thousandths; the machine's own when `None`.
    pub cpu_milli: Option<i64>,
    /// Memory the node offers in bytes; the machine's own when `None`.
    pub memory_bytes: Option<i64>,
}

impl NodeConfig {
    /// The usual settings for a node called `name` with `address`, keeping its files in
    /// `data_dir` and `runtime_dir`.
    pub fn new(name: &str, address: IpAddr, data_dir: PathBuf, runtime_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            addresses: vec![address],
            data_dir,
            runtime_dir,
            cgroup_root: String::new(),
            listen: SocketAddr::new(address, KUBELET_PORT),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            max_pods: 110,
            labels: Vec::new(),
            components: Vec::new(),
            tls: None,
            cpu_milli: None,
            memory_bytes: None,
        }
    }

    pub(crate) fn host_ips(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// The directory of a pod's secrets, in memory.
    pub(crate) fn pod_memory_dir(&self, uid: &str) -> PathBuf {
        self.runtime_dir.join("pods").join(uid)
    }

    pub(crate) fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("logs").join("pods").join(format!("{namespace}_{name}_{uid}"))
    }
}

/// The kubelet's well-known port.
pub const KUBELET_PORT: u16 = 10_250;

/// A component of the node that is shown as a mirror pod in `kube-system`.
#[derive(Clone, Debug)]
pub struct Component {
    /// `kube-apiserver`, `kube-scheduler`, `skiff-store`, …; the pod is called `<name>-<node>`.
    pub name: String,
    /// The component's own log.
    pub log_path: PathBuf,
    /// When it was started.
    pub started: skiff_base::Timestamp,
}

/// Connections within the node's network namespace.
#[async_trait]
pub trait NodeNetwork: Send + Sync + 'static {
    /// Connects to `address` from inside the node.
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream>;

    /// Listens on `address` inside the node.
    async fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener>;
}

/// The network namespace of this process: for tests and for nodes that are a whole machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNamespace;

#[async_trait]
impl NodeNetwork for OwnNamespace {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    async fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        TcpListener::bind(address).await
    }
}
