use std::fmt::Write;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn node() -> Node {
    Node {
        name: "node-1".into(),
        zone: Some("a".into()),
        address: Ipv4Addr::new(10, 89, 0, 2),
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
    }
}

/// The Service `spec` (port 80 unless given) over `endpoints` at port 8080.
fn check(spec: Value, endpoints: Value, expected: Expect) {
    check_all(
        spec,
        json!({}),
        &[json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]})],
        expected,
    );
}

fn check_all(mut spec: Value, status: Value, slices: &[Value], expected: Expect) {
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{"port": 80}]);
    }
    if spec.get("clusterIP").is_none() {
        spec["clusterIP"] = json!("10.96.0.1");
    }
    let service: Service =
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec, "status": status})).unwrap();
    let slices: Vec<Box<EndpointSlice>> = slices
        .iter()
        .map(|slice| {
            let mut slice = slice.clone();
            slice["metadata"] = json!({});
            serde_json::from_value(slice).unwrap()
        })
        .collect();
    let compiled = compile(&service, &slices, &node());
    let mut text = String::new();
    for (vip, it) in compiled.frontends {
        let list = |all: &[SocketAddrV4]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        write!(text, "{vip} {:?} [{}]", it.masquerade, list(&it.backends)).unwrap();
        if it.backends.is_empty() {
            write!(text, " {:?}", it.empty).unwrap();
        }
        if let Some(inside) = it.inside {
            write!(text, " inside [{}]", list(&inside)).unwrap();
        }
        if let Some(seconds) = it.affinity_seconds {
            write!(text, " affinity {seconds}s").unwrap();
        }
        text.push('\n');
    }
    if let Some((port, count)) = compiled.health {
        writeln!(text, "health {port}: {count}").unwrap();
    }
    expected.assert_eq(&text);
}

fn two() -> Value {
    json!([
        {"addresses": ["10.244.0.5"], "nodeName": "node-1"},
        {"addresses": ["10.244.1.6"], "nodeName": "node-2"},
    ])
}

#[test]
fn a_cluster_ip_leads_to_ready_endpoints_once_each() {
    let slice = json!({"addressType": "IPv4", "endpoints": two(), "ports": [{"port": 8080}]});
    let six = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}], "ports": [{"port": 8080}]});
    check_all(
        json!({}),
        json!({}),
        &[slice.clone(), slice, six],
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080,10.244.1.6:8080]
    "#]],
    );
}

#[test]
fn headless_external_and_foreign_services_are_left_alone() {
    check(json!({"clusterIP": "None"}), two(), expect![[""]]);
    check(json!({"type": "ExternalName", "externalName": "x"}), two(), expect![[""]]);
}

#[test]
fn every_port_has_its_own_backends_by_name_and_protocol() {
    let slice = json!({"addressType": "IPv4", "endpoints": two(), "ports": [
        {"name": "web", "port": 8080}, {"name": "dns", "port": 8053, "protocol": "UDP"},
        {"name": "dns", "port": 9053, "protocol": "TCP"}, {"name": "any"},
    ]});
    let ports = json!([
        {"name": "web", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "s", "port": 99, "protocol": "SCTP"}, {"name": "absent", "port": 81}, {"name": "any", "port": 82},
    ]);
    check_all(
        json!({"ports": ports}),
        json!({}),
        &[slice],
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080,10.244.1.6:8080]
        10.96.0.1:81/TCP Outsiders [] Reject
        10.96.0.1:82/TCP Outsiders [] Reject
        10.96.0.1:53/UDP Outsiders [10.244.0.5:8053,10.244.1.6:8053]
    "#]],
    );
}

#[test]
fn every_kind_of_address_is_a_frontend() {
    let spec = json!({
        "type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}], "externalIPs": ["198.51.100.1"],
        "sessionAffinity": "ClientIP",
    });
    let ingress = json!([
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"ip": "203.0.113.3", "ipMode": "VIP"},
        {"hostname": "x"},
    ]);
    let slice = json!({"addressType": "IPv4", "endpoints": two(), "ports": [{"port": 8080}]});
    check_all(
        spec,
        json!({"loadBalancer": {"ingress": ingress}}),
        &[slice],
        expect![[r#"
        *:30080/TCP Always [10.244.0.5:8080,10.244.1.6:8080] affinity 10800s
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080,10.244.1.6:8080] affinity 10800s
        198.51.100.1:80/TCP Always [10.244.0.5:8080,10.244.1.6:8080] affinity 10800s
        203.0.113.1:80/TCP Always [10.244.0.5:8080,10.244.1.6:8080] affinity 10800s
        203.0.113.3:80/TCP Always [10.244.0.5:8080,10.244.1.6:8080] affinity 10800s
    "#]],
    );
}

#[test]
fn external_policy_local_keeps_to_this_node_except_for_its_own_clients() {
    let spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    check(
        spec.clone(),
        two(),
        expect![[r#"
        *:30080/TCP Never [10.244.0.5:8080] inside [10.244.0.5:8080,10.244.1.6:8080]
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080,10.244.1.6:8080]
        health 32000: 1
    "#]],
    );
    check(
        spec.clone(),
        json!([{"addresses": ["10.244.1.6"], "nodeName": "node-2"}]),
        expect![[r#"
        *:30080/TCP Never [] Drop inside [10.244.1.6:8080]
        10.96.0.1:80/TCP Outsiders [10.244.1.6:8080]
        health 32000: 0
    "#]],
    );
    check(
        spec,
        json!([]),
        expect![[r#"
        *:30080/TCP Never [] Reject inside []
        10.96.0.1:80/TCP Outsiders [] Reject
        health 32000: 0
    "#]],
    );
}

#[test]
fn internal_policy_local_drops_without_local_endpoints() {
    let spec = json!({"internalTrafficPolicy": "Local"});
    check(
        spec.clone(),
        two(),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080]
    "#]],
    );
    check(
        spec,
        json!([{"addresses": ["10.244.1.6"], "nodeName": "node-2"}]),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [] Drop
    "#]],
    );
}

#[test]
fn terminating_endpoints_serve_only_when_no_other_is_ready() {
    let terminating = |address: &str, serving: bool| {
        let conditions = json!({"ready": false, "serving": serving, "terminating": true});
        json!({"addresses": [address], "nodeName": "node-1", "conditions": conditions})
    };
    let ready = json!({"addresses": ["10.244.0.5"], "nodeName": "node-2"});
    let starting = json!({"addresses": ["10.244.0.9"], "conditions": {"ready": false}});
    check(
        json!({}),
        json!([terminating("10.244.0.7", true), ready]),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080]
    "#]],
    );
    check(
        json!({}),
        json!([terminating("10.244.0.7", true), terminating("10.244.0.8", false), starting]),
        expect![[r#"
            10.96.0.1:80/TCP Outsiders [10.244.0.7:8080]
        "#]],
    );
}

#[test]
fn topology_hints_are_followed_when_complete() {
    let hinted = |address: &str, hints: Value| json!({"addresses": [address], "hints": hints});
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    check(
        json!({}),
        json!([hinted("10.0.0.1", zone("a")), hinted("10.0.0.2", zone("b"))]),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.0.0.1:8080]
    "#]],
    );
    check(
        json!({}),
        json!([hinted("10.0.0.1", zone("c")), hinted("10.0.0.2", zone("b"))]),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.0.0.1:8080,10.0.0.2:8080]
    "#]],
    );
    check(
        json!({}),
        json!([hinted("10.0.0.1", zone("a")), {"addresses": ["10.0.0.2"]}]),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.0.0.1:8080,10.0.0.2:8080]
    "#]],
    );
    let here = json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "node-1"}]});
    let there = json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "node-2"}]});
    check(
        json!({}),
        json!([hinted("10.0.0.1", here), hinted("10.0.0.2", there)]),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.0.0.1:8080]
    "#]],
    );
}

#[test]
fn affinity_lasts_three_hours_unless_told() {
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    check(
        json!({"sessionAffinity": "ClientIP"}),
        two(),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080,10.244.1.6:8080] affinity 10800s
    "#]],
    );
    check(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}),
        two(),
        expect![[r#"
        10.96.0.1:80/TCP Outsiders [10.244.0.5:8080,10.244.1.6:8080] affinity 60s
    "#]],
    );
}
