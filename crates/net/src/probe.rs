//! Can this kernel do what a node needs, and does the host's firewall let it? For `skiff doctor`.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, unshare};

use crate::cidr::Cidr;
use crate::error::{NetError, Result};
use crate::namespace::{Namespace, on_thread};
use crate::netlink::conntrack::Conntrack;
use crate::netlink::nft::{Hook, Tables};
use crate::netlink::route::{Routes, VethEnd};
use crate::proxy::{Node, Table};

/// Tries everything a machine needs in namespaces that vanish at once: a bridge, a pair of
/// devices, the Services' table, the connection table. Takes some milliseconds.
///
/// # Errors
/// The first thing this kernel or this user cannot do.
pub fn probe() -> Result<()> {
    let fail = |errno| NetError::errno("make network namespace", "for a trial", errno);
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(try_everything())
    })
    .map_err(fail)?
    .map_err(fail)?
}

fn try_everything() -> Result<()> {
    let here = Namespace::current()?;
    let mut routes = Routes::open()?;
    routes.add_bridge("bridge", [2, 0, 0, 0, 0, 1], 1_500)?;
    let end = |name, last| VethEnd { name, mac: [2, 0, 0, 0, 0, last], master: None };
    routes.add_veth(&end("near", 2), &end("far", 3), here.as_fd(), 1_500)?;
    let cidr = |second| Cidr::new(Ipv4Addr::new(10, second, 0, 0), 16);
    let node = Node {
        name: "trial".to_owned(),
        zone: None,
        address: Ipv4Addr::new(10, 1, 0, 1),
        pod_cidr: cidr(2),
        cluster_cidr: cidr(2),
        service_cidr: cidr(3),
    };
    Table::open(&here, node)?.apply([])?;
    Conntrack::open()?.forget(17, |_| false).map(|_| ())
}

/// Chains of the host's nftables (also those of `iptables-nft`) that drop forwarded packets
/// unless a rule lets them pass, as `family/table/chain`: pods may not reach other networks then.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn forward_drops() -> Result<Vec<String>> {
    Tables::open()?.dropping_chains(Hook::Forward)
}
