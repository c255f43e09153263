//! Machines and pods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use skiff_net::pod::{HostPort, PodNetwork};
use skiff_net::proxy::Protocol;
use skiff_net::{Machine, Namespace};

use crate::lab::{ask, ask_udp, block_on, config, lab, serve};

#[test]
fn pods_of_one_machine_reach_each_other_and_the_machine_reaches_them() {
    lab(|lab| {
        let (a, b) = (lab.pod("a", &[]), lab.pod("b", &[]));
        b.serve(80);
        assert_eq!(ask(&a.namespace, (b.address, 80)), Ok(format!("b {}", a.address)));
        assert_eq!(ask(lab.machine.namespace(), (b.address, 80)), Ok("b 10.89.7.2".into()));
        let port = block_on(async {
            let stream = lab.machine.tcp_connect((b.address, 80).into()).await.unwrap();
            stream.peer_addr().unwrap().port()
        });
        assert_eq!(port, 80);
    });
}

#[test]
fn a_pod_that_goes_out_shows_the_nodes_address() {
    lab(|lab| {
        let a = lab.pod("a", &[]);
        serve(&lab.host, "host", (Ipv4Addr::UNSPECIFIED, 6443).into());
        assert_eq!(ask(&a.namespace, (lab.machine.config().host_address(), 6443)), Ok("host 10.89.7.2".into()));
    });
}

#[test]
fn host_ports_lead_to_their_pod_from_everywhere() {
    lab(|lab| {
        let port = |host_port, host_ip| HostPort { host_ip, host_port, pod_port: 80, protocol: Protocol::Tcp };
        let udp = HostPort { host_ip: None, host_port: 5353, pod_port: 53, protocol: Protocol::Udp };
        let node = lab.machine.config().address();
        let a = lab.pod("a", &[port(8080, None), port(8081, Some(node)), udp]);
        let b = lab.pod("b", &[]);
        a.serve(80);
        a.serve_udp(53);
        assert_eq!(ask(&lab.host, (node, 8080)), Ok("a 10.89.7.1".into()));
        assert_eq!(ask(&lab.host, (node, 8081)), Ok("a 10.89.7.1".into()));
        assert_eq!(ask(&b.namespace, (node, 8080)), Ok(format!("a {}", b.address)));
        assert_eq!(ask(&a.namespace, (node, 8080)), Ok("a 10.89.7.2".into()), "hairpin");
        assert_eq!(ask(lab.machine.namespace(), (Ipv4Addr::LOCALHOST, 8080)), Ok("a 10.89.7.2".into()));
        assert!(ask(lab.machine.namespace(), (Ipv4Addr::LOCALHOST, 8081)).is_err());
        let client = lab.host.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        assert_eq!(ask_udp(&client, std::net::SocketAddrV4::new(node, 5353)), Ok("a 10.89.7.1".into()));

        block_on(lab.pods.detach("a")).unwrap();
        block_on(lab.pods.detach("a")).unwrap();
        assert!(ask(&lab.host, (node, 8080)).is_err());
        Namespace::remove(&lab.path("a")).unwrap();
    });
}

#[test]
fn a_pod_cannot_send_from_a_foreign_address() {
    lab(|lab| {
        let (a, b) = (lab.pod("a", &[]), lab.pod("b", &[]));
        b.serve(80);
        a.namespace
            .run(|| {
                let mut links = skiff_net::netlink::route::Routes::open().unwrap();
                let link = links.index("eth0").unwrap();
                links.add_address(link, Ipv4Addr::new(10, 244, 0, 200), 32).unwrap();
                let socket = std::net::UdpSocket::bind("10.244.0.200:0").unwrap();
                socket.send_to(b"x", (b.address, 80)).unwrap();
            })
            .unwrap();
        let listener = b.namespace.run(|| std::net::UdpSocket::bind("0.0.0.0:90").unwrap()).unwrap();
        listener.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        a.namespace
            .run(|| {
                let spoof = std::net::UdpSocket::bind("10.244.0.200:0").unwrap();
                spoof.send_to(b"x", (b.address, 90)).unwrap();
            })
            .unwrap();
        assert!(listener.recv(&mut [0; 8]).is_err());
    });
}

#[test]
fn everything_is_adopted_after_a_crash_and_strays_are_removed() {
    lab(|lab| {
        let (a, b) = (lab.pod("a", &[]), lab.pod("stray", &[]));
        a.serve(80);
        let (machine, changes) = Machine::ensure(lab.machine.config().clone()).unwrap();
        assert!(changes.is_empty(), "{changes:?}");
        let again = PodNetwork::open(Arc::new(machine), lab.path("addresses")).unwrap();
        let kept = block_on(again.adopt(vec!["a".into()])).unwrap();
        assert_eq!(kept, [("a".to_owned(), a.address)]);
        assert_eq!(block_on(again.attach("a", &lab.path("a"), &[])).unwrap(), a.address);
        assert_eq!(ask(again.machine().namespace(), (a.address, 80)), Ok("a 10.89.7.2".into()));
        let c = Namespace::ensure(&lab.path("c")).unwrap();
        let address = block_on(again.attach("c", &lab.path("c"), &[])).unwrap();
        assert!(address != a.address && address != b.address);
        block_on(again.detach("c")).unwrap();
        drop(c);
        for id in ["c", "stray"] {
            Namespace::remove(&lab.path(id)).unwrap();
        }
    });
}

#[test]
fn two_machines_of_a_cluster_route_to_each_others_pods() {
    lab(|lab| {
        let (second, _) = Machine::ensure(config(&lab.folder, 3)).unwrap();
        let second = Arc::new(second);
        let pods = PodNetwork::open(second.clone(), lab.path("addresses-3")).unwrap();
        let a = lab.pod("a", &[]);
        a.serve(80);
        let b = Namespace::ensure(&lab.path("b")).unwrap();
        let b_address = block_on(pods.attach("b", &lab.path("b"), &[])).unwrap();
        let peers: BTreeMap<_, _> = [&lab.machine, &second]
            .map(|machine| (machine.config().pod_cidr, machine.config().address()))
            .into_iter()
            .collect();
        lab.machine.set_peers(&peers).unwrap();
        second.set_peers(&peers).unwrap();
        second.set_peers(&peers).unwrap();
        assert_eq!(ask(&b, (a.address, 80)), Ok(format!("a {b_address}")));
        lab.machine.set_peers(&BTreeMap::new()).unwrap();
        assert!(ask(&b, (a.address, 80)).is_err());
        block_on(pods.detach("b")).unwrap();
        Namespace::remove(&lab.path("b")).unwrap();
        Machine::delete(second.config()).unwrap();
        Machine::delete(second.config()).unwrap();
    });
}

#[test]
fn pods_attach_and_detach_side_by_side() {
    lab(|lab| {
        let ids: Vec<String> = (0..24).map(|index| format!("pod-{index}")).collect();
        for id in &ids {
            Namespace::ensure(&lab.path(id)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let attach = async |id: &String| lab.pods.attach(id, &lab.path(id), &[]).await.unwrap();
            let addresses = futures::future::join_all(ids.iter().map(attach)).await;
            let addresses: std::collections::BTreeSet<Ipv4Addr> = addresses.into_iter().collect();
            assert_eq!(addresses.len(), ids.len(), "no address twice");
            let detach = async |id: &String| lab.pods.detach(id).await.unwrap();
            futures::future::join_all(ids[..20].iter().map(detach)).await;
        });
        for id in &ids[..20] {
            Namespace::remove(&lab.path(id)).unwrap();
        }
        assert_eq!(lab.pods.attached().len(), 4);
    });
}

#[test]
fn a_failed_attach_leaves_nothing_and_a_pod_may_vanish_before_its_detach() {
    lab(|lab| {
        let error = block_on(lab.pods.attach("gone", &lab.path("gone"), &[])).unwrap_err();
        assert!(error.to_string().starts_with("open network namespace "), "{error}");
        assert_eq!(lab.pods.attached(), []);
        let port = HostPort { host_ip: None, host_port: 8080, pod_port: 80, protocol: Protocol::Tcp };
        lab.pod("a", &[port]);
        Namespace::ensure(&lab.path("b")).unwrap();
        let taken = block_on(lab.pods.attach("b", &lab.path("b"), &[port])).unwrap_err();
        assert!(taken.to_string().contains("host-ports"), "{taken}");
        assert_eq!(lab.pods.attached().len(), 1);
        // The runtime ended the pod's namespace first: the link went with it.
        for id in ["a", "b"] {
            Namespace::remove(&lab.path(id)).unwrap();
        }
        block_on(lab.pods.detach("a")).unwrap();
        assert_eq!(lab.pods.attached(), []);
    });
}

#[test]
fn attaching_takes_milliseconds() {
    lab(|lab| {
        let mut times = Vec::new();
        for index in 0..20 {
            let id = format!("pod-{index}");
            Namespace::ensure(&lab.path(&id)).unwrap();
            let start = Instant::now();
            block_on(lab.pods.attach(&id, &lab.path(&id), &[])).unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        println!("attach p50 {:?}, p90 {:?}", times[10], times[18]);
        let start = Instant::now();
        block_on(lab.pods.detach("pod-0")).unwrap();
        println!("detach {:?}", start.elapsed());
        Namespace::remove(&lab.path("pod-0")).unwrap();
    });
}
