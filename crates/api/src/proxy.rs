//! Connections to kubelets, pods and services, through a dialer that knows the way.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where a proxied request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The kubelet of a node, reached and trusted as the cluster does it.
    Kubelet {
        /// The node.
        node: String,
    },
    /// An address in the cluster's network, plain TCP.
    Address(SocketAddr),
}

/// A byte stream to a destination.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Opens connections into the cluster: the binary knows namespaces, certificates and nodes.
#[async_trait]
pub trait NodeDialer: Send + Sync + 'static {
    /// Connects; TLS, where the destination speaks it, is already done.
    ///
    /// # Errors
    /// When the destination cannot be reached.
    async fn dial(&self, destination: &Destination) -> io::Result<Box<dyn Connection>>;
}
