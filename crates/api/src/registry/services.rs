//! Services: addresses and node ports, kept, taken and given back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use skiff_object::Tree;
use skiff_store::Revision;

use super::Undo;
use super::addresses::{self, Owner};
use super::families;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;
use crate::verbs::Subject;
use crate::write::Writer;

pub(super) fn service_type(service: &Tree) -> &str {
    match service.str_at(&["spec", "type"]) {
        "" => "ClusterIP",
        ty => ty,
    }
}

fn needs_address(service: &Tree) -> bool {
    matches!(service_type(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

pub(super) fn is_headless(service: &Tree) -> bool {
    service.str_at(&["spec", "clusterIP"]) == "None"
}

fn needs_node_ports(service: &Tree) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false),
        _ => false,
    }
}

fn may_have_node_ports(service: &Tree) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

fn needs_health_port(service: &Tree) -> bool {
    service_type(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

fn owner(service: &Tree) -> Owner<'_> {
    Owner { namespace: meta::namespace(service), name: meta::name(service) }
}

/// The addresses that a Service holds.
pub(super) fn addresses_of(service: &Tree) -> BTreeSet<IpAddr> {
    let listed = service.list_at(&["spec", "clusterIPs"]).iter().filter_map(Tree::as_str);
    listed.chain([service.str_at(&["spec", "clusterIP"])]).filter_map(|text| text.parse().ok()).collect()
}

/// The node ports that a Service holds.
pub(super) fn ports_of(service: &Tree) -> BTreeSet<u16> {
    let ports = service.list_at(&["spec", "ports"]).iter().filter_map(|port| port.int_at(&["nodePort"]));
    let health = service.int_at(&["spec", "healthCheckNodePort"]);
    ports.chain(health).filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).collect()
}

fn invalid(subject: &Subject, name: &str, field: &str, message: String) -> ApiError {
    ApiError::invalid_field(subject.kind_name(), name, "FieldValueInvalid", field, message)
}

/// Gives a new Service its addresses and ports.
///
/// # Errors
/// 422 when what it asks for is taken or out of range.
pub async fn before_create(writer: &Writer<'_>, service: &mut Tree) -> ApiResult<Undo> {
    let mut undo = Undo::default();
    match allocate(writer, service, None, &mut undo).await {
        Ok(()) => Ok(undo),
        Err(error) => {
            undo.run(writer.server).await;
            Err(error)
        }
    }
}

/// Keeps what a Service had, and takes what it newly needs. What it no longer needs is given back
/// after the write.
///
/// # Errors
/// 422 when what it asks for is taken, out of range or may not change.
pub async fn before_update(writer: &Writer<'_>, new: &mut Tree, old: &Tree) -> ApiResult<Undo> {
    keep(new, old);
    drop_unneeded(new, old);
    check_immutable(writer, new, old)?;
    let mut undo = Undo::default();
    match allocate(writer, new, Some(old), &mut undo).await {
        Ok(()) => Ok(undo),
        Err(error) => {
            undo.run(writer.server).await;
            Err(error)
        }
    }
}

/// What the client leaves out stays.
fn keep(new: &mut Tree, old: &Tree) {
    if needs_address(old) && needs_address(new) {
        if new.str_at(&["spec", "clusterIP"]).is_empty() {
            let first = new.list_at(&["spec", "clusterIPs"]).first().cloned();
            if let Some(value) = first.or_else(|| old.at(&["spec", "clusterIP"]).cloned()) {
                new.set(&["spec", "clusterIP"], value);
            }
        }
        if new.list_at(&["spec", "clusterIPs"]).is_empty()
            && new.str_at(&["spec", "clusterIP"]) == old.str_at(&["spec", "clusterIP"])
            && let Some(value) = old.at(&["spec", "clusterIPs"])
        {
            new.set(&["spec", "clusterIPs"], value.clone());
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if new.at(&["spec", field]).is_none_or(Tree::is_null)
                && let Some(value) = old.at(&["spec", field])
            {
                new.set(&["spec", field], value.clone());
            }
        }
    }
    if may_have_node_ports(old) && may_have_node_ports(new) {
        keep_node_ports(new, old);
    }
    if needs_health_port(old)
        && needs_health_port(new)
        && new.int_at(&["spec", "healthCheckNodePort"]).unwrap_or(0) == 0
        && let Some(value) = old.at(&["spec", "healthCheckNodePort"])
    {
        new.set(&["spec", "healthCheckNodePort"], value.clone());
    }
}

fn keep_node_ports(new: &mut Tree, old: &Tree) {
    let given = ports_of(new);
    let known: Vec<(String, i64, i64)> = old
        .list_at(&["spec", "ports"])
        .iter()
        .map(|port| {
            let number = |field: &str| port.int_at(&[field]).unwrap_or(0);
            (port.str_at(&["protocol"]).to_owned(), number("port"), number("nodePort"))
        })
        .collect();
    let Some(ports) = new.at_mut(&["spec", "ports"]).and_then(Tree::as_list_mut) else { return };
    for port in ports {
        if port.int_at(&["nodePort"]).unwrap_or(0) != 0 {
            continue;
        }
        let (protocol, number) = (port.str_at(&["protocol"]).to_owned(), port.int_at(&["port"]).unwrap_or(0));
        let found = known.iter().find(|(known_protocol, known_port, node_port)| {
            *known_protocol == protocol
                && *known_port == number
                && *node_port > 0
                && u16::try_from(*node_port).is_ok_and(|node_port| !given.contains(&node_port))
        });
        if let Some((_, _, node_port)) = found {
            port.set(&["nodePort"], *node_port);
        }
    }
}

/// A change of type gives back what only the old type needs, unless the client says otherwise.
fn drop_unneeded(new: &mut Tree, old: &Tree) {
    if needs_address(old) && !needs_address(new) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            new.unset(&["spec", field]);
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(new) {
        for port in new.at_mut(&["spec", "ports"]).and_then(Tree::as_list_mut).into_iter().flatten() {
            port.unset(&["nodePort"]);
        }
        new.unset(&["spec", "allocateLoadBalancerNodePorts"]);
        if new.list_at(&["spec", "externalIPs"]).is_empty() {
            new.unset(&["spec", "externalTrafficPolicy"]);
        }
    }
    let outside =
        |service: &Tree| may_have_node_ports(service) || !service.list_at(&["spec", "externalIPs"]).is_empty();
    if outside(old) && !outside(new) {
        new.unset(&["spec", "externalTrafficPolicy"]);
    }
    let balanced = |service: &Tree| service.str_at(&["spec", "type"]) == "LoadBalancer";
    if balanced(old) && !balanced(new) {
        new.unset(&["spec", "allocateLoadBalancerNodePorts"]);
        if new.at(&["spec", "loadBalancerClass"]) == old.at(&["spec", "loadBalancerClass"]) {
            new.unset(&["spec", "loadBalancerClass"]);
        }
    }
    if needs_health_port(old) && !needs_health_port(new) {
        new.unset(&["spec", "healthCheckNodePort"]);
    }
}

fn check_immutable(writer: &Writer<'_>, new: &Tree, old: &Tree) -> ApiResult<()> {
    if !needs_address(old) || !needs_address(new) {
        return Ok(());
    }
    let (was, is) = (old.str_at(&["spec", "clusterIP"]), new.str_at(&["spec", "clusterIP"]));
    if was.is_empty() || was == is {
        return Ok(());
    }
    Err(invalid(
        writer.subject,
        meta::name(new),
        "spec.clusterIPs[0]",
        format!("Invalid value: [{is:?}]: may not change once set"),
    ))
}

async fn allocate(writer: &Writer<'_>, service: &mut Tree, old: Option<&Tree>, undo: &mut Undo) -> ApiResult<()> {
    let held_addresses = old.map(addresses_of).unwrap_or_default();
    let held_ports = old.map(ports_of).unwrap_or_default();
    if needs_address(service) {
        families::fill(writer, service, old)?;
        allocate_address(writer, service, &held_addresses, undo).await?;
    }
    check_node_ports(writer, service, &held_ports, undo).await?;
    if needs_node_ports(service) {
        allocate_node_ports(writer, service, undo).await?;
    }
    if needs_health_port(service) {
        allocate_health_port(writer, service, &held_ports, undo).await?;
    }
    Ok(())
}

/// Takes the port where a load balancer asks for the node's health: the one asked for, or any.
async fn allocate_health_port(
    writer: &Writer<'_>,
    service: &mut Tree,
    held: &BTreeSet<u16>,
    undo: &mut Undo,
) -> ApiResult<()> {
    let name = meta::name(service).to_owned();
    let owner = Owner { namespace: &writer.subject.namespace, name: &name };
    let wanted = service.int_at(&["spec", "healthCheckNodePort"]).unwrap_or(0);
    if wanted == 0 {
        let port = addresses::any_port(writer.server, owner, writer.options.dry_run, undo).await?;
        service.set(&["spec", "healthCheckNodePort"], i64::from(port));
        return Ok(());
    }
    let refuse =
        |why: String| ApiError::internal(format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}"));
    let (first, last) = writer.server.config.node_ports;
    let port = u16::try_from(wanted).ok().filter(|port| (first..=last).contains(port));
    let out_of_range =
        || refuse(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
    let port = port.ok_or_else(out_of_range)?;
    if held.contains(&port) || writer.options.dry_run || addresses::take_port(writer.server, port, owner, undo).await? {
        return Ok(());
    }
    Err(refuse("provided port is already allocated".into()))
}

async fn allocate_address(
    writer: &Writer<'_>,
    service: &mut Tree,
    held: &BTreeSet<IpAddr>,
    undo: &mut Undo,
) -> ApiResult<()> {
    let (server, name) = (writer.server, meta::name(service).to_owned());
    if is_headless(service) {
        service.set(&["spec", "clusterIPs"], vec![Tree::from("None")]);
        return Ok(());
    }
    let owner = Owner { namespace: &writer.subject.namespace, name: &name };
    let wanted = service.str_at(&["spec", "clusterIP"]).to_owned();
    let address = if wanted.is_empty() {
        addresses::any_address(server, owner, writer.options.dry_run, undo).await?
    } else {
        let refuse = |why: &str| {
            let message = format!("Invalid value: [{wanted:?}]: failed to allocate IP {wanted}: {why}");
            invalid(writer.subject, &name, "spec.clusterIPs", message)
        };
        let address: IpAddr = wanted.parse().map_err(|_| {
            invalid(
                writer.subject,
                &name,
                "spec.clusterIPs[0]",
                format!("Invalid value: {wanted:?}: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            )
        })?;
        if !held.contains(&address) {
            let networks = addresses::networks(server).await?;
            if !networks.iter().any(|network| addresses::in_range(*network, address)) {
                return Err(refuse("the provided network does not match the current range"));
            }
            if !writer.options.dry_run && !addresses::take_address(server, address, owner, undo).await? {
                return Err(refuse("provided IP is already allocated"));
            }
        }
        address
    };
    service.set(&["spec", "clusterIP"], address.to_string());
    service.set(&["spec", "clusterIPs"], vec![Tree::from(address.to_string())]);
    Ok(())
}

/// Takes the ports that the client chose.
async fn check_node_ports(writer: &Writer<'_>, service: &Tree, held: &BTreeSet<u16>, undo: &mut Undo) -> ApiResult<()> {
    let name = meta::name(service);
    let (first, last) = writer.server.config.node_ports;
    let mut seen = BTreeSet::new();
    for (index, port) in service.list_at(&["spec", "ports"]).iter().enumerate() {
        let number = port.int_at(&["nodePort"]).unwrap_or(0);
        if number == 0 || !may_have_node_ports(service) {
            continue;
        }
        let refuse = |why: String| {
            let field = format!("spec.ports[{index}].nodePort");
            invalid(writer.subject, name, &field, format!("Invalid value: {number}: {why}"))
        };
        let number = u16::try_from(number).map_err(|_| refuse("must be between 1 and 65535, inclusive".into()))?;
        if held.contains(&number) || !seen.insert(number) {
            continue;
        }
        if !(first..=last).contains(&number) {
            return Err(refuse(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            )));
        }
        let free = writer.options.dry_run || addresses::take_port(writer.server, number, owner(service), undo).await?;
        if !free {
            return Err(refuse("provided port is already allocated".into()));
        }
    }
    Ok(())
}

/// Takes ports where the client chose none. The same port over two protocols is one node port.
async fn allocate_node_ports(writer: &Writer<'_>, service: &mut Tree, undo: &mut Undo) -> ApiResult<()> {
    let name = meta::name(service).to_owned();
    let owner = Owner { namespace: &writer.subject.namespace, name: &name };
    let count = service.list_at(&["spec", "ports"]).len();
    for index in 0..count {
        let ports = service.list_at(&["spec", "ports"]);
        let port = &ports[index];
        if port.int_at(&["nodePort"]).unwrap_or(0) != 0 {
            continue;
        }
        let shared = ports.iter().find(|one| {
            one.int_at(&["port"]) == port.int_at(&["port"])
                && one.str_at(&["protocol"]) != port.str_at(&["protocol"])
                && one.int_at(&["nodePort"]).unwrap_or(0) != 0
        });
        let number = match shared.and_then(|one| one.int_at(&["nodePort"])) {
            Some(number) => number,
            None => i64::from(addresses::any_port(writer.server, owner, writer.options.dry_run, undo).await?),
        };
        if let Some(port) =
            service.at_mut(&["spec", "ports"]).and_then(Tree::as_list_mut).and_then(|all| all.get_mut(index))
        {
            port.set(&["nodePort"], number);
        }
    }
    Ok(())
}

/// Gives back what `old` held and `new` does not, which was written (or made absent) by revision `written`.
pub async fn release(server: &ApiServer, old: &Tree, new: Option<&Tree>, written: Revision) {
    let kept = new.map(addresses_of).unwrap_or_default();
    for address in addresses_of(old).difference(&kept) {
        addresses::release_address(server, *address, written).await;
    }
    let kept = new.map(ports_of).unwrap_or_default();
    for port in ports_of(old).difference(&kept) {
        addresses::release_port(server, *port, written).await;
    }
}
