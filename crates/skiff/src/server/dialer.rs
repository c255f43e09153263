//! The API server's way to kubelets, pods and Services: connections from inside the node's
//! network namespace, where all of them are reachable.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use rustls_pki_types::ServerName;
use skiff_api::proxy::{Connection, Destination, NodeDialer};
use skiff_net::Machine;
use tokio_rustls::TlsConnector;

/// A node that can be reached.
#[derive(Clone)]
struct Reachable {
    machine: Arc<Machine>,
    kubelet: SocketAddr,
}

/// Connects into the machines of this process.
pub struct Dialer {
    tls: TlsConnector,
    nodes: RwLock<BTreeMap<String, Reachable>>,
}

impl Dialer {
    /// A dialer that shows kubelets `tls`'s client certificate. It reaches nothing until
    /// [`Dialer::add`].
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Arc<Self> {
        Arc::new(Self { tls: TlsConnector::from(tls), nodes: RwLock::default() })
    }

    /// From now on `node` is reached through `machine`, its kubelet at `kubelet`.
    pub fn add(&self, node: &str, machine: Arc<Machine>, kubelet: SocketAddr) {
        self.nodes.write().insert(node.to_owned(), Reachable { machine, kubelet });
    }

    fn node(&self, name: &str) -> io::Result<Reachable> {
        self.nodes.read().get(name).cloned().ok_or_else(|| {
            io::Error::new(io::ErrorKind::HostUnreachable, format!("node {name:?} is not one of this process"))
        })
    }
}

/// The kernel's own error where it has one: the API server words it for its clients.
fn refusal(error: skiff_net::NetError) -> io::Error {
    match error.kernel() {
        Some(errno) => io::Error::from_raw_os_error(errno as i32),
        None => io::Error::other(error),
    }
}

#[async_trait]
impl NodeDialer for Dialer {
    async fn dial(&self, destination: &Destination) -> io::Result<Box<dyn Connection>> {
        match destination {
            Destination::Kubelet { node } => {
                let reachable = self.node(node)?;
                let stream = reachable.machine.tcp_connect(reachable.kubelet).await.map_err(refusal)?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(reachable.kubelet.ip().into());
                Ok(Box::new(self.tls.connect(name, stream).await?))
            }
            Destination::Address(address) => {
                let first = self.nodes.read().values().next().cloned();
                let Some(reachable) = first else {
                    return Err(io::Error::new(io::ErrorKind::HostUnreachable, "no node runs in this process yet"));
                };
                let stream = reachable.machine.tcp_connect(*address).await.map_err(refusal)?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}
