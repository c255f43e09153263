//! The pods' nftables table: host ports, masquerade of what leaves the cluster, and the guard of
//! the machine's loopback addresses.

use std::net::Ipv4Addr;

use super::{HostPort, Inner};
use crate::cidr::Cidr;
use crate::error::{Already, Result};
use crate::machine::UPLINK;
use crate::netlink::nft::{Batch, Data, Element, Fields, Hook, Set, Value, Verdict, kind};
use crate::proxy::Protocol;

const TABLE: &str = "skiff-pods";
const HOST_PORTS: &str = "host-ports";
const HAIRPIN: &str = "hairpin";
/// Right after the Services' own translation: a NodePort wins over a host port.
const HOST_PORT_PRIORITY: i32 = -98;
const SOURCE_NAT_PRIORITY: i32 = 101;

impl Inner {
    /// Writes the table anew with the host ports of all reservations, atomically.
    pub(super) fn replace_table(&self) -> Result<()> {
        let config = self.machine.config();
        let loopback = Cidr::new(Ipv4Addr::LOCALHOST, 8);
        let mut batch = Batch::new(TABLE);
        batch.replace_table();
        batch.set(&Set {
            name: HOST_PORTS,
            key: &[kind::IPV4, kind::PROTOCOL, kind::PORT],
            data: Data::Fields(&[kind::IPV4, kind::PORT]),
            dynamic: None,
        });
        batch.set(&Set { name: HAIRPIN, key: &[kind::IPV4, kind::IPV4], data: Data::None, dynamic: None });
        batch.chain("host-ports");
        // First a port of this very address, then a port of all addresses.
        batch.rule("host-ports", |rule| {
            rule.destination(12).l4_protocol(13).destination_port(14);
            rule.lookup_map(HOST_PORTS, 12, 9).dnat(9, 10);
        });
        batch.rule("host-ports", |rule| {
            rule.destination_is_local().immediate([0; 4], 12).l4_protocol(13).destination_port(14);
            rule.lookup_map(HOST_PORTS, 12, 9).dnat(9, 10);
        });
        for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
            batch.base_chain(name, "nat", hook, HOST_PORT_PRIORITY);
            batch.rule(name, |rule| {
                rule.verdict(&Verdict::Jump("host-ports".into()));
            });
        }
        batch.base_chain("postrouting", "nat", Hook::Postrouting, SOURCE_NAT_PRIORITY);
        batch.rule("postrouting", |rule| {
            rule.source_in(loopback).leaves_not_by("lo").masquerade();
        });
        batch.rule("postrouting", |rule| {
            rule.source(12).destination(13).lookup(HAIRPIN, 12).masquerade();
        });
        batch.rule("postrouting", |rule| {
            rule.source_in(config.pod_cidr).destination_not_in(config.cluster_cidr).leaves_by(UPLINK).masquerade();
        });
        // route_localnet would let neighbours reach what listens on 127.0.0.1 (CVE-2020-8558).
        batch.base_chain("input", "filter", Hook::Input, 0);
        batch.rule("input", |rule| {
            rule.came_not_by("lo").destination_in(loopback).destination_not_translated().verdict(&Verdict::Drop);
        });
        let addresses = self.addresses.lock();
        for reservation in addresses.all() {
            let (ports, hairpin) = elements(reservation.address, &reservation.host_ports);
            batch.elements(HOST_PORTS, ports);
            batch.elements(HAIRPIN, hairpin);
        }
        self.tables.lock().commit(batch)
    }

    /// Leads host ports to a pod. `present` were published earlier and stay.
    pub(super) fn publish(&self, added: &[HostPort], address: Ipv4Addr, present: &[HostPort]) -> Result<()> {
        let missing: Vec<HostPort> = added.iter().filter(|port| !present.contains(port)).copied().collect();
        let (ports, hairpin) = elements(address, &missing);
        let mut batch = Batch::new(TABLE);
        batch.elements(HOST_PORTS, ports);
        batch.elements(HAIRPIN, hairpin);
        if batch.is_empty() {
            return Ok(());
        }
        self.tables.lock().commit(batch)?;
        self.forget_datagrams(&missing)
    }

    /// Takes a pod's host ports away.
    pub(super) fn unpublish(&self, address: Ipv4Addr, host_ports: &[HostPort]) -> Result<()> {
        let (ports, hairpin) = elements(address, host_ports);
        for (set, elements) in [(HOST_PORTS, ports), (HAIRPIN, hairpin)] {
            // One by one: after a failed attach some may be missing, and a batch is all or nothing.
            for element in elements {
                let mut batch = Batch::new(TABLE);
                batch.delete_elements(set, [element]);
                self.tables.lock().commit(batch).or_gone()?;
            }
        }
        self.forget_datagrams(host_ports)
    }

    /// UDP clients keep their translation for as long as they talk; make them look again.
    fn forget_datagrams(&self, ports: &[HostPort]) -> Result<()> {
        let udp: Vec<u16> = ports.iter().filter(|it| it.protocol == Protocol::Udp).map(|it| it.host_port).collect();
        if udp.is_empty() {
            return Ok(());
        }
        let stale = |port: u16| udp.contains(&port);
        self.conntrack.lock().forget(Protocol::Udp.number(), |it| stale(it.original.destination.port())).map(|_| ())
    }
}

fn elements(address: Ipv4Addr, ports: &[HostPort]) -> (Vec<Element>, Vec<Element>) {
    let lead = ports
        .iter()
        .map(|port| {
            let host_ip = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let key = Fields::new().address(host_ip).protocol(port.protocol.number()).port(port.host_port).end();
            Element::new(key, Value::Bytes(Fields::new().address(address).port(port.pod_port).end()))
        })
        .collect();
    let hairpin = if ports.is_empty() {
        Vec::new()
    } else {
        vec![Element::new(Fields::new().address(address).address(address).end(), Value::None)]
    };
    (lead, hairpin)
}
