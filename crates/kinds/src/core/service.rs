//! `services` in `v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::time::Time;
use skiff_object::{Tree, name, net};

use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;
use crate::{cells, fill};

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
                if !spec.list_at(&["clusterIPs"]).is_empty() {
                    let why = "may not be set for ExternalName services";
                    found.push(FieldError::forbidden(SPEC.child("clusterIPs"), why));
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
        checks::one_of(&mut found, spec, "sessionAffinity", SPEC, &["ClientIP", "None"]);
        checks::one_of(&mut found, spec, "type", SPEC, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
        checks::maybe_one_of(&mut found, spec, "externalTrafficPolicy", SPEC, &["Cluster", "Local"]);
        checks::maybe_one_of(&mut found, spec, "internalTrafficPolicy", SPEC, &["Cluster", "Local"]);
        let list = SPEC.child("externalIPs");
        for (index, ip) in spec.list_at(&["externalIPs"]).iter().filter_map(Tree::as_str).enumerate() {
            checks::invalid(&mut found, list.index(index), ip, net::ip(ip));
        }
        if let Some(seconds) = spec.int_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
            && !(1..=DAY_SECONDS).contains(&seconds)
        {
            let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            found.push(FieldError::invalid(
                path,
                seconds,
                format!("must be greater than 0 and less than {DAY_SECONDS}"),
            ));
        }
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

fn service_ports(found: &mut Vec<FieldError>, ports: &[Tree], ty: &str) {
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
