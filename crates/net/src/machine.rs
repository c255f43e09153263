//! A node's machine: a network namespace on the cluster's bridge.
//!
//! On the host there is one bridge `sk<tag>` per cluster with `10.89.<subnet>.1/24`, one veth
//! port per node and one small nftables table `skiff-<tag>` that masquerades what leaves the
//! host. Everything else – pods, Services, policy – lives inside the node's namespace, so
//! clusters stand side by side and removal is deleting these three things. All names carry the
//! cluster's tag, every step is idempotent, and a restarted server adopts what it finds.
//!
//! The host's IP forwarding is switched on only when it is off, which is remembered in the
//! table's user data, and switched off again with the last cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::cidr::Cidr;
use crate::error::{Already, NetError, Result};
use crate::namespace::Namespace;
use crate::netlink::nft::{Batch, Hook, Tables};
use crate::netlink::route::{Link, Mac, Route, Routes, VethEnd};

/// The device inside the machine that leads to the other machines and the host.
pub const UPLINK: &str = "eth0";
/// The second octet of every cluster's node network.
const NODE_NETWORK: [u8; 2] = [10, 89];
const TABLE_PREFIX: &str = "skiff-";
/// User data of the host's table: we found IP forwarding off.
const FORWARDING_WAS_OFF: &[u8] = b"forwarding-was-off";
const SOURCE_NAT_PRIORITY: i32 = 100;
const ETHERNET_MTU: u32 = 1_500;
/// Kernel connections kept for the next pod.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// Six hexadecimal digits that tell clusters apart in the names of kernel objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterTag([u8; 3]);

impl ClusterTag {
    /// From three bytes of the cluster's id.
    pub fn new(bytes: [u8; 3]) -> Self {
        Self(bytes)
    }

    fn bridge(self) -> String {
        format!("sk{self}")
    }

    fn port(self, host: u8) -> String {
        format!("sk{self}n{host}")
    }

    fn table(self) -> String {
        format!("{TABLE_PREFIX}{self}")
    }

    /// A locally administered address: the kind of device, the tag, a number.
    fn mac(self, kind: u8, number: u8) -> Mac {
        [0x02, kind, self.0[0], self.0[1], self.0[2], number]
    }
}

impl fmt::Display for ClusterTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ClusterTag {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self> {
        let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 6);
        let number = number.ok_or_else(|| NetError::invalid("read cluster tag", text, "six hexadecimal digits"))?;
        let [_, a, b, c] = number.to_be_bytes();
        Ok(Self([a, b, c]))
    }
}

/// What a machine is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Whose machine it is.
    pub cluster: ClusterTag,
    /// The cluster's number on this host: the third octet of its node network.
    pub subnet: u8,
    /// The last octet of the node's address, 2 to 254.
    pub host: u8,
    /// The file that keeps the namespace.
    pub namespace: PathBuf,
    /// The addresses of this node's pods.
    pub pod_cidr: Cidr,
    /// The addresses of every node's pods.
    pub cluster_cidr: Cidr,
    /// The addresses of Services.
    pub service_cidr: Cidr,
}

impl MachineConfig {
    /// The cluster's node network.
    pub fn network(&self) -> Cidr {
        node_network(self.subnet)
    }

    /// The host's address on it: the machine's router, and where the API server is reached.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network().network().to_bits() + 1)
    }

    /// The node's own address (InternalIP).
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network().network().to_bits() + u32::from(self.host))
    }

    fn check(&self) -> Result<()> {
        let what = || self.address().to_string();
        if !(2..=254).contains(&self.host) {
            return Err(NetError::invalid("make machine", what(), "the last octet must be 2 to 254"));
        }
        for cidr in [self.pod_cidr, self.cluster_cidr, self.service_cidr] {
            if cidr.contains(self.host_address()) || self.network().contains(cidr.network()) {
                return Err(NetError::invalid("make machine", what(), format!("{cidr} overlaps the node network")));
            }
        }
        if !self.cluster_cidr.contains(self.pod_cidr.network()) {
            return Err(NetError::invalid("make machine", what(), "the pod CIDR lies outside the cluster CIDR"));
        }
        Ok(())
    }
}

fn node_network(subnet: u8) -> Cidr {
    Cidr::new(Ipv4Addr::new(NODE_NETWORK[0], NODE_NETWORK[1], subnet, 0), 24)
}

/// Something outside Skiff's own objects that was changed, in words for the user.
pub type HostChange = String;

/// A node's network namespace, wired to the host.
#[derive(Debug)]
pub struct Machine {
    config: MachineConfig,
    namespace: Namespace,
    /// Idle connections to the namespace's links and routes. Several, because removing a link
    /// takes the kernel some 20 ms in which other pods must not wait.
    routes: Mutex<Vec<Routes>>,
    mtu: u32,
}

impl Machine {
    /// Makes the machine, or adopts and completes what is there. Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the configuration contradicts itself or the kernel refuses a step; running again
    /// continues where this stopped.
    pub fn ensure(config: MachineConfig) -> Result<(Self, Vec<HostChange>)> {
        config.check()?;
        let mut host = Routes::open()?;
        let (bridge, mtu) = ensure_bridge(&mut host, &config)?;
        let changes = ensure_host_table(&mut host, &config)?;
        let namespace = Namespace::ensure(&config.namespace)?;
        let mut inside = namespace.run(Routes::open)??;

        let port = config.cluster.port(config.host);
        if inside.link(UPLINK)?.is_none() {
            // A port without its far end in this namespace belongs to a machine that is gone.
            host.delete_link(&port).or_gone()?;
            let near = VethEnd { name: &port, mac: config.cluster.mac(2, config.host), master: Some(bridge) };
            let far = VethEnd { name: UPLINK, mac: config.cluster.mac(3, config.host), master: None };
            use std::os::fd::AsFd;
            host.add_veth(&near, &far, namespace.as_fd(), mtu)?;
        }
        let port = host.index(&port)?;
        host.set_master(port, bridge)?;
        host.set_up(port)?;

        namespace.run(machine_sysctls)??;
        let uplink = inside.index(UPLINK)?;
        let loopback = inside.index("lo")?;
        inside.set_up(loopback)?;
        inside.set_up(uplink)?;
        inside.add_address(uplink, config.address(), 24)?;
        inside.set_route(&Route::new(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), uplink).via(config.host_address()))?;
        Ok((Self { config, namespace, routes: Mutex::new(vec![inside]), mtu }, changes))
    }

    /// Removes the machine and, with the cluster's last one, the bridge and the host's table.
    /// Also removes what an interrupted removal left. Tells what it restored on the host.
    ///
    /// # Errors
    /// When the kernel refuses a step; running again continues.
    pub fn delete(config: &MachineConfig) -> Result<Vec<HostChange>> {
        let mut host = Routes::open()?;
        host.delete_link(&config.cluster.port(config.host)).or_gone()?;
        Namespace::remove(&config.namespace)?;
        let Some(bridge) = host.link(&config.cluster.bridge())? else {
            return release_host(config.cluster);
        };
        if host.links()?.iter().any(|link| link.master == Some(bridge.index)) {
            return Ok(Vec::new());
        }
        host.delete_link(&bridge.name).or_gone()?;
        release_host(config.cluster)
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The largest packet that reaches the other machines, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Routes to the pods of the cluster's other machines: pod CIDR → node address. Replaces
    /// what an earlier call set.
    ///
    /// # Errors
    /// When a node's address is not on the node network.
    pub fn set_peers(&self, peers: &BTreeMap<Cidr, Ipv4Addr>) -> Result<()> {
        self.with_routes(|routes| {
            let uplink = routes.index(UPLINK)?;
            let wanted: BTreeSet<Route> = peers
                .iter()
                .filter(|(cidr, _)| **cidr != self.config.pod_cidr)
                .map(|(cidr, node)| Route::new(*cidr, uplink).via(*node).from(self.config.address()))
                .collect();
            let present: BTreeSet<Route> =
                routes.routes()?.into_iter().filter(|route| route.link == uplink && route.is_ours()).collect();
            for route in present.iter().filter(|route| wanted.iter().all(|it| it.destination != route.destination)) {
                routes.delete_route(route)?;
            }
            wanted.difference(&present).try_for_each(|route| routes.set_route(route))
        })
    }

    /// Connects from inside the machine, as the kubelet's probes do. The caller sets the deadline.
    ///
    /// # Errors
    /// As a connection fails.
    pub async fn tcp_connect(&self, address: SocketAddr) -> Result<TcpStream> {
        self.namespace.tcp_connect(address).await
    }

    /// Listens on an address of the machine.
    ///
    /// # Errors
    /// When the address is taken or not there.
    pub fn tcp_listen(&self, address: SocketAddr) -> Result<TcpListener> {
        self.namespace.tcp_listen(address)
    }

    /// Binds a datagram socket on an address of the machine.
    ///
    /// # Errors
    /// When the address is taken or not there.
    pub fn udp_bind(&self, address: SocketAddrV4) -> Result<UdpSocket> {
        self.namespace.udp_bind(address)
    }

    /// Runs `work` on the machine's links and routes.
    pub(crate) fn with_routes<T>(&self, work: impl FnOnce(&mut Routes) -> Result<T>) -> Result<T> {
        let idle = self.routes.lock().pop();
        let mut routes = match idle {
            Some(routes) => routes,
            None => self.namespace.run(Routes::open)??,
        };
        let outcome = work(&mut routes);
        let mut idle = self.routes.lock();
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(routes);
        }
        outcome
    }
}

/// A subnet number that no cluster and nothing else on this host uses; the same tag gets its
/// own number back.
///
/// # Errors
/// When all 256 are in use or the kernel cannot be asked.
pub fn free_subnet(cluster: ClusterTag) -> Result<u8> {
    let mut host = Routes::open()?;
    let bridge = host.link(&cluster.bridge())?.map(|link| link.index);
    let addresses = host.addresses()?;
    let own =
        addresses.iter().find(|(link, address, _)| Some(*link) == bridge && address.octets()[..2] == NODE_NETWORK);
    if let Some((_, address, _)) = own {
        return Ok(address.octets()[2]);
    }
    let routes = host.routes()?;
    let taken = |network: Cidr| {
        addresses.iter().any(|(_, address, _)| network.contains(*address))
            || routes.iter().any(|route| {
                !route.is_default()
                    && (network.contains(route.destination.network()) || route.destination.contains(network.network()))
            })
    };
    (0..=255)
        .find(|subnet| !taken(node_network(*subnet)))
        .ok_or_else(|| NetError::invalid("find node network", "10.89.0.0/16", "all 256 networks are in use"))
}

fn ensure_bridge(host: &mut Routes, config: &MachineConfig) -> Result<(u32, u32)> {
    let name = config.cluster.bridge();
    let bridge = match host.link(&name)? {
        Some(link) => link,
        None => {
            let mtu = uplink_mtu(host)?;
            host.add_bridge(&name, config.cluster.mac(1, 0), mtu).or_exists()?;
            let missing = || NetError::invalid("add bridge", &name, "it vanished at once");
            host.link(&name)?.ok_or_else(missing)?
        }
    };
    host.set_up(bridge.index)?;
    let present = host.addresses()?;
    let foreign =
        present.iter().find(|(link, address, _)| *link != bridge.index && config.network().contains(*address));
    if let Some((_, address, _)) = foreign {
        return Err(NetError::invalid("add bridge", name, format!("the host already has {address} elsewhere")));
    }
    host.add_address(bridge.index, config.host_address(), 24)?;
    Ok((bridge.index, bridge.mtu))
}

/// The MTU of the host's way out, so that nothing is fragmented behind our backs.
fn uplink_mtu(host: &mut Routes) -> Result<u32> {
    let default = host.routes()?.into_iter().find(Route::is_default);
    let links: Vec<Link> = host.links()?;
    let mtu = default.and_then(|route| links.iter().find(|link| link.index == route.link)).map(|link| link.mtu);
    Ok(mtu.unwrap_or(ETHERNET_MTU).clamp(1_280, ETHERNET_MTU))
}

fn ensure_host_table(host: &mut Routes, config: &MachineConfig) -> Result<Vec<HostChange>> {
    let has_way_out = host.routes()?.iter().any(Route::is_default);
    if !has_way_out {
        return Ok(Vec::new());
    }
    let mut tables = Tables::open()?;
    let present = tables.tables()?;
    let was_off = sysctl("net/ipv4/ip_forward")? == "0"
        || present.iter().any(|(name, data)| name.starts_with(TABLE_PREFIX) && data == FORWARDING_WAS_OFF);

    let name = config.cluster.table();
    let bridge = config.cluster.bridge();
    let mut batch = Batch::new(&name);
    batch.table(&[]);
    batch.delete_table();
    batch.table(if was_off { FORWARDING_WAS_OFF } else { &[] });
    batch.base_chain("postrouting", "nat", Hook::Postrouting, SOURCE_NAT_PRIORITY);
    batch.rule("postrouting", |rule| {
        rule.source_in(config.network()).leaves_not_by(&bridge).masquerade();
    });
    tables.commit(batch)?;

    if sysctl("net/ipv4/ip_forward")? == "0" {
        set_sysctl("net/ipv4/ip_forward", "1")?;
        return Ok(vec!["switched on net.ipv4.ip_forward so that pods reach other networks".to_owned()]);
    }
    Ok(Vec::new())
}

fn release_host(cluster: ClusterTag) -> Result<Vec<HostChange>> {
    let mut tables = Tables::open()?;
    let present = tables.tables()?;
    let name = cluster.table();
    let Some((_, data)) = present.iter().find(|(found, _)| *found == name) else {
        return Ok(Vec::new());
    };
    let others = present.iter().any(|(found, _)| found.starts_with(TABLE_PREFIX) && *found != name);
    let restore = data == FORWARDING_WAS_OFF && !others && sysctl("net/ipv4/ip_forward")? == "1";
    if restore {
        set_sysctl("net/ipv4/ip_forward", "0")?;
    }
    tables.delete(&name)?;
    Ok(if restore { vec!["switched net.ipv4.ip_forward off again".to_owned()] } else { Vec::new() })
}

/// What a machine needs to route for its pods. Runs inside its namespace.
fn machine_sysctls() -> Result<()> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        // New devices are pods' ports: a pod may only send from its own address.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "1"),
        ("net/ipv4/conf/eth0/rp_filter", "2"),
        // NodePorts on 127.0.0.1; the pods' table drops what others send there.
        ("net/ipv4/conf/all/route_localnet", "1"),
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
        // Out-of-window packets of long transfers must not be answered with resets after DNAT
        // (kubernetes #74839).
        ("net/netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ] {
        set_sysctl(key, value)?;
    }
    // The cluster is IPv4: without this every pod's device would search for IPv6 neighbours.
    for key in ["net/ipv6/conf/default/disable_ipv6", "net/ipv6/conf/eth0/disable_ipv6"] {
        set_sysctl(key, "1").or_gone()?; // a kernel without IPv6 has no such key
    }
    Ok(())
}

fn sysctl(key: &'static str) -> Result<String> {
    std::fs::read_to_string(format!("/proc/sys/{key}"))
        .map(|value| value.trim().to_owned())
        .map_err(|error| NetError::io("read sysctl", key, &error))
}

fn set_sysctl(key: &'static str, value: &str) -> Result<()> {
    std::fs::write(format!("/proc/sys/{key}"), value).map_err(|error| NetError::io("set sysctl", key, &error))
}
