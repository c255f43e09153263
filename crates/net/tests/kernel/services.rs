//! Services: what clients meet when the proxy's table stands.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use skiff_client::k8s_openapi::api::core::v1::Service;
use skiff_client::k8s_openapi::api::discovery::v1::EndpointSlice;
use skiff_net::Namespace;
use skiff_net::proxy::{Compiled, Node, ServiceKey, Table, compile};

use crate::lab::{Lab, PATIENCE, Pod, ask, ask_udp, lab};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 50);

fn node(lab: &Lab) -> Node {
    let config = lab.machine.config();
    Node {
        name: "node-1".into(),
        zone: None,
        address: config.address(),
        pod_cidr: config.pod_cidr,
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
    }
}

fn table(lab: &Lab) -> Table {
    Table::open(lab.machine.namespace(), node(lab)).unwrap()
}

/// A Service `web` with one port 80 to 8080, changed by `spec`, over `backends` (address, node).
fn web(lab: &Lab, spec: Value, backends: &[(Ipv4Addr, &str)]) -> (ServiceKey, Compiled) {
    let mut all = json!({
        "clusterIP": VIP, "clusterIPs": [VIP], "type": "NodePort",
        "ports": [
            {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
            {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"},
        ],
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": all})).unwrap();
    let endpoints: Vec<Value> =
        backends.iter().map(|(address, node)| json!({"addresses": [address], "nodeName": node})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1"}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 8053, "protocol": "UDP"}],
    }))
    .unwrap();
    (ServiceKey::new("default", "web"), compile(&service, &[&slice], &node(lab)))
}

fn backend(lab: &Lab, id: &str) -> Pod {
    let pod = lab.pod(id, &[]);
    pod.serve(8080);
    pod.serve_udp(8053);
    pod
}

/// How often each pod answers.
fn spread(from: &Namespace, address: (Ipv4Addr, u16), times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let answer = ask(from, address).unwrap();
        *counts.entry(answer.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn a_cluster_ip_balances_for_pods_the_machine_and_the_backend_itself() {
    lab(|lab| {
        let (a, b, client) = (backend(lab, "a"), backend(lab, "b"), lab.pod("client", &[]));
        let mut table = table(lab);
        table.apply([web(lab, json!({}), &[(a.address, "node-1"), (b.address, "node-1")])]).unwrap();
        let counts = spread(&client.namespace, (VIP, 80), 40);
        assert!(counts["a"] >= 5 && counts["b"] >= 5, "{counts:?}");
        assert!(ask(&client.namespace, (VIP, 80)).unwrap().ends_with(&client.address.to_string()), "source kept");
        assert!(ask(lab.machine.namespace(), (VIP, 80)).is_ok());
        let counts = spread(&a.namespace, (VIP, 80), 30);
        assert!(counts["a"] >= 1 && counts["b"] >= 1, "hairpin: {counts:?}");
        let udp = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        assert!(ask_udp(&udp, SocketAddrV4::new(VIP, 53)).is_ok());
        println!("{}", table.dump().unwrap());
    });
}

#[test]
fn a_node_port_answers_on_every_address_of_the_node() {
    lab(|lab| {
        let a = backend(lab, "a");
        let client = lab.pod("client", &[]);
        let mut table = table(lab);
        table.apply([web(lab, json!({}), &[(a.address, "node-1")])]).unwrap();
        let node = lab.machine.config().address();
        assert_eq!(ask(&lab.host, (node, 30080)), Ok("a 10.89.7.2".into()), "masqueraded");
        assert_eq!(ask(lab.machine.namespace(), (Ipv4Addr::LOCALHOST, 30080)), Ok("a 10.89.7.2".into()));
        assert_eq!(ask(lab.machine.namespace(), (node, 30080)), Ok("a 10.89.7.2".into()));
        assert!(ask(&client.namespace, (node, 30080)).is_ok());
        assert!(ask(&a.namespace, (node, 30080)).is_ok());
        let udp = lab.host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        assert!(ask_udp(&udp, SocketAddrV4::new(node, 30053)).is_ok());
        // Nothing of ours answers for a port of another machine's.
        assert!(ask(&client.namespace, (lab.machine.config().host_address(), 30080)).is_err());
    });
}

#[test]
fn without_backends_clients_are_refused_at_once() {
    lab(|lab| {
        let client = lab.pod("client", &[]);
        let mut table = table(lab);
        table.apply([web(lab, json!({}), &[])]).unwrap();
        let node = lab.machine.config().address();
        for (from, address) in [
            (&client.namespace, (VIP, 80)),
            (lab.machine.namespace(), (VIP, 80)),
            (&lab.host, (node, 30080)),
            // No such port, no such Service.
            (&client.namespace, (VIP, 81)),
            (&client.namespace, (Ipv4Addr::new(10, 96, 9, 9), 80)),
        ] {
            let start = Instant::now();
            assert_eq!(ask(from, address), Err(std::io::ErrorKind::ConnectionRefused), "{address:?}");
            assert!(start.elapsed() < Duration::from_millis(200), "{address:?}");
        }
        let udp = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        udp.connect(SocketAddrV4::new(VIP, 53)).unwrap();
        udp.send(b"?").unwrap();
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(udp.recv(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_client_with_affinity_stays_until_its_backend_goes() {
    lab(|lab| {
        let (a, b) = (backend(lab, "a"), backend(lab, "b"));
        let clients: Vec<Pod> = (0..6).map(|index| lab.pod(&format!("client-{index}"), &[])).collect();
        let mut table = table(lab);
        let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}});
        let both = [(a.address, "node-1"), (b.address, "node-1")];
        table.apply([web(lab, spec.clone(), &both)]).unwrap();
        let mut seen = BTreeMap::new();
        for client in &clients {
            let counts = spread(&client.namespace, (VIP, 80), 10);
            assert_eq!(counts.len(), 1, "{counts:?}");
            *seen.entry(counts.into_keys().next().unwrap()).or_insert(0) += 1;
        }
        assert!(table.dump().unwrap().contains("affinity"), "{}", table.dump().unwrap());
        // Every client leaves the backend that goes, at once, and is pinned again.
        table.apply([web(lab, spec.clone(), &both[1..])]).unwrap();
        for client in &clients {
            assert_eq!(spread(&client.namespace, (VIP, 80), 3).keys().collect::<Vec<_>>(), ["b"]);
        }
        table.apply([web(lab, spec, &both)]).unwrap();
        for client in &clients {
            assert_eq!(spread(&client.namespace, (VIP, 80), 5).keys().collect::<Vec<_>>(), ["b"], "pinned anew");
        }
        // A restarted proxy replaces the table and keeps who was pinned where.
        let mut restarted = self::table(lab);
        let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}});
        restarted.apply([web(lab, spec, &both)]).unwrap();
        for client in &clients {
            assert_eq!(spread(&client.namespace, (VIP, 80), 5).keys().collect::<Vec<_>>(), ["b"], "after a restart");
        }
        println!("first choice: {seen:?}");
    });
}

#[test]
fn external_policy_local_keeps_the_client_and_drops_without_local_backends() {
    lab(|lab| {
        let a = backend(lab, "a");
        let client = lab.pod("client", &[]);
        let mut table = table(lab);
        let node = lab.machine.config().address();
        let spec = json!({"externalTrafficPolicy": "Local"});
        table.apply([web(lab, spec.clone(), &[(a.address, "node-1")])]).unwrap();
        assert_eq!(ask(&lab.host, (node, 30080)), Ok("a 10.89.7.1".into()), "the client's own address");
        // The backend is "elsewhere" now: outsiders get silence, insiders still reach it.
        table.apply([web(lab, spec, &[(a.address, "node-2")])]).unwrap();
        let socket = lab.host.run(|| ()).map(|()| ask_briefly(&lab.host, (node, 30080))).unwrap();
        assert_eq!(socket, Err(std::io::ErrorKind::TimedOut));
        assert!(ask(&client.namespace, (node, 30080)).unwrap().starts_with("a "));
        assert!(ask(lab.machine.namespace(), (Ipv4Addr::LOCALHOST, 30080)).unwrap().starts_with("a "));
        let spec = json!({"internalTrafficPolicy": "Local"});
        table.apply([web(lab, spec, &[(a.address, "node-2")])]).unwrap();
        assert_eq!(ask_briefly(&client.namespace, (VIP, 80)), Err(std::io::ErrorKind::TimedOut));
        assert!(ask(&lab.host, (node, 30080)).is_ok());
    });
}

fn ask_briefly(from: &Namespace, address: (Ipv4Addr, u16)) -> Result<(), std::io::ErrorKind> {
    from.run(|| std::net::TcpStream::connect_timeout(&address.into(), Duration::from_millis(400)).map(|_| ()))
        .unwrap()
        .map_err(|error| error.kind())
}

#[test]
fn external_and_balancer_addresses_are_short_circuited() {
    lab(|lab| {
        let a = backend(lab, "a");
        let client = lab.pod("client", &[]);
        let mut table = table(lab);
        table.apply([web(lab, json!({"externalIPs": ["198.51.100.7"]}), &[(a.address, "node-1")])]).unwrap();
        assert!(ask(&client.namespace, (Ipv4Addr::new(198, 51, 100, 7), 80)).unwrap().starts_with("a "));
    });
}

#[test]
fn a_datagram_client_moves_on_when_its_backend_goes() {
    lab(|lab| {
        let (a, b, client) = (backend(lab, "a"), backend(lab, "b"), lab.pod("client", &[]));
        let mut table = table(lab);
        table.apply([web(lab, json!({}), &[(a.address, "node-1")])]).unwrap();
        let udp = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        let target = SocketAddrV4::new(VIP, 53);
        assert!(ask_udp(&udp, target).unwrap().starts_with("a "));
        table.apply([web(lab, json!({}), &[(b.address, "node-1")])]).unwrap();
        assert!(ask_udp(&udp, target).unwrap().starts_with("b "));
        let local = lab.machine.namespace().run(|| UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        let port = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 30053);
        assert!(ask_udp(&local, port).unwrap().starts_with("b "));
        table.apply([web(lab, json!({}), &[(a.address, "node-1")])]).unwrap();
        assert!(ask_udp(&local, port).unwrap().starts_with("a "));
    });
}

#[test]
fn differences_and_a_fresh_write_end_in_the_same_table() {
    lab(|lab| {
        let mut table = table(lab);
        let ip = |last| Ipv4Addr::new(10, 244, 0, last);
        let affinity = json!({"sessionAffinity": "ClientIP"});
        let local = json!({"externalTrafficPolicy": "Local"});
        let steps = [
            web(lab, json!({}), &[(ip(9), "node-1")]),
            web(lab, json!({}), &[(ip(9), "node-1"), (ip(8), "node-2"), (ip(7), "node-1")]),
            web(lab, affinity, &[(ip(9), "node-1"), (ip(7), "node-1")]),
            web(lab, local.clone(), &[(ip(9), "node-1"), (ip(7), "node-2")]),
            web(lab, local, &[(ip(9), "node-2"), (ip(7), "node-2")]),
            web(lab, json!({}), &[]),
            web(lab, json!({"clusterIP": "None", "clusterIPs": ["None"]}), &[(ip(9), "node-1")]),
        ];
        table.apply([]).unwrap();
        for step in steps {
            table.apply([step.clone()]).unwrap();
            let by_difference = table.dump().unwrap();
            let mut fresh = self::table(lab);
            fresh.apply([step]).unwrap();
            assert_eq!(by_difference, fresh.dump().unwrap());
        }
        assert_eq!(table.len(), 0);
        assert_eq!(table.dump().unwrap(), "");
        table.remove().unwrap();
        table.remove().unwrap();
    });
}

#[test]
fn nft_reads_the_same_from_the_kernel() {
    lab(|lab| {
        let mut table = table(lab);
        table.apply([web(lab, json!({}), &[(Ipv4Addr::new(10, 244, 0, 9), "node-1")])]).unwrap();
        let list = |what: &[&str]| {
            lab.machine.namespace().run(|| std::process::Command::new("nft").arg("list").args(what).output()).unwrap()
        };
        let Ok(output) = list(&["map", "ip", "skiff-services", "endpoints"]) else {
            eprintln!("skipped: needs nft");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("10.96.0.50 . tcp . 80 . 0x00000000 : 10.244.0.9 . 8080"), "{text}");
        let output = list(&["chain", "ip", "skiff-services", "address-1"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000"), "{text}");
        let output = list(&["table", "ip", "skiff-pods"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/16 oifname \"eth0\" masquerade"),
            "{text}"
        );
    });
}

#[test]
fn no_connection_fails_while_backends_are_swapped() {
    lab(|lab| {
        let (a, b, client) = (backend(lab, "a"), backend(lab, "b"), lab.pod("client", &[]));
        let mut table = table(lab);
        let one = web(lab, json!({"sessionAffinity": "None"}), &[(a.address, "node-1")]);
        let other = web(lab, json!({}), &[(b.address, "node-1"), (a.address, "node-1")]);
        table.apply([one.clone()]).unwrap();
        let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut longest = Duration::ZERO;
        let mut connections = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let next = if swaps.fetch_add(1, Ordering::Relaxed) % 2 == 0 { &other } else { &one };
                    table.apply([next.clone()]).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                let start = Instant::now();
                let answer = ask(&client.namespace, (VIP, 80));
                if answer.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                answer.unwrap();
                longest = longest.max(start.elapsed());
                connections += 1;
            }
            stop.store(true, Ordering::Relaxed);
        });
        println!("{connections} connections during {} swaps, longest {longest:?}", swaps.into_inner());
        assert!(longest < Duration::from_millis(900), "a connection needed a retransmission: {longest:?}");
    });
}

/// Figures for the notes: `cargo test --release -p skiff-net --test kernel -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn swaps_at_every_pace_lose_no_connection() {
    lab(|lab| {
        let (a, b, client) = (backend(lab, "a"), backend(lab, "b"), lab.pod("client", &[]));
        let node = lab.machine.config().address();
        let mut table = table(lab);
        let affinity = json!({"sessionAffinity": "ClientIP"});
        let mut lost = 0;
        for (name, spec, from, address) in [
            ("cluster ip", json!({}), &client.namespace, (VIP, 80)),
            ("affinity", affinity, &client.namespace, (VIP, 80)),
            ("node port", json!({}), &lab.host, (node, 30080)),
            ("policy local", json!({"externalTrafficPolicy": "Local"}), &lab.host, (node, 30080)),
        ] {
            let one = web(lab, spec.clone(), &[(a.address, "node-1")]);
            let both = web(lab, spec.clone(), &[(b.address, "node-1"), (a.address, "node-1")]);
            let other = web(lab, spec, &[(b.address, "node-1")]);
            for pause in [3_600_000, 100, 3, 0].map(Duration::from_millis) {
                table.apply([one.clone()]).unwrap();
                let (stop, mut swaps, mut in_kernel) = (AtomicBool::new(false), 0_u32, Duration::ZERO);
                let (mut connections, mut failed, mut slow) = (0, 0, 0);
                std::thread::scope(|scope| {
                    let swapper = scope.spawn(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let next = [&both, &other, &both, &one][swaps as usize % 4].clone();
                            let start = Instant::now();
                            table.apply([next]).unwrap();
                            in_kernel += start.elapsed();
                            swaps += 1;
                            std::thread::park_timeout(pause);
                        }
                    });
                    let end = Instant::now() + Duration::from_secs(4);
                    while Instant::now() < end {
                        let start = Instant::now();
                        failed += usize::from(ask(from, address).is_err());
                        slow += usize::from(start.elapsed() > Duration::from_millis(500));
                        connections += 1;
                    }
                    stop.store(true, Ordering::Relaxed);
                    swapper.thread().unpark();
                });
                println!(
                    "{name}, pause {pause:?}: {connections} connections, {swaps} swaps of {:?}, {failed} failed, {slow} slow",
                    in_kernel / swaps
                );
                lost += failed + slow;
            }
        }
        assert_eq!(lost, 0);
    });
}

/// Figures for the notes: `cargo test --release -p skiff-net --test kernel -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn tens_of_thousands_of_services_load_at_once() {
    lab(|lab| {
        for services in [100, 1_000, 5_000, 20_000, 45_000_u32] {
            let service = |index: u32| {
                let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + index);
                let backends: Vec<Value> = (0..4)
                    .map(|it| json!({"addresses": [Ipv4Addr::from_bits(0x0af4_0000 + index % 16_000 * 4 + it)]}))
                    .collect();
                let mut spec = json!({"clusterIP": ip, "ports": [{"port": 80}]});
                if index.is_multiple_of(10) {
                    spec["sessionAffinity"] = json!("ClientIP");
                }
                if index.is_multiple_of(20) {
                    spec["ports"][0]["nodePort"] = json!(30_000 + index / 20 % 2_768);
                }
                if index.is_multiple_of(40) {
                    spec["externalTrafficPolicy"] = json!("Local");
                }
                let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
                let slice: EndpointSlice = serde_json::from_value(json!({
                    "metadata": {}, "addressType": "IPv4", "endpoints": backends, "ports": [{"port": 8080}],
                }))
                .unwrap();
                (ServiceKey::new("load", &index.to_string()), service, slice)
            };
            let objects: Vec<_> = (1..=services).map(service).collect();
            let start = Instant::now();
            let compiled: Vec<_> =
                objects.iter().map(|(key, it, slice)| (key.clone(), compile(it, &[slice], &node(lab)))).collect();
            let compiling = start.elapsed();
            let mut table = table(lab);
            let start = Instant::now();
            table.apply(compiled).unwrap();
            let loading = start.elapsed();
            let mut one_more = Vec::new();
            for index in 0..20 {
                let (key, it, slice) = service(services + 1 + index);
                let start = Instant::now();
                table.apply([(key, compile(&it, &[&slice], &node(lab)))]).unwrap();
                one_more.push(start.elapsed());
            }
            one_more.sort();
            println!(
                "{services} services: compile {compiling:?}, load {loading:?}, one more p50 {:?} max {:?}",
                one_more[10], one_more[19]
            );
        }
    });
}
