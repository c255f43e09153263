//! One Service, seen from one node.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Deref;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::{Compiled, Empty, Frontend, Masquerade, Node, Protocol, Vip};

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_SECONDS_DEFAULT: i32 = 10_800;
/// Indices below this are for everybody, above it for clients inside the node.
pub(super) const BACKENDS_MAX: usize = 1 << 16;
/// Somebody else serves a Service with this label.
const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// What `service` with its `slices` comes to on `node`. A Service that needs nothing of the
/// proxy (headless, ExternalName, served by others) has no frontends.
pub fn compile(service: &Service, slices: &[impl Deref<Target = EndpointSlice>], node: &Node) -> Compiled {
    let Some(spec) = service.spec.as_ref().filter(|spec| is_ours(service, spec)) else { return Compiled::default() };
    let mut compiled = Compiled::default();
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let affinity_seconds = affinity_seconds(spec);
    for port in spec.ports.as_deref().unwrap_or_default() {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref().unwrap_or("TCP")) else { continue };
        let Ok(number) = u16::try_from(port.port) else { continue };
        let backends = Backends::of(port, protocol, slices, node);
        let empty = |local: bool| if local && !backends.cluster.is_empty() { Empty::Drop } else { Empty::Reject };
        let pick = |local: bool| if local { backends.local.clone() } else { backends.cluster.clone() };
        let internal = Frontend {
            backends: pick(internal_local),
            inside: None,
            masquerade: Masquerade::Outsiders,
            affinity_seconds,
            empty: empty(internal_local),
        };
        let external = Frontend {
            backends: pick(external_local),
            inside: external_local.then(|| backends.cluster.clone()),
            masquerade: if external_local { Masquerade::Never } else { Masquerade::Always },
            affinity_seconds,
            empty: empty(external_local),
        };
        for address in cluster_addresses(spec) {
            compiled.frontends.insert(Vip::new(address, protocol, number), internal.clone());
        }
        for address in external_addresses(service, spec) {
            compiled.frontends.entry(Vip::new(address, protocol, number)).or_insert_with(|| external.clone());
        }
        if let Some(node_port) = port.node_port.and_then(|it| u16::try_from(it).ok()).filter(|it| *it != 0) {
            compiled.frontends.insert(Vip::node_port(protocol, node_port), external);
        }
        let health_port = spec.health_check_node_port.and_then(|it| u16::try_from(it).ok()).filter(|it| *it != 0);
        if let Some(health_port) = health_port {
            let known = compiled.health.map_or(0, |(_, count)| count);
            compiled.health = Some((health_port, known.max(backends.local_ready)));
        }
    }
    compiled
}

fn is_ours(service: &Service, spec: &ServiceSpec) -> bool {
    let labels = service.metadata.labels.as_ref();
    let foreign = labels.is_some_and(|labels| labels.contains_key(LABEL_PROXY_NAME));
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let headless = spec.cluster_ip.as_deref() == Some("None");
    !foreign && !headless && kind != "ExternalName"
}

fn affinity_seconds(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS_DEFAULT);
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

fn cluster_addresses(spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    all.filter_map(|text| text.parse().ok()).collect()
}

fn external_addresses(service: &Service, spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|it| it.ingress.as_deref()).unwrap_or_default();
    let is_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    // KEP-1860: with ipMode Proxy the balancer delivers elsewhere and must not be short-circuited.
    let direct = ingress.iter().filter(|it| is_balancer && it.ip_mode.as_deref() != Some("Proxy"));
    let all = spec.external_ips.iter().flatten().chain(direct.filter_map(|it| it.ip.as_ref()));
    all.filter_map(|text| text.parse().ok()).collect()
}

/// The backends of one port under both traffic policies.
struct Backends {
    cluster: Vec<SocketAddrV4>,
    local: Vec<SocketAddrV4>,
    /// Local ones that balancers should send new clients to.
    local_ready: usize,
}

/// One endpoint as the proxy looks at it.
struct Candidate<'a> {
    backend: SocketAddrV4,
    endpoint: &'a Endpoint,
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
}

impl Backends {
    fn of(port: &ServicePort, protocol: Protocol, slices: &[impl Deref<Target = EndpointSlice>], node: &Node) -> Self {
        let mut candidates = Vec::new();
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            for number in slice_ports(slice, port, protocol) {
                let endpoints = slice.endpoints.as_deref().unwrap_or_default();
                candidates.extend(endpoints.iter().filter_map(|endpoint| candidate(endpoint, number, node)));
            }
        }
        let local = available(candidates.iter().filter(|it| it.local));
        let cluster = nearby(available(candidates.iter()), node);
        let local_ready = local.iter().filter(|it| it.ready).count();
        Self { cluster: addresses(cluster), local: addresses(local), local_ready }
    }
}

fn slice_ports(slice: &EndpointSlice, port: &ServicePort, protocol: Protocol) -> impl Iterator<Item = u16> {
    let name = port.name.as_deref().unwrap_or("");
    let ports = slice.ports.as_deref().unwrap_or_default().iter();
    ports
        .filter(move |it| it.name.as_deref().unwrap_or("") == name)
        .filter(move |it| Protocol::parse(it.protocol.as_deref().unwrap_or("TCP")) == Some(protocol))
        .filter_map(|it| it.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0))
}

fn candidate<'a>(endpoint: &'a Endpoint, port: u16, node: &Node) -> Option<Candidate<'a>> {
    // Consumers must treat additional addresses as interchangeable; upstream writes one.
    let address: Ipv4Addr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // The API defines absent as: ready, serving as ready, not terminating.
    let ready = conditions.ready.unwrap_or(true);
    Some(Candidate {
        backend: SocketAddrV4::new(address, port),
        endpoint,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        local: endpoint.node_name.as_deref() == Some(&node.name),
    })
}

/// The ready ones, or else (KEP-1669) those that still serve while they terminate.
fn available<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>> + Clone) -> Vec<&'a Candidate<'a>> {
    let ready: Vec<_> = candidates.clone().filter(|it| it.ready).collect();
    if ready.is_empty() { candidates.filter(|it| it.serving && it.terminating).collect() } else { ready }
}

/// Follows the slices' topology hints, if all endpoints have them and some are for us.
fn nearby<'a>(candidates: Vec<&'a Candidate<'a>>, node: &Node) -> Vec<&'a Candidate<'a>> {
    let for_node = |it: &&Candidate<'_>| -> Option<bool> {
        let nodes = it.endpoint.hints.as_ref()?.for_nodes.as_ref()?;
        Some(nodes.iter().any(|hint| hint.name == node.name))
    };
    let for_zone = |it: &&Candidate<'_>| -> Option<bool> {
        let zones = it.endpoint.hints.as_ref()?.for_zones.as_ref()?;
        Some(zones.iter().any(|hint| Some(&hint.name) == node.zone.as_ref()))
    };
    let chosen = |hint: &dyn Fn(&&'a Candidate<'a>) -> Option<bool>| -> Option<Vec<&'a Candidate<'a>>> {
        let mut ours = Vec::new();
        for candidate in &candidates {
            if hint(candidate)? {
                ours.push(*candidate);
            }
        }
        Some(ours).filter(|ours| !ours.is_empty())
    };
    chosen(&for_node).or_else(|| chosen(&for_zone)).unwrap_or(candidates)
}

fn addresses(candidates: Vec<&Candidate<'_>>) -> Vec<SocketAddrV4> {
    let unique: BTreeSet<SocketAddrV4> = candidates.into_iter().map(|it| it.backend).collect();
    unique.into_iter().take(BACKENDS_MAX).collect()
}

#[cfg(test)]
mod tests;
