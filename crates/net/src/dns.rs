//! The cluster's DNS: names of Services and pods from a snapshot, everything else from upstream.
//!
//! [`Zone`] is an immutable snapshot with O(1) copies and a pure [`Zone::lookup`], after the
//! Kubernetes DNS specification 1.1.0. [`start`] fills it from informers and serves it over UDP
//! and TCP on the node's address; pods reach it at the `kube-dns` Service, whose endpoints are
//! these addresses. Upstream servers come from the host's `resolv.conf` and are asked from the
//! host's namespace.
//!
//! It deliberately has no zone transfers, no DNSSEC, and no wildcard queries (upstream removed
//! them too).

mod driver;
mod forward;
mod server;
mod wire;
mod zone;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::driver::{Handle, start};
pub use self::zone::{Answer, Headless, Port, Service, Zone};
use crate::cidr::Cidr;

/// The port of DNS.
pub const PORT: u16 = 53;

/// What the DNS server is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's domain without trailing dot, usually `cluster.local`.
    pub domain: String,
    /// Networks whose reverse names are the cluster's own: Services and pods.
    pub reverse: Vec<Cidr>,
    /// The `kube-dns` Service's address: the name server's own name leads there, and it is never
    /// asked as an upstream.
    pub service_address: Ipv4Addr,
    /// Where upstream servers are listed, usually `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The port to serve, [`PORT`] except in tests.
    pub port: u16,
}

/// What the server has done, for metrics. All counters only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams and TCP messages received.
    pub queries: AtomicU64,
    /// Answered from the cluster's own zones.
    pub answered: AtomicU64,
    /// Names in the cluster's zones that do not exist.
    pub missing: AtomicU64,
    /// Sent upstream.
    pub forwarded: AtomicU64,
    /// Answered from the cache of upstream answers.
    pub cached: AtomicU64,
    /// Not answered by any upstream server.
    pub failed: AtomicU64,
    /// Refused because too many queries were waiting for upstream.
    pub overloaded: AtomicU64,
    /// Not understood.
    pub malformed: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
