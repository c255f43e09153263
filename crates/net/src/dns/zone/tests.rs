use std::fmt::Write;

use expect_test::{Expect, expect};

use super::*;

fn zone() -> Zone {
    let reverse = ["10.96.0.0/16".parse().unwrap(), "10.244.0.0/16".parse().unwrap()];
    let mut zone = Zone::new("cluster.local", &reverse, Ipv4Addr::new(10, 96, 0, 10)).unwrap();
    zone.set_namespace("default", true);
    let port = |name: &str, protocol, number| Port { name: name.into(), protocol, number };
    let http = port("http", Protocol::Tcp, 80);
    let pod = |last, hostname: Option<&str>| Headless {
        address: Ipv4Addr::new(10, 244, 0, last).into(),
        hostname: hostname.map(str::to_owned),
        ports: vec![http.clone()],
    };
    let web = Service::Cluster {
        addresses: vec![Ipv4Addr::new(10, 96, 0, 50).into()],
        ports: vec![http.clone(), port("dns", Protocol::Udp, 53), port("", Protocol::Tcp, 9)],
        named: vec![pod(9, Some("first"))],
    };
    zone.set_service(&ServiceKey::new("default", "web"), Some(web));
    let db = Service::Headless(vec![pod(5, Some("db-0")), pod(6, None)]);
    zone.set_service(&ServiceKey::new("default", "db"), Some(db));
    zone.set_service(&ServiceKey::new("default", "none"), Some(Service::Headless(Vec::new())));
    let mut external = |name: &str, target: &str| {
        let target = Service::External(Name::from_ascii(target).unwrap());
        zone.set_service(&ServiceKey::new("default", name), Some(target));
    };
    external("out", "example.org.");
    external("in", "web.default.svc.cluster.local.");
    external("loop", "loop.default.svc.cluster.local.");
    external("lost", "gone.default.svc.cluster.local.");
    zone
}

fn check(questions: &[(&str, RecordType)], expected: Expect) {
    let zone = zone();
    let mut text = String::new();
    for (name, kind) in questions {
        let full = if name.ends_with('.') { (*name).to_owned() } else { format!("{name}.cluster.local.") };
        write!(text, "{name} {kind}:").unwrap();
        match zone.lookup(&Name::from_ascii(full).unwrap(), *kind) {
            None => text.push_str(" not ours"),
            Some(answer) => {
                let said = match (answer.code, answer.records.is_empty()) {
                    (ResponseCode::NoError, true) => " no data".to_owned(),
                    (ResponseCode::NoError, false) => String::new(),
                    (code, _) => format!(" {code:?}"),
                };
                text.push_str(&said);
                for record in &answer.records {
                    write!(text, " {} {}", record.record_type(), record.data).unwrap();
                }
                for record in &answer.additional {
                    write!(text, " +{}={}", record.name, record.data).unwrap();
                }
                if let Some(target) = &answer.chase {
                    write!(text, " then {target}").unwrap();
                }
                assert!(answer.authority.is_some() || !answer.records.is_empty(), "an empty answer names its zone");
            }
        }
        text.push('\n');
    }
    expected.assert_eq(&text);
}

use RecordType as T;

#[test]
fn a_service_has_its_cluster_ip_and_its_named_ports() {
    check(
        &[
            ("web.default.svc", T::A),
            ("WEB.Default.SVC", T::A),
            ("web.default.svc", T::AAAA),
            ("web.default.svc", T::SRV),
            ("_http._tcp.web.default.svc", T::SRV),
            ("_HTTP._TCP.web.default.svc", T::A),
            ("_dns._udp.web.default.svc", T::SRV),
            ("_dns._tcp.web.default.svc", T::SRV),
            ("_tcp.web.default.svc", T::SRV),
            ("first.web.default.svc", T::A),
            ("second.web.default.svc", T::A),
            ("x.y.z.web.default.svc", T::A),
        ],
        expect![[r#"
            web.default.svc A: A 10.96.0.50
            WEB.Default.SVC A: A 10.96.0.50
            web.default.svc AAAA: no data
            web.default.svc SRV: SRV 0 100 80 web.default.svc.cluster.local. SRV 0 100 53 web.default.svc.cluster.local. SRV 0 100 9 web.default.svc.cluster.local. +web.default.svc.cluster.local.=10.96.0.50
            _http._tcp.web.default.svc SRV: SRV 0 100 80 web.default.svc.cluster.local. +web.default.svc.cluster.local.=10.96.0.50
            _HTTP._TCP.web.default.svc A: A 10.96.0.50
            _dns._udp.web.default.svc SRV: SRV 0 100 53 web.default.svc.cluster.local. +web.default.svc.cluster.local.=10.96.0.50
            _dns._tcp.web.default.svc SRV: NXDomain
            _tcp.web.default.svc SRV: no data
            first.web.default.svc A: A 10.244.0.9
            second.web.default.svc A: NXDomain
            x.y.z.web.default.svc A: NXDomain
        "#]],
    );
}

#[test]
fn a_headless_service_has_the_addresses_of_its_pods() {
    check(
        &[
            ("db.default.svc", T::A),
            ("db-0.db.default.svc", T::A),
            ("10-244-0-6.db.default.svc", T::A),
            ("10-244-0-5.db.default.svc", T::A),
            ("_http._tcp.db.default.svc", T::SRV),
            ("_https._tcp.db.default.svc", T::SRV),
            ("none.default.svc", T::A),
        ],
        expect![[r#"
            db.default.svc A: A 10.244.0.5 A 10.244.0.6
            db-0.db.default.svc A: A 10.244.0.5
            10-244-0-6.db.default.svc A: A 10.244.0.6
            10-244-0-5.db.default.svc A: NXDomain
            _http._tcp.db.default.svc SRV: SRV 0 100 80 db-0.db.default.svc.cluster.local. SRV 0 100 80 10-244-0-6.db.default.svc.cluster.local. +db-0.db.default.svc.cluster.local.=10.244.0.5 +10-244-0-6.db.default.svc.cluster.local.=10.244.0.6
            _https._tcp.db.default.svc SRV: NXDomain
            none.default.svc A: NXDomain
        "#]],
    );
}

#[test]
fn an_external_name_is_an_alias_followed_inside_the_cluster() {
    check(
        &[
            ("out.default.svc", T::A),
            ("out.default.svc", T::CNAME),
            ("in.default.svc", T::A),
            ("in.default.svc", T::AAAA),
            ("loop.default.svc", T::A),
            ("lost.default.svc", T::A),
            ("x.out.default.svc", T::A),
        ],
        expect![[r#"
            out.default.svc A: CNAME example.org. then example.org.
            out.default.svc CNAME: CNAME example.org.
            in.default.svc A: CNAME web.default.svc.cluster.local. A 10.96.0.50
            in.default.svc AAAA: CNAME web.default.svc.cluster.local.
            loop.default.svc A: CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local. CNAME loop.default.svc.cluster.local.
            lost.default.svc A: NXDomain CNAME gone.default.svc.cluster.local.
            x.out.default.svc A: NXDomain
        "#]],
    );
}

#[test]
fn absent_names_and_absent_types_differ() {
    check(
        &[
            ("cluster.local.", T::A),
            ("cluster.local.", T::NS),
            ("cluster.local.", T::SOA),
            ("svc", T::A),
            ("default.svc", T::A),
            ("other.svc", T::A),
            ("gone.default.svc", T::A),
            ("10-244-0-5.default.pod", T::A),
            ("10-244-0-5.default.pod", T::AAAA),
            ("10-244-0-5.other.pod", T::A),
            ("nonsense.default.pod", T::A),
            ("dns-version", T::TXT),
            ("ns.dns", T::A),
            ("example.org.", T::A),
            ("local.", T::A),
            ("xcluster.local.", T::A),
        ],
        expect![[r#"
            cluster.local. A: no data
            cluster.local. NS: NS ns.dns.cluster.local. +ns.dns.cluster.local.=10.96.0.10
            cluster.local. SOA: SOA ns.dns.cluster.local. hostmaster.cluster.local. 9 7200 1800 86400 5
            svc A: no data
            default.svc A: no data
            other.svc A: NXDomain
            gone.default.svc A: NXDomain
            10-244-0-5.default.pod A: A 10.244.0.5
            10-244-0-5.default.pod AAAA: no data
            10-244-0-5.other.pod A: NXDomain
            nonsense.default.pod A: NXDomain
            dns-version TXT: TXT 1.1.0
            ns.dns A: A 10.96.0.10
            example.org. A: not ours
            local. A: not ours
            xcluster.local. A: not ours
        "#]],
    );
}

#[test]
fn reverse_names_lead_to_services_and_named_pods() {
    check(
        &[
            ("50.0.96.10.in-addr.arpa.", T::PTR),
            ("5.0.244.10.in-addr.arpa.", T::PTR),
            ("6.0.244.10.in-addr.arpa.", T::PTR),
            ("9.0.244.10.in-addr.arpa.", T::PTR),
            ("50.0.96.10.in-addr.arpa.", T::A),
            ("1.2.0.192.in-addr.arpa.", T::PTR),
        ],
        expect![[r#"
            50.0.96.10.in-addr.arpa. PTR: PTR web.default.svc.cluster.local.
            5.0.244.10.in-addr.arpa. PTR: PTR db-0.db.default.svc.cluster.local.
            6.0.244.10.in-addr.arpa. PTR: NXDomain
            9.0.244.10.in-addr.arpa. PTR: PTR first.web.default.svc.cluster.local.
            50.0.96.10.in-addr.arpa. A: no data
            1.2.0.192.in-addr.arpa. PTR: not ours
        "#]],
    );
}

#[test]
fn removed_services_take_their_names_and_pointers_along() {
    let mut zone = zone();
    let before = zone.clone();
    let key = ServiceKey::new("default", "web");
    zone.set_service(&key, None);
    zone.set_service(&key, None);
    let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
    assert_eq!(zone.lookup(&name, T::A).unwrap().code, ResponseCode::NXDomain);
    let pointer = Name::from_ascii("50.0.96.10.in-addr.arpa.").unwrap();
    assert_eq!(zone.lookup(&pointer, T::PTR).unwrap().code, ResponseCode::NXDomain);
    assert_eq!(before.lookup(&name, T::A).unwrap().records.len(), 1, "an older snapshot stays as it was");
}
