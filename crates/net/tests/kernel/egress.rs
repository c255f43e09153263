//! The way out of the host, and what is changed on the host for it.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use skiff_net::netlink::route::{Route, Routes, VethEnd};
use skiff_net::pod::PodNetwork;
use skiff_net::{ClusterTag, Machine, Namespace, free_subnet};

use crate::lab::{Folder, ask, block_on, config, on_fresh_host, serve};

const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn forwarding() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

#[test]
fn pods_reach_the_world_through_the_host_and_the_host_is_left_as_it_was() {
    on_fresh_host(|host| {
        let folder = Folder::new();
        let world = Namespace::ensure(&folder.path().join("world")).unwrap();
        let mut links = Routes::open().unwrap();
        let near = VethEnd { name: "uplink", mac: [2, 0, 0, 0, 0, 1], master: None };
        let far = VethEnd { name: "eth0", mac: [2, 0, 0, 0, 0, 2], master: None };
        links.add_veth(&near, &far, world.as_fd(), 1_400).unwrap();
        let uplink = links.index("uplink").unwrap();
        links.add_address(uplink, HOST, 24).unwrap();
        links.set_route(&Route::new("0.0.0.0/0".parse().unwrap(), uplink).via(OUTSIDE)).unwrap();
        world
            .run(|| {
                let mut links = Routes::open().unwrap();
                let link = links.index("eth0").unwrap();
                links.set_up(link).unwrap();
                links.add_address(link, OUTSIDE, 24).unwrap();
            })
            .unwrap();
        serve(&world, "world", (Ipv4Addr::UNSPECIFIED, 80).into());
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();

        let first = config(&folder, 2);
        assert_eq!(free_subnet(first.cluster).unwrap(), 0);
        let (machine, changes) = Machine::ensure(first.clone()).unwrap();
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(free_subnet(first.cluster).unwrap(), 7, "its own again");
        let (machine, again) = (std::sync::Arc::new(machine), Machine::ensure(first.clone()).unwrap().1);
        assert!(again.is_empty());
        assert_eq!(machine.mtu(), 1_400);
        let pods = PodNetwork::open(machine, folder.path().join("addresses")).unwrap();
        let pod = Namespace::ensure(&folder.path().join("pod")).unwrap();
        block_on(pods.attach("pod", &pod.path(), &[])).unwrap();
        assert_eq!(ask(&pod, (OUTSIDE, 80)), Ok(format!("world {HOST}")));

        // A second cluster beside it; the last one to go switches forwarding off again.
        let mut second = config(&folder, 3);
        (second.cluster, second.subnet) = (ClusterTag::new([1, 2, 3]), 8);
        assert!(Machine::ensure(second.clone()).unwrap().1.is_empty());
        assert!(Machine::delete(&first).unwrap().is_empty());
        assert_eq!(forwarding(), "1");
        assert_eq!(Machine::delete(&second).unwrap().len(), 1);
        assert_eq!(forwarding(), "0");
        block_on(pods.detach("pod")).unwrap();
        drop(host);
        for name in ["pod", "world"] {
            Namespace::remove(&folder.path().join(name)).unwrap();
        }
    });
}

#[test]
fn a_network_in_use_and_a_contradiction_are_refused() {
    on_fresh_host(|_| {
        let folder = Folder::new();
        let mut wrong = config(&folder, 2);
        wrong.pod_cidr = "10.0.0.0/24".parse().unwrap();
        let error = Machine::ensure(wrong).unwrap_err().to_string();
        assert_eq!(error, "make machine 10.89.7.2: the pod CIDR lies outside the cluster CIDR");
        let mut links = Routes::open().unwrap();
        let loopback = links.index("lo").unwrap();
        links.add_address(loopback, Ipv4Addr::new(10, 89, 7, 9), 32).unwrap();
        let error = Machine::ensure(config(&folder, 2)).unwrap_err().to_string();
        assert_eq!(error, "add bridge skabcdef: the host already has 10.89.7.9 elsewhere");
        links.delete_link("skabcdef").unwrap();
    });
}

#[test]
fn this_kernel_can_do_what_a_node_needs_and_a_dropping_firewall_is_seen() {
    on_fresh_host(|_| {
        skiff_net::probe().unwrap();
        assert_eq!(Routes::open().unwrap().links().unwrap().len(), 1);
        assert_eq!(skiff_net::forward_drops().unwrap(), Vec::<String>::new());
        let rules =
            "add table inet guard; add chain inet guard forward { type filter hook forward priority 0; policy drop; }";
        match std::process::Command::new("nft").arg(rules).status() {
            Ok(status) if status.success() => {
                assert_eq!(skiff_net::forward_drops().unwrap(), ["inet/guard/forward"]);
            }
            _ => eprintln!("skipped: needs nft"),
        }
    });
}
