//! `services` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

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
