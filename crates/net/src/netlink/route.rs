//! Links, addresses, routes and neighbours (rtnetlink).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Attributes, Message, Protocol, Socket, text, u32_ne};
use crate::cidr::Cidr;
use crate::error::{NetError, Result};

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDR: u16 = 20;
const GET_ADDR: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const FLAG_UP: u32 = libc::IFF_UP as u32;

/// A hardware address.
pub type Mac = [u8; 6];

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// `veth`, `bridge`; empty for physical devices.
    pub kind: String,
}

/// One end of a pair of virtual Ethernet devices.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    /// Its name, up to 15 bytes.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// The bridge to attach it to.
    pub master: Option<u32>,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to; `0.0.0.0/0` is the default route.
    pub destination: Cidr,
    /// The next router, or none on the same link.
    pub via: Option<Ipv4Addr>,
    /// The outgoing device.
    pub link: u32,
    /// The source address of locally made packets.
    pub source: Option<Ipv4Addr>,
    /// Who made the route (`RTPROT_*`).
    pub origin: u8,
}

/// Marks the routes that Skiff makes, so that it only removes its own.
pub const ORIGIN_SKIFF: u8 = 0x5b;
const ORIGIN_BOOT: u8 = 3;

/// A connection to one namespace's links and routes.
#[derive(Debug)]
pub struct Routes {
    socket: Socket,
}

impl Routes {
    /// Connects in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netlink socket for us.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// Every link.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        self.socket.dump(Message::new(GET_LINK, 0).fixed(&link_header(0, 0, 0)), "list links", |kind, payload| {
            if kind == NEW_LINK {
                links.extend(read_link(payload));
            }
        })?;
        Ok(links)
    }

    /// The link called `name`.
    ///
    /// # Errors
    /// When the kernel fails for another reason than that there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = Message::new(GET_LINK, 0).fixed(&link_header(0, 0, 0));
        message.attr_str(IFLA_IFNAME, name);
        match self.socket.get(message, "get link", || name.to_owned(), read_link) {
            Err(error) if error.kernel() == Some(nix::errno::Errno::ENODEV) => Ok(None),
            other => other,
        }
    }

    /// The index of the link called `name`.
    ///
    /// # Errors
    /// Also when there is none.
    pub fn index(&mut self, name: &str) -> Result<u32> {
        let missing = || NetError::errno("get link", name, nix::errno::Errno::ENODEV);
        Ok(self.link(name)?.ok_or_else(missing)?.index)
    }

    /// Creates a bridge, up.
    ///
    /// # Errors
    /// `EEXIST` when there is a link of this name.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<()> {
        let mut message = Message::new(NEW_LINK, CREATE).fixed(&link_header(0, FLAG_UP, FLAG_UP));
        message.attr_str(IFLA_IFNAME, name).attr(IFLA_ADDRESS, &mac).attr_u32(IFLA_MTU, mtu);
        message.nest(IFLA_LINKINFO, |info| {
            info.attr(INFO_KIND, b"bridge");
        });
        self.socket.request(message, "add bridge", || name.to_owned())
    }

    /// Creates a veth pair: `near` here, `far` directly in the namespace `far_namespace` (moving
    /// it there later would cost RCU grace periods). The near end comes up.
    ///
    /// # Errors
    /// `EEXIST` when either name is taken.
    pub fn add_veth(
        &mut self,
        near: &VethEnd<'_>,
        far: &VethEnd<'_>,
        far_namespace: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<()> {
        let mut message = Message::new(NEW_LINK, CREATE).fixed(&link_header(0, FLAG_UP, FLAG_UP));
        message.attr_str(IFLA_IFNAME, near.name).attr(IFLA_ADDRESS, &near.mac).attr_u32(IFLA_MTU, mtu);
        if let Some(master) = near.master {
            message.attr_u32(IFLA_MASTER, master);
        }
        message.nest(IFLA_LINKINFO, |info| {
            info.attr(INFO_KIND, b"veth").nest(INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    // It cannot come up before it knows its other end (ENOTCONN).
                    peer.raw(&link_header(0, 0, 0))
                        .attr_str(IFLA_IFNAME, far.name)
                        .attr(IFLA_ADDRESS, &far.mac)
                        .attr_u32(IFLA_MTU, mtu)
                        .attr_u32(IFLA_NET_NS_FD, far_namespace.as_raw_fd() as u32);
                });
            });
        });
        self.socket.request(message, "add veth", || near.name.to_owned())
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let message = Message::new(NEW_LINK, 0).fixed(&link_header(index, FLAG_UP, FLAG_UP));
        self.socket.request(message, "bring up link", || index.to_string())
    }

    /// Attaches a link to a bridge.
    ///
    /// # Errors
    /// When either does not exist.
    pub fn set_master(&mut self, index: u32, master: u32) -> Result<()> {
        let mut message = Message::new(NEW_LINK, 0).fixed(&link_header(index, 0, 0));
        message.attr_u32(IFLA_MASTER, master);
        self.socket.request(message, "attach link to bridge", || format!("{index} to {master}"))
    }

    /// Deletes a link (both ends of a veth pair).
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let mut message = Message::new(DEL_LINK, 0).fixed(&link_header(0, 0, 0));
        message.attr_str(IFLA_IFNAME, name);
        self.socket.request(message, "delete link", || name.to_owned())
    }

    /// Gives a link an address; an address that is there already is fine.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<()> {
        const IFA_ADDRESS: u16 = 1;
        const IFA_LOCAL: u16 = 2;
        const IFA_BROADCAST: u16 = 4;
        let mut header = vec![libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE];
        header.extend_from_slice(&index.to_ne_bytes());
        let mut message = Message::new(NEW_ADDR, REPLACE).fixed(&header);
        message.attr(IFA_LOCAL, &address.octets()).attr(IFA_ADDRESS, &address.octets());
        if prefix < 31 {
            let network = Cidr::new(address, prefix);
            let broadcast = network.network().to_bits() | !network.mask().to_bits();
            message.attr_be32(IFA_BROADCAST, broadcast);
        }
        self.socket.request(message, "add address", || format!("{address}/{prefix} to link {index}"))
    }

    /// Every IPv4 address with its link.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, u8)>> {
        const IFA_LOCAL: u16 = 2;
        let mut header = vec![libc::AF_INET as u8, 0, 0, 0];
        header.extend_from_slice(&[0; 4]);
        let mut found = Vec::new();
        self.socket.dump(Message::new(GET_ADDR, 0).fixed(&header), "list addresses", |_, payload| {
            let read = || {
                let index = u32_ne(payload.get(4..8)?)?;
                let local: [u8; 4] = Attributes::new(payload.get(8..)?).find(IFA_LOCAL)?.try_into().ok()?;
                Some((index, Ipv4Addr::from(local), payload[1]))
            };
            found.extend(read());
        })?;
        Ok(found)
    }

    /// Adds a route or replaces the one to the same destination.
    ///
    /// # Errors
    /// When the link or the router cannot be reached.
    pub fn set_route(&mut self, route: &Route) -> Result<()> {
        let message = route_message(NEW_ROUTE, REPLACE, route);
        self.socket.request(message, "set route", || format!("{} through link {}", route.destination, route.link))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        let message = route_message(DEL_ROUTE, 0, route);
        self.socket.request(message, "delete route", || route.destination.to_string())
    }

    /// Every IPv4 route of the main table.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut header = [0_u8; 12];
        header[0] = libc::AF_INET as u8;
        let mut routes = Vec::new();
        self.socket.dump(Message::new(GET_ROUTE, 0).fixed(&header), "list routes", |_, payload| {
            routes.extend(read_route(payload));
        })?;
        Ok(routes)
    }

    /// Fixes the hardware address of a neighbour, so that no ARP is needed.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn set_neighbour(&mut self, index: u32, address: Ipv4Addr, mac: Mac) -> Result<()> {
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        const PERMANENT: u16 = 0x80;
        let mut header = vec![libc::AF_INET as u8, 0, 0, 0];
        header.extend_from_slice(&index.to_ne_bytes());
        header.extend_from_slice(&PERMANENT.to_ne_bytes());
        header.extend_from_slice(&[0, 0]);
        let mut message = Message::new(NEW_NEIGHBOUR, REPLACE).fixed(&header);
        message.attr(NDA_DST, &address.octets()).attr(NDA_LLADDR, &mac);
        self.socket.request(message, "set neighbour", || format!("{address} on link {index}"))
    }
}

impl Route {
    /// A route of ours to `destination`.
    pub fn new(destination: Cidr, link: u32) -> Self {
        Self { destination, via: None, link, source: None, origin: ORIGIN_SKIFF }
    }

    /// The same route through a router.
    pub fn via(self, router: Ipv4Addr) -> Self {
        Self { via: Some(router), ..self }
    }

    /// The same route with a preferred source address.
    pub fn from(self, source: Ipv4Addr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Whether this is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.prefix() == 0
    }

    /// Whether Skiff made it.
    pub fn is_ours(&self) -> bool {
        self.origin == ORIGIN_SKIFF
    }
}

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    // A default route belongs to whoever brings the namespace up, like a boot script's.
    let origin = if route.is_default() { ORIGIN_BOOT } else { route.origin };
    let scope = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let header = [
        libc::AF_INET as u8,
        route.destination.prefix(),
        0,
        0,
        libc::RT_TABLE_MAIN,
        origin,
        scope,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let mut message = Message::new(kind, flags).fixed(&header);
    if !route.is_default() {
        message.attr(RTA_DST, &route.destination.network().octets());
    }
    if let Some(router) = route.via {
        message.attr(RTA_GATEWAY, &router.octets());
    }
    if let Some(source) = route.source {
        message.attr(RTA_PREFSRC, &source.octets());
    }
    message.attr_u32(RTA_OIF, route.link);
    message
}

fn read_route(payload: &[u8]) -> Option<Route> {
    let header = payload.get(..12)?;
    if header[0] != libc::AF_INET as u8 || header[4] != libc::RT_TABLE_MAIN || header[7] != libc::RTN_UNICAST {
        return None;
    }
    let attributes = Attributes::new(payload.get(12..)?);
    let address = |kind| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = attributes.find(kind)?.try_into().ok()?;
        Some(bytes.into())
    };
    Some(Route {
        destination: Cidr::new(address(RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED), header[1]),
        via: address(RTA_GATEWAY),
        link: attributes.find(RTA_OIF).and_then(u32_ne)?,
        source: address(RTA_PREFSRC),
        origin: header[5],
    })
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let index = u32_ne(payload.get(4..8)?)?;
    let flags = u32_ne(payload.get(8..12)?)?;
    let attributes = Attributes::new(payload.get(16..)?);
    Some(Link {
        index,
        name: text(attributes.find(IFLA_IFNAME)?),
        mtu: attributes.find(IFLA_MTU).and_then(u32_ne).unwrap_or(0),
        up: flags & FLAG_UP != 0,
        master: attributes.find(IFLA_MASTER).and_then(u32_ne),
        kind: attributes.nest(IFLA_LINKINFO).and_then(|info| info.find(INFO_KIND)).map(text).unwrap_or_default(),
    })
}
