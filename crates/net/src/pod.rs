//! Pods on the network: an address, a point-to-point link, host ports.
//!
//! Each pod has one veth pair, its far end made directly in the pod's namespace. The pod holds
//! its address as /32 and sends everything to the link-local router 169.254.1.1, whose hardware
//! address is fixed; the machine has a /32 route to the pod. So all traffic of a pod, also to
//! its neighbours and to itself through a Service, passes the machine's prerouting, forward and
//! postrouting hooks and is translated there without bridge tricks.
//!
//! Addresses are reserved by files named after them, created exclusively, holding the sandbox's
//! id: a server that was killed finds them again and never gives an address twice.

mod addresses;
mod table;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::addresses::Addresses;
use crate::cidr::Cidr;
use crate::error::{Already, NetError, Result};
use crate::machine::Machine;
use crate::namespace::Namespace;
use crate::netlink::conntrack::Conntrack;
use crate::netlink::nft::Tables;
use crate::netlink::route::{Mac, Route, Routes, VethEnd};
use crate::proxy::Protocol;

/// The pods' router. Link-local, the same for every pod, answered by the machine's end.
const ROUTER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of every machine-side end: no two of them share a link.
const ROUTER_MAC: Mac = [0xee; 6];
/// The pod's device, as pods expect it.
const POD_LINK: &str = "eth0";

/// A port of the node that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The node's address, or none for all of them.
    pub host_ip: Option<Ipv4Addr>,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub pod_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// The network of one machine's pods. Cheap to clone.
#[derive(Clone)]
pub struct PodNetwork(Arc<Inner>);

struct Inner {
    machine: Arc<Machine>,
    addresses: Mutex<Addresses>,
    tables: Mutex<Tables>,
    conntrack: Mutex<Conntrack>,
}

impl PodNetwork {
    /// Opens the pods' network of `machine`, with the reservations found in `state` (a folder of
    /// its own that is lost with the machine, such as one under `/run`). Call
    /// [`PodNetwork::adopt`] next, then attach.
    ///
    /// # Errors
    /// When the folder cannot be read or the kernel refuses the table.
    pub fn open(machine: Arc<Machine>, state: PathBuf) -> Result<Self> {
        let addresses = Addresses::open(state, machine.config().pod_cidr)?;
        let (tables, conntrack) = machine.namespace().run(|| Ok((Tables::open()?, Conntrack::open()?)))??;
        let network = Inner {
            machine,
            addresses: Mutex::new(addresses),
            tables: Mutex::new(tables),
            conntrack: Mutex::new(conntrack),
        };
        network.replace_table()?;
        Ok(Self(Arc::new(network)))
    }

    /// Keeps the pods whose sandbox ids are in `live` and detaches every other that is found.
    /// Tells which ids had a reservation and stay.
    ///
    /// # Errors
    /// When a leftover cannot be removed.
    pub async fn adopt(&self, live: Vec<String>) -> Result<Vec<(String, Ipv4Addr)>> {
        self.blocking(move |inner| inner.adopt(&live)).await
    }

    /// Gives the pod whose namespace is kept at `namespace` its address, link and host ports.
    /// For an id that has an address already it completes the wiring and gives the same address.
    ///
    /// # Errors
    /// When no address is free or the kernel refuses a step; nothing stays behind then.
    pub async fn attach(&self, id: &str, namespace: &Path, host_ports: &[HostPort]) -> Result<Ipv4Addr> {
        let (id, namespace, host_ports) = (id.to_owned(), namespace.to_owned(), host_ports.to_vec());
        self.blocking(move |inner| inner.attach(&id, &namespace, &host_ports)).await
    }

    /// Takes a pod off the network. Success when it was not on it.
    ///
    /// # Errors
    /// When the kernel refuses a step; the address stays reserved then.
    pub async fn detach(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.blocking(move |inner| inner.detach(&id)).await
    }

    /// The address of an attached pod.
    pub fn address(&self, id: &str) -> Option<Ipv4Addr> {
        self.0.addresses.lock().of(id).map(|it| it.address)
    }

    /// Every attached pod: sandbox id and address.
    pub fn attached(&self) -> Vec<(String, Ipv4Addr)> {
        self.0.addresses.lock().all().map(|it| (it.id.clone(), it.address)).collect()
    }

    /// The machine the pods are in.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.0.machine
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|error| Err(NetError::invalid("run", "pod network task", error.to_string())))
    }
}

impl Inner {
    fn attach(&self, id: &str, namespace: &Path, host_ports: &[HostPort]) -> Result<Ipv4Addr> {
        let pod = Namespace::open(namespace)?;
        let known = self.addresses.lock().of(id).cloned();
        let address = match &known {
            Some(reservation) => reservation.address,
            None => self.addresses.lock().reserve(id, host_ports)?,
        };
        let wired = self.wire(&pod, address).and_then(|()| match &known {
            Some(reservation) => self.publish(&[], address, &reservation.host_ports),
            None => self.publish(host_ports, address, &[]),
        });
        match (wired, known) {
            (Ok(()), _) => Ok(address),
            (Err(error), Some(_)) => Err(error),
            (Err(error), None) => {
                self.unwire(address, host_ports)?;
                self.addresses.lock().release(id)?;
                Err(error)
            }
        }
    }

    /// Makes the pod's link. Everything here may be there already.
    fn wire(&self, pod: &Namespace, address: Ipv4Addr) -> Result<()> {
        let name = link_name(address);
        let mac = pod_mac(address);
        let mut inside = pod.run(Routes::open)??;
        let present = inside.link(POD_LINK)?.is_some();
        self.machine.with_routes(|routes| {
            if !present {
                // A leftover of an earlier pod with this address.
                routes.delete_link(&name).or_gone()?;
                let near = VethEnd { name: &name, mac: ROUTER_MAC, master: None };
                let far = VethEnd { name: POD_LINK, mac, master: None };
                routes.add_veth(&near, &far, pod.as_fd(), self.machine.mtu())?;
            }
            let link = routes.index(&name)?;
            let route = Route::new(Cidr::new(address, 32), link).from(self.machine.config().address());
            routes.set_route(&route)?;
            routes.set_neighbour(link, address, mac)
        })?;
        let link = inside.index(POD_LINK)?;
        let loopback = inside.index("lo")?;
        inside.set_up(loopback)?;
        inside.set_up(link)?;
        inside.add_address(link, address, 32)?;
        inside.set_route(&Route::new(Cidr::new(ROUTER, 32), link))?;
        inside.set_route(&Route::new(Cidr::new(Ipv4Addr::UNSPECIFIED, 0), link).via(ROUTER))?;
        inside.set_neighbour(link, ROUTER, ROUTER_MAC)
    }

    fn detach(&self, id: &str) -> Result<()> {
        let Some(reservation) = self.addresses.lock().of(id).cloned() else { return Ok(()) };
        self.unwire(reservation.address, &reservation.host_ports)?;
        self.addresses.lock().release(id)
    }

    fn unwire(&self, address: Ipv4Addr, host_ports: &[HostPort]) -> Result<()> {
        if !host_ports.is_empty() {
            self.unpublish(address, host_ports)?;
        }
        self.machine.with_routes(|routes| routes.delete_link(&link_name(address)).or_gone())
    }

    fn adopt(&self, live: &[String]) -> Result<Vec<(String, Ipv4Addr)>> {
        let stale: Vec<String> =
            self.addresses.lock().all().map(|it| it.id.clone()).filter(|id| !live.contains(id)).collect();
        for id in stale {
            self.detach(&id)?;
        }
        let kept: Vec<(String, Ipv4Addr)> = self.addresses.lock().all().map(|it| (it.id.clone(), it.address)).collect();
        // Links of pods whose reservation was never written.
        self.machine.with_routes(|routes| {
            for link in routes.links()? {
                let ours = link.name.len() == 11 && link.name.starts_with("pod");
                if ours && kept.iter().all(|(_, address)| link_name(*address) != link.name) {
                    routes.delete_link(&link.name).or_gone()?;
                }
            }
            Ok(())
        })?;
        Ok(kept)
    }
}

/// The machine's end of a pod's link. One pod per address, so the name is free when the address is.
fn link_name(address: Ipv4Addr) -> String {
    format!("pod{:08x}", address.to_bits())
}

fn pod_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}
