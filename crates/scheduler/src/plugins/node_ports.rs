//! Two pods cannot take the same port of a node.

use super::{Candidate, Plugin, Refusal};
use crate::snapshot::{HostPort, NodeInfo, host_ports};

pub(super) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if candidate.host_ports.is_empty() {
            return Ok(());
        }
        let taken = node
            .pods
            .values()
            .flat_map(|pod| host_ports(pod))
            .any(|taken| candidate.host_ports.iter().any(|wanted| conflict(wanted, &taken)));
        if taken {
            return Err(Refusal::resolvable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}

fn conflict(one: &HostPort, other: &HostPort) -> bool {
    let any = |port: &HostPort| matches!(port.0.as_str(), "0.0.0.0" | "::");
    one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || any(one) || any(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wildcard_address_conflicts_with_every_other() {
        let port = |address: &str, protocol: &str| (address.to_owned(), protocol.to_owned(), 80);
        assert!(conflict(&port("0.0.0.0", "TCP"), &port("127.0.0.1", "TCP")));
        assert!(!conflict(&port("127.0.0.2", "TCP"), &port("127.0.0.1", "TCP")));
        assert!(!conflict(&port("0.0.0.0", "UDP"), &port("0.0.0.0", "TCP")));
    }
}
