//! From API objects to answers and connections: the proxy and the DNS server at work.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};
use skiff_base::{Clock, Random};
use skiff_net::{Namespace, dns, proxy};

use crate::api::Api;
use crate::lab::{Lab, PATIENCE, ask, lab};

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn service(namespace: &str, name: &str, ip: &str, ports: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports},
    })
}

fn slice(namespace: &str, name: &str, addresses: &[Ipv4Addr], ports: Value) -> Value {
    let endpoints: Vec<Value> = addresses.iter().map(|it| json!({"addresses": [it]})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": namespace, "name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": endpoints, "ports": ports,
    })
}

/// A name server that knows `example.org`; it counts what it is asked.
fn upstream(host: &Namespace) -> Arc<std::sync::atomic::AtomicUsize> {
    let socket = host.run(|| UdpSocket::bind("127.0.0.1:5399").unwrap()).unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1_500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            answer.queries.clone_from(&query.queries);
            let name = query.queries[0].name().clone();
            if name.to_lowercase().to_ascii() == "example.org." {
                answer.add_answer(Record::from_rdata(name, 300, RData::A(A::new(192, 0, 2, 80))));
            } else {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
        }
    });
    asked
}

/// The code and the addresses that `name` has for a client in `from`.
fn resolve(from: &Namespace, name: &str) -> (ResponseCode, Vec<String>) {
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let bytes = query.to_vec().unwrap();
    let answer = from
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(SocketAddrV4::new(DNS, 53)).unwrap();
            socket.send(&bytes).unwrap();
            let mut buffer = [0; 1_500];
            let length = socket.recv(&mut buffer).unwrap();
            Message::from_vec(&buffer[..length]).unwrap()
        })
        .unwrap();
    let records = answer.answers.iter().map(|it| it.data.to_string()).collect();
    (answer.metadata.response_code, records)
}

fn resolve_by_stream(from: &Namespace, name: &str) -> usize {
    use std::io::{Read, Write};
    let mut query = Message::new(78, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let bytes = query.to_vec().unwrap();
    from.run(|| {
        let mut stream = std::net::TcpStream::connect((DNS, 53)).unwrap();
        stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        Message::from_vec(&answer).unwrap().answers.len()
    })
    .unwrap()
}

fn start(lab: &Lab, api: &Api) -> (proxy::Handle, dns::Handle, skiff_base::Tasks) {
    let (informers, tasks) = api.informers();
    let config = proxy::Config { node_name: "node-1".into(), zone: None };
    let proxy = proxy::start(&informers, &lab.machine, config, &tasks).unwrap();
    let resolv_conf = lab.path("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 10.96.0.10\nnameserver 127.0.0.1#5399\n").unwrap();
    let place = lab.machine.config();
    let config = dns::Config {
        domain: "cluster.local".into(),
        reverse: vec![place.service_cidr, place.cluster_cidr],
        service_address: DNS,
        resolv_conf,
        port: 53,
    };
    let dns = dns::start(&informers, &lab.machine, config, &Clock::system(), &Random::system(), &tasks).unwrap();
    (proxy, dns, tasks)
}

#[test]
fn pods_find_services_by_name_and_reach_them() {
    lab(|lab| {
        let api = Api::default();
        let port = |protocol| json!({"name": protocol, "port": 53, "protocol": protocol});
        let both = json!([port("UDP"), port("TCP")]);
        api.put("namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
        api.put("services", service("kube-system", "kube-dns", "10.96.0.10", both.clone()));
        api.put("endpointslices", slice("kube-system", "kube-dns", &[lab.machine.config().address()], both));
        let (web, client) = (lab.pod("web", &[]), lab.pod("client", &[]));
        web.serve(8080);
        let asked = upstream(&lab.host);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (proxy, dns, tasks) = start(lab, &api);
            tokio::time::timeout(PATIENCE, async {
                proxy.synced().await;
                dns.synced().await;
            })
            .await
            .unwrap();
            let mut rounds = proxy.rounds();
            rounds.mark_unchanged();
            let name = "web.default.svc.cluster.local.";
            assert_eq!(resolve(&client.namespace, name), (ResponseCode::NXDomain, vec![]));

            api.put("services", service("default", "web", "10.96.0.50", json!([{"port": 80}])));
            api.put("endpointslices", slice("default", "web", &[web.address], json!([{"port": 8080}])));
            let reach = || ask(&client.namespace, (Ipv4Addr::new(10, 96, 0, 50), 80));
            eventually(&mut rounds, || reach() == Ok(format!("web {}", client.address))).await;
            assert_eq!(resolve(&client.namespace, name), (ResponseCode::NoError, vec!["10.96.0.50".into()]));
            assert_eq!(resolve(&client.namespace, "WEB.default.svc.Cluster.local.").0, ResponseCode::NoError);
            assert_eq!(resolve_by_stream(&client.namespace, name), 1);
            assert_eq!(resolve(lab.machine.namespace(), name).0, ResponseCode::NoError, "from the node itself");

            let outside = (ResponseCode::NoError, vec!["192.0.2.80".to_owned()]);
            assert_eq!(resolve(&client.namespace, "example.org."), outside);
            assert_eq!(resolve(&client.namespace, "Example.ORG."), outside);
            assert_eq!(resolve(&client.namespace, "nowhere.test.").0, ResponseCode::NXDomain);
            assert_eq!(asked.load(Ordering::SeqCst), 2, "the second answer was kept");
            api.put(
                "services",
                json!({
                    "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "out"},
                    "spec": {"type": "ExternalName", "externalName": "example.org"},
                }),
            );
            tokio::time::timeout(PATIENCE, async {
                while resolve(&client.namespace, "out.default.svc.cluster.local.").0 == ResponseCode::NXDomain {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap();
            let (_, records) = resolve(&client.namespace, "out.default.svc.cluster.local.");
            assert_eq!(records, ["example.org.", "192.0.2.80"]);

            api.delete("services", "default", "web");
            eventually(&mut rounds, || reach() == Err(std::io::ErrorKind::ConnectionRefused)).await;
            assert_eq!(resolve(&client.namespace, name).0, ResponseCode::NXDomain);
            println!("{:?}", dns.counters());
            tasks.stop().await;
        });
    });
}

#[test]
fn balancers_learn_whether_this_node_has_backends() {
    lab(|lab| {
        use std::io::{Read, Write};
        let api = Api::default();
        let mut balanced = service("default", "web", "10.96.0.50", json!([{"port": 80, "nodePort": 30080}]));
        let policy = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32001});
        balanced["spec"].as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
        api.put("services", balanced);
        let backends = |node: &str| {
            let mut slice = slice("default", "web", &[Ipv4Addr::new(10, 244, 0, 9)], json!([{"port": 8080}]));
            slice["endpoints"][0]["nodeName"] = json!(node);
            slice
        };
        api.put("endpointslices", backends("node-1"));
        let check = || {
            lab.host
                .run(|| {
                    let mut stream = std::net::TcpStream::connect("10.89.7.2:32001").ok()?;
                    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).ok()?;
                    let head = answer.lines().next()?.to_owned();
                    Some(format!("{head} {}", answer.lines().last()?))
                })
                .unwrap()
        };
        let said = |status: &str, count: usize| {
            let body = format!(r#"{{"service":{{"namespace":"default","name":"web"}},"localEndpoints":{count}}}"#);
            Some(format!("HTTP/1.1 {status} {body}"))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let (proxy, _dns, tasks) = start(lab, &api);
            tokio::time::timeout(PATIENCE, proxy.synced()).await.unwrap();
            let mut rounds = proxy.rounds();
            assert_eq!(check(), said("200 OK", 1));
            api.put("endpointslices", backends("node-2"));
            eventually(&mut rounds, || check() == said("503 Service Unavailable", 0)).await;
            api.delete("services", "default", "web");
            eventually(&mut rounds, || check().is_none()).await;
            tasks.stop().await;
        });
    });
}

/// Looks again after every round of the proxy.
async fn eventually(rounds: &mut tokio::sync::watch::Receiver<u64>, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            rounds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.expect("the proxy follows the API");
}

/// Figures for the notes; needs `dnsperf`.
#[test]
#[ignore = "prints figures"]
fn questions_per_second() {
    lab(|lab| {
        const SERVICES: u32 = 10_000;
        let api = Api::default();
        api.put("namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
        let mut questions = String::new();
        for index in 1..=SERVICES {
            let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 1, 0).to_bits() + index).to_string();
            api.put("services", service("default", &format!("web-{index}"), &ip, json!([{"port": 80}])));
            questions.push_str(&format!("web-{index}.default.svc.cluster.local A\n"));
        }
        std::fs::write(lab.path("questions"), questions).unwrap();
        let client = lab.pod("client", &[]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let begin = std::time::Instant::now();
            let (_proxy, dns, tasks) = start(lab, &api);
            dns.synced().await;
            println!("{SERVICES} Services after {:?}", begin.elapsed());
            let report = client.namespace.run(|| {
                std::process::Command::new("dnsperf")
                    .args(["-s", "10.89.7.2", "-c", "16", "-l", "5", "-d"])
                    .arg(lab.path("questions"))
                    .output()
            });
            match report.unwrap() {
                Ok(output) => println!("{}", String::from_utf8_lossy(&output.stdout)),
                Err(error) => eprintln!("skipped: dnsperf: {error}"),
            }
            println!("{:?}", dns.counters());
            tasks.stop().await;
        });
    });
}
