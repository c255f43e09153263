//! What is looked up when somebody asks: addresses and ports of Services that are given out, and
//! aggregated APIs that cannot be reached.

use std::net::IpAddr;

use super::names::Name;
use super::text::{Page, push_label};
use crate::registry::addresses;
use crate::server::ApiServer;

pub(super) fn write(page: &mut Page, server: &ApiServer) {
    unavailable(page, server);
    addresses_of_services(page, server);
    node_ports(page, server);
}

fn label(name: &str, value: &str) -> String {
    let mut labels = String::new();
    push_label(&mut labels, name, value);
    labels
}

fn unavailable(page: &mut Page, server: &ApiServer) {
    page.begin(Name::UnavailableApis);
    for (name, service) in &server.aggregator.table().services {
        page.value(Name::UnavailableApis, &label("name", name), if service.available { 0.0 } else { 1.0 });
    }
}

/// The network of the configuration; what further ServiceCIDRs give out is not counted here.
fn addresses_of_services(page: &mut Page, server: &ApiServer) {
    let network = server.config.service_cidr;
    let collection = server.collection("networking.k8s.io", "ipaddresses");
    let Some(known) = collection.cache().latest() else { return };
    let prefix = collection.prefix();
    let names = known.range(&prefix, None).filter_map(|(key, _)| key.rsplit(|byte| *byte == b'/').next());
    let addresses = names.filter_map(|name| std::str::from_utf8(name).ok()?.parse::<IpAddr>().ok());
    let given = addresses.filter(|address| addresses::in_range(network, *address)).count() as f64;
    let cidr = label("cidr", &format!("{}/{}", network.0, network.1));
    page.begin(Name::AllocatedAddresses);
    page.value(Name::AllocatedAddresses, &cidr, given);
    page.begin(Name::AvailableAddresses);
    page.value(Name::AvailableAddresses, &cidr, (addresses::usable(network) as f64 - given).max(0.0));
}

fn node_ports(page: &mut Page, server: &ApiServer) {
    let (first, last) = server.config.node_ports;
    let Some(known) = server.collection("skiff.internal", "nodeports").cache().latest() else { return };
    let (given, all) = (known.len() as f64, f64::from(last) - f64::from(first) + 1.0);
    page.begin(Name::AllocatedPorts);
    page.value(Name::AllocatedPorts, "", given);
    page.begin(Name::AvailablePorts);
    page.value(Name::AvailablePorts, "", (all - given).max(0.0));
}
