//! `services` in `v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::time::Time;
use skiff_object::{Tree, name, net};

use crate::checks::{self, Found, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill, rules};

/// A stable address for a set of pods.
pub(crate) struct Service(pub(crate) Facts);

impl Kind for Service {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::text(spec, "sessionAffinity", "None");
        match spec.str_at(&["sessionAffinity"]) {
            "None" => {
                spec.unset(&["sessionAffinityConfig"]);
            }
            "ClientIP" => {
                let config = fill::within(fill::within(spec, "sessionAffinityConfig"), "clientIP");
                fill::absent(config, "timeoutSeconds", CLIENT_IP_TIMEOUT_SECONDS);
            }
            _ => {}
        }
        fill::text(spec, "type", "ClusterIP");
        for port in fill::items(spec, &["ports"]) {
            fill::text(port, "protocol", "TCP");
            let unset = match port.get("targetPort") {
                None | Some(Tree::Null | Tree::Int(0)) => true,
                Some(Tree::Str(name)) => name.is_empty(),
                Some(_) => false,
            };
            if unset && let Some(number) = port.int_at(&["port"]) {
                fill::put(port, "targetPort", number);
            }
        }
        let ty = spec.str_at(&["type"]).to_owned();
        let external = !spec.list_at(&["externalIPs"]).is_empty();
        if matches!(ty.as_str(), "NodePort" | "LoadBalancer") || (ty == "ClusterIP" && external) {
            fill::text(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(ty.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            fill::absent(spec, "internalTrafficPolicy", "Cluster");
        }
        if ty == "LoadBalancer" {
            fill::absent(spec, "allocateLoadBalancerNodePorts", true);
            for ingress in fill::items(object, &["status", "loadBalancer", "ingress"]) {
                if !ingress.str_at(&["ip"]).is_empty() {
                    fill::absent(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["spec", "type"]),
            cells::text_or(object, &["spec", "clusterIP"], "<none>"),
            external(object).into(),
            ports(object).into(),
            cells::age(object, now),
            cells::labels(object, &["spec", "selector"]),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        let ty = spec.str_at(&["type"]);
        let headless = spec.str_at(&["clusterIP"]) == "None";
        let ports = spec.list_at(&["ports"]);
        if ports.is_empty() && !headless && ty != "ExternalName" {
            found.push(FieldError::required(SPEC.child("ports"), ""));
        }
        match ty {
            "LoadBalancer" | "NodePort" if headless => {
                let why = "may not be set to 'None' for LoadBalancer services".replace("LoadBalancer", ty);
                found.push(FieldError::invalid(SPEC.child("clusterIPs").index(0), "None", why));
            }
            "ExternalName" => {
                for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    if !rules::same(spec.get(field), None) {
                        let why = "may not be set for ExternalName services";
                        found.push(FieldError::forbidden(SPEC.child(field), why));
                    }
                }
                let host = spec.str_at(&["externalName"]);
                let host = host.strip_suffix('.').unwrap_or(host);
                if host.is_empty() {
                    found.push(FieldError::required(SPEC.child("externalName"), ""));
                } else {
                    checks::invalid(&mut found, SPEC.child("externalName"), host, name::dns1123_subdomain(host));
                }
            }
            _ => {}
        }
        service_ports(&mut found, ports, ty);
        found.extend(name::labels(spec.get("selector"), SPEC.child("selector")));
        affinity(&mut found, spec);
        addresses(&mut found, spec);
        checks::each_text(spec, "externalIPs", SPEC, |ip, path| {
            let wrong = net::ip(ip);
            if wrong.is_empty() {
                checks::invalid(&mut found, path, ip, net::not_special(ip));
            }
            checks::invalid(&mut found, path, ip, wrong);
        });
        checks::one_of(&mut found, spec, "type", SPEC, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
        balancer(&mut found, spec, ty == "LoadBalancer");
        policies(&mut found, spec, ty);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        let internal = |object: &Tree| object.str_at(&["spec", "type"]) != "ExternalName";
        let (is, was) = (new.list_at(&["spec", "clusterIPs"]), old.list_at(&["spec", "clusterIPs"]));
        if internal(new)
            && internal(old)
            && let (Some(is), Some(was)) = (is.first(), was.first())
            && is != was
        {
            let why = "may not change once set";
            found.push(FieldError::invalid(SPEC.child("clusterIPs").index(0), BadValue::from(is), why));
        }
        let balanced = |object: &Tree| object.str_at(&["spec", "type"]) == "LoadBalancer";
        let class = |object: &Tree| object.at(&["spec", "loadBalancerClass"]).cloned();
        if balanced(new) && balanced(old) && class(new) != class(old) {
            let value = BadValue::from(class(new).as_ref());
            found.push(FieldError::invalid(SPEC.child("loadBalancerClass"), value, "may not change once set"));
        }
        found
    }
}

/// How long a client stays with its endpoint.
const CLIENT_IP_TIMEOUT_SECONDS: i64 = 10_800;

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Type", "string", "How it is reached."),
    Column::new("Cluster-IP", "string", "Its address inside the cluster."),
    Column::new("External-IP", "string", "Its addresses outside the cluster."),
    Column::new("Port(s)", "string", "Its ports."),
    cells::AGE,
    cells::SELECTOR,
];

fn external(object: &Tree) -> String {
    let given = || object.list_at(&["spec", "externalIPs"]).iter().filter_map(Tree::as_str).map(str::to_owned);
    let addresses: Vec<String> = match object.str_at(&["spec", "type"]) {
        "ClusterIP" | "NodePort" => given().collect(),
        "LoadBalancer" => {
            let all: Vec<String> = cells::load_balancer(object).into_iter().chain(given()).collect();
            if all.is_empty() {
                return "<pending>".to_owned();
            }
            all
        }
        "ExternalName" => return object.str_at(&["spec", "externalName"]).to_owned(),
        _ => return "<unknown>".to_owned(),
    };
    if addresses.is_empty() { "<none>".to_owned() } else { addresses.join(",") }
}

fn ports(object: &Tree) -> String {
    let port = |port: &Tree| {
        let (number, protocol) = (cells::count(port, &["port"]), port.str_at(&["protocol"]));
        match cells::count(port, &["nodePort"]) {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    };
    let ports: Vec<String> = object.list_at(&["spec", "ports"]).iter().map(port).collect();
    if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") }
}

const DAY_SECONDS: i64 = 86_400;

/// Whether clients stay with their endpoint, and for how long.
fn affinity(found: &mut Found, spec: &Tree) {
    checks::one_of(found, spec, "sessionAffinity", SPEC, &["ClientIP", "None"]);
    let seconds = spec.int_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    if let Some(seconds) = seconds.filter(|seconds| !(1..=DAY_SECONDS).contains(seconds)) {
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        let why = format!("must be greater than 0 and less than {DAY_SECONDS}");
        found.push(FieldError::invalid(path, seconds, why));
    }
}

/// The addresses inside the cluster and their families agree with each other.
fn addresses(found: &mut Found, spec: &Tree) {
    const POLICIES: [&str; 3] = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    checks::only_if_given(found, spec, "ipFamilyPolicy", SPEC, &POLICIES);
    checks::each_text(spec, "ipFamilies", SPEC, |family, path| {
        if !matches!(family, "IPv4" | "IPv6") {
            found.push(FieldError::not_supported(path, family, &["IPv4", "IPv6"]));
        }
    });
    checks::distinct(found, spec, "ipFamilies", SPEC);
    let list = spec.list_at(&["clusterIPs"]);
    let whole = || BadValue::from(spec.get("clusterIPs"));
    let path = SPEC.child("clusterIPs");
    let first = list.first().and_then(Tree::as_str).unwrap_or("");
    if first != spec.str_at(&["clusterIP"]) && !list.is_empty() {
        found.push(FieldError::invalid(path, whole(), "first value must match `clusterIP`"));
    }
    if first == "None" {
        if list.len() > 1 {
            found.push(FieldError::invalid(path, whole(), "'None' must be the first and only value"));
        }
        return;
    }
    if list.len() > 2 {
        found.push(FieldError::invalid(path, whole(), "may only hold up to 2 values"));
    }
    checks::distinct(found, spec, "clusterIPs", SPEC);
    let families = spec.list_at(&["ipFamilies"]);
    let before = found.len();
    for (index, ip) in list.iter().filter_map(Tree::as_str).enumerate() {
        checks::invalid(found, path.index(index), ip, net::ip(ip));
        let Some(wanted) = families.get(index).and_then(Tree::as_str) else { continue };
        let is = net::sloppy(ip).map(|address| if address.is_ipv4() { "IPv4" } else { "IPv6" });
        if is.is_some_and(|is| is != wanted) {
            let why = format!("expected an {wanted} value as indicated by `ipFamilies[{index}]`");
            found.push(FieldError::invalid(path.index(index), ip, why));
        }
    }
    let sound = found.len() == before && list.len() == 2;
    if sound && !net::is_dual_stack(list.iter().filter_map(Tree::as_str)) {
        let why = "may specify no more than one IP for each IP family";
        found.push(FieldError::invalid(path, whole(), why));
    }
}

/// What only a load balancer has.
fn balancer(found: &mut Found, spec: &Tree, is_balancer: bool) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    checks::each_text(spec, "loadBalancerSourceRanges", SPEC, |block, path| {
        checks::invalid(found, path, block, net::cidr(block.trim()));
    });
    for field in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !is_balancer && !rules::same(spec.get(field), None) {
            found.push(FieldError::forbidden(SPEC.child(field), ONLY));
        }
    }
    if is_balancer && checks::given(spec, "allocateLoadBalancerNodePorts").is_none() {
        found.push(FieldError::required(SPEC.child("allocateLoadBalancerNodePorts"), ""));
    }
    if checks::given(spec, "loadBalancerClass").is_some() {
        checks::shaped(found, spec, "loadBalancerClass", SPEC, name::qualified_name);
    }
}

/// Which endpoints traffic goes to.
fn policies(found: &mut Found, spec: &Tree, ty: &str) {
    const POLICIES: [&str; 2] = ["Cluster", "Local"];
    let policy = spec.str_at(&["externalTrafficPolicy"]);
    let outside =
        matches!(ty, "NodePort" | "LoadBalancer") || (ty == "ClusterIP" && !spec.list_at(&["externalIPs"]).is_empty());
    if !outside && !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        found.push(FieldError::invalid(SPEC.child("externalTrafficPolicy"), policy, why));
    }
    if outside {
        checks::one_of(found, spec, "externalTrafficPolicy", SPEC, &POLICIES);
    }
    let port = spec.int_at(&["healthCheckNodePort"]).unwrap_or(0);
    if port != 0 && !(ty == "LoadBalancer" && policy == "Local") {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        found.push(FieldError::invalid(SPEC.child("healthCheckNodePort"), port, why));
    }
    if matches!(ty, "ClusterIP" | "NodePort" | "LoadBalancer") {
        checks::one_of(found, spec, "internalTrafficPolicy", SPEC, &POLICIES);
    }
    let near = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    checks::only_if_given(found, spec, "trafficDistribution", SPEC, &near);
}

fn service_ports(found: &mut Found, ports: &[Tree], ty: &str) {
    let list = SPEC.child("ports");
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = port.str_at(&["name"]);
        if !name.is_empty() {
            checks::invalid(found, path.child("name"), name, name::dns1123_label(name));
            if !names.insert(name) {
                found.push(FieldError::duplicate(path.child("name"), name));
            }
        } else if ports.len() > 1 {
            found.push(FieldError::required(path.child("name"), ""));
        }
        let number = port.int_at(&["port"]).unwrap_or(0);
        checks::invalid_number(found, path.child("port"), number, name::port_number(number));
        checks::one_of(found, port, "protocol", path, &["SCTP", "TCP", "UDP"]);
        checks::port(found, port.get("targetPort"), path.child("targetPort"));
        let app = port.str_at(&["appProtocol"]);
        if !app.is_empty() {
            checks::invalid(found, path.child("appProtocol"), app, name::qualified_name(app));
        }
        let protocol = port.str_at(&["protocol"]);
        if !numbers.insert((protocol, number)) {
            found.push(FieldError::duplicate(path, BadValue::from(port)));
        }
        let Some(node_port) = port.int_at(&["nodePort"]).filter(|port| *port != 0) else { continue };
        checks::invalid_number(found, path.child("nodePort"), node_port, name::port_number(node_port));
        if ty == "ClusterIP" {
            let why = "may not be used when `type` is 'ClusterIP'";
            found.push(FieldError::forbidden(path.child("nodePort"), why));
        }
        if !node_ports.insert((protocol, node_port)) {
            found.push(FieldError::duplicate(path.child("nodePort"), node_port));
        }
    }
}
