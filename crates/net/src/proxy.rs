//! Services: from API objects to the machine's nftables.
//!
//! [`compile`] is pure: one Service and its EndpointSlices, seen from one node, give the
//! [`Frontend`]s that clients reach. [`table::Table`] holds what the kernel has and turns changed
//! Services into one atomic netlink batch. [`start`] drives it from informers: it writes the
//! whole table once, atomically replacing what an earlier process left, then only differences.
//!
//! A packet meets two hash lookups, however many Services there are: (address, protocol, port)
//! gives a chain chosen by the number of backends, and the same key with a random index gives
//! the backend. What the program does not know: Pods, Nodes, policy. IPv4 only; SCTP is skipped
//! (the kernel's conntrack for it is often missing).

mod compile;
mod driver;
mod health;
mod program;
pub mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

pub use self::compile::compile;
pub(crate) use self::driver::service_of;
pub use self::driver::{Config, Handle, start};
pub use self::table::Table;
use crate::cidr::Cidr;

/// A transport protocol that Services can have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// By its Kubernetes name; none for SCTP.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// From where Services are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Its `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Its InternalIP.
    pub address: Ipv4Addr,
    /// The addresses of its pods.
    pub pod_cidr: Cidr,
    /// The addresses of all pods.
    pub cluster_cidr: Cidr,
    /// The addresses of Services.
    pub service_cidr: Cidr,
}

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ServiceKey {
    /// From its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where clients send: an address and port, or a port of every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// The address; unspecified for a node port.
    pub address: Ipv4Addr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

impl Vip {
    /// An address and port.
    pub fn new(address: Ipv4Addr, protocol: Protocol, port: u16) -> Self {
        Self { address, protocol, port }
    }

    /// A port of every address of the node.
    pub fn node_port(protocol: Protocol, port: u16) -> Self {
        Self::new(Ipv4Addr::UNSPECIFIED, protocol, port)
    }

    /// Whether this is a node port.
    pub fn is_node_port(self) -> bool {
        self.address.is_unspecified()
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_node_port() {
            write!(f, "*:{}/{}", self.port, self.protocol)
        } else {
            write!(f, "{}:{}/{}", self.address, self.port, self.protocol)
        }
    }
}

/// Whose source address is replaced by the node's, so that answers come back this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Masquerade {
    /// Clients that are no pods: a ClusterIP.
    Outsiders,
    /// Everybody: an external address with traffic policy Cluster.
    Always,
    /// Nobody: traffic policy Local keeps the client's address.
    Never,
}

/// What happens to clients of a frontend without backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Empty {
    /// Told at once.
    Reject,
    /// Ignored: there are backends, but on other nodes.
    Drop,
}

/// What one [`Vip`] leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The backends, sorted.
    pub backends: Vec<SocketAddrV4>,
    /// With external traffic policy Local: the backends for clients on this node.
    pub inside: Option<Vec<SocketAddrV4>>,
    /// Whose source address is replaced.
    pub masquerade: Masquerade,
    /// A client keeps its backend until it was silent for this many seconds.
    pub affinity_seconds: Option<u32>,
    /// Without backends.
    pub empty: Empty,
}

/// What a Service comes to on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Its frontends.
    pub frontends: BTreeMap<Vip, Frontend>,
    /// With `healthCheckNodePort`: the port and how many backends this node has.
    pub health: Option<(u16, usize)>,
}
