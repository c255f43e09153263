//! The cluster's names: what is known, and the answer to a question about it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use imbl::HashMap;

use crate::cidr::Cidr;
use crate::proxy::{Protocol, ServiceKey};

/// Seconds an answer may be kept: short, because resolvers in pods keep stale pods otherwise.
const TTL_SECONDS: u32 = 5;
/// Seconds the absence of a name may be kept.
const NEGATIVE_TTL_SECONDS: u32 = 5;
/// `dns-version`, the version of the specification.
const SPECIFICATION: &str = "1.1.0";

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty for a Service's only port.
    pub name: String,
    /// TCP, UDP (others have no names).
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// An endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headless {
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's hostname, when it chose one.
    pub hostname: Option<String>,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// What a Service's name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Its own addresses, and where its named pods are.
    Cluster {
        /// The cluster IPs.
        addresses: Vec<IpAddr>,
        /// The Service's ports.
        ports: Vec<Port>,
        /// Endpoints with a hostname, which have names of their own.
        named: Vec<Headless>,
    },
    /// The addresses of its pods.
    Headless(Vec<Headless>),
    /// Another name.
    External(Name),
}

/// Everything the cluster's names say at one moment. Copies share their content.
#[derive(Clone, Debug)]
pub struct Zone {
    domain: Name,
    labels: Arc<[String]>,
    reverse: Arc<[Cidr]>,
    name_server: Ipv4Addr,
    serial: u32,
    /// By `name.namespace`.
    services: HashMap<String, Arc<Service>>,
    namespaces: HashMap<String, ()>,
    /// Names of addresses, by address.
    pointers: HashMap<IpAddr, Arc<BTreeSet<String>>>,
}

/// The answer to one question. Owner names are the question's own, letter by letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `NoError` or `NXDomain`.
    pub code: ResponseCode,
    /// Records that answer.
    pub records: Vec<Record>,
    /// Addresses of the names in `records`.
    pub additional: Vec<Record>,
    /// The zone's start of authority, with an answer that has no records.
    pub authority: Option<Record>,
    /// The last record is an alias outside the zone: its target's records belong here too.
    pub chase: Option<Name>,
}

impl Zone {
    /// An empty zone for `domain` (`cluster.local`), also responsible for the reverse names of
    /// `reverse`. None when the domain is no name.
    pub fn new(domain: &str, reverse: &[Cidr], name_server: Ipv4Addr) -> Option<Self> {
        let mut name = Name::from_ascii(domain).ok()?.to_lowercase();
        name.set_fqdn(true);
        let labels = labels(&name);
        Some(Self {
            domain: name,
            labels: labels.into(),
            reverse: reverse.into(),
            name_server,
            serial: 1,
            services: HashMap::new(),
            namespaces: HashMap::new(),
            pointers: HashMap::new(),
        })
    }

    /// Adds or removes a namespace.
    pub fn set_namespace(&mut self, namespace: &str, present: bool) {
        if present {
            self.namespaces.insert(namespace.to_owned(), ());
        } else {
            self.namespaces.remove(namespace);
        }
        self.serial = self.serial.wrapping_add(1);
    }

    /// Adds, changes or (none) removes a Service.
    pub fn set_service(&mut self, key: &ServiceKey, service: Option<Service>) {
        let id = format!("{}.{}", key.name, key.namespace);
        if self.services.get(&id).map(|it| &**it) == service.as_ref() {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let old = match service {
            Some(service) => {
                let service = Arc::new(service);
                let old = self.services.insert(id.clone(), service.clone());
                self.unpoint(&id, old.as_deref());
                self.point(&id, &service);
                return;
            }
            None => self.services.remove(&id),
        };
        self.unpoint(&id, old.as_deref());
    }

    fn point(&mut self, id: &str, service: &Service) {
        for (address, name) in pointers(id, service) {
            let names = self.pointers.entry(address).or_default();
            Arc::make_mut(names).insert(name);
        }
    }

    fn unpoint(&mut self, id: &str, service: Option<&Service>) {
        for (address, name) in service.into_iter().flat_map(|it| pointers(id, it)) {
            let Some(names) = self.pointers.get_mut(&address) else { continue };
            Arc::make_mut(names).remove(&name);
            if names.is_empty() {
                self.pointers.remove(&address);
            }
        }
    }

    /// The answer to a question of class IN, or none when the name is not the cluster's.
    pub fn lookup(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let all = labels(name);
        if let Some(below) = all.strip_suffix(&*self.labels) {
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            return Some(self.forward(name, &below, kind));
        }
        let address = reverse_address(&all)?;
        let ours = matches!(address, IpAddr::V4(ip) if self.reverse.iter().any(|cidr| cidr.contains(ip)));
        (ours || self.pointers.contains_key(&address)).then(|| self.backward(name, address, kind))
    }

    /// `below` are the labels before the domain.
    fn forward(&self, name: &Name, below: &[&str], kind: RecordType) -> Answer {
        match below {
            [] => self.apex(name, kind),
            ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]));
                self.choose(name, kind, vec![text])
            }
            ["ns", "dns"] => self.choose(name, kind, vec![RData::A(A(self.name_server))]),
            ["dns" | "svc" | "pod"] => self.nothing(),
            [namespace, "svc" | "pod"] if self.namespaces.contains_key(*namespace) => self.nothing(),
            [pod, namespace, "pod"] if self.namespaces.contains_key(*namespace) => match dashed_address(pod) {
                Some(address) => self.choose(name, kind, vec![address_data(address)]),
                None => self.missing(),
            },
            [rest @ .., service, namespace, "svc"] => match self.services.get(&format!("{service}.{namespace}")) {
                Some(found) => self.service(name, rest, &format!("{service}.{namespace}"), found, kind),
                None => self.missing(),
            },
            _ => self.missing(),
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        let Ok(server) = self.name_below("ns.dns") else { return self.missing() };
        let mut answer = self.choose(name, kind, vec![self.authority().data, RData::NS(NS(server.clone()))]);
        if kind == RecordType::NS {
            answer.additional.push(record(server, RData::A(A(self.name_server))));
        }
        answer
    }

    fn service(&self, name: &Name, rest: &[&str], id: &str, service: &Service, kind: RecordType) -> Answer {
        match service {
            Service::External(target) if rest.is_empty() => self.alias(name, target, kind),
            Service::External(_) => self.missing(),
            Service::Cluster { addresses, ports, named } => match rest {
                [] if kind == RecordType::SRV => self.ports(name, id, ports.iter(), addresses),
                [] => self.choose(name, kind, addresses.iter().copied().map(address_data).collect()),
                [endpoint] => self.endpoint(name, endpoint, named, kind),
                [port, protocol] => {
                    let found: Vec<&Port> = ports.iter().filter(|it| is_port(it, port, protocol)).collect();
                    match kind {
                        _ if found.is_empty() => self.missing(),
                        RecordType::SRV => self.ports(name, id, found.into_iter(), addresses),
                        _ => self.choose(name, kind, addresses.iter().copied().map(address_data).collect()),
                    }
                }
                _ => self.missing(),
            },
            Service::Headless(endpoints) => match rest {
                // A headless Service without endpoints has no name (specification 2.4.1).
                [] if endpoints.is_empty() => self.missing(),
                [] if kind == RecordType::SRV => self.endpoint_ports(name, id, endpoints, |_| true),
                [] => self.choose(name, kind, endpoints.iter().map(|it| address_data(it.address)).collect()),
                [endpoint] => self.endpoint(name, endpoint, endpoints, kind),
                [port, protocol] => {
                    let has = |it: &&Headless| it.ports.iter().any(|it| is_port(it, port, protocol));
                    let found: Vec<Headless> = endpoints.iter().filter(has).cloned().collect();
                    match kind {
                        _ if found.is_empty() => self.missing(),
                        RecordType::SRV => self.endpoint_ports(name, id, &found, |it| is_port(it, port, protocol)),
                        _ => self.choose(name, kind, found.iter().map(|it| address_data(it.address)).collect()),
                    }
                }
                _ => self.missing(),
            },
        }
    }

    /// One pod of a Service by hostname or dashed address; `_tcp` and `_udp` are only in between.
    fn endpoint(&self, name: &Name, label: &str, endpoints: &[Headless], kind: RecordType) -> Answer {
        if matches!(label, "_tcp" | "_udp") {
            return self.nothing();
        }
        let found: Vec<RData> =
            endpoints.iter().filter(|it| endpoint_label(it) == label).map(|it| address_data(it.address)).collect();
        if found.is_empty() { self.missing() } else { self.choose(name, kind, found) }
    }

    fn ports<'a>(&self, name: &Name, id: &str, ports: impl Iterator<Item = &'a Port>, addresses: &[IpAddr]) -> Answer {
        let Ok(target) = self.name_below(&format!("{id}.svc")) else { return self.missing() };
        let records: Vec<RData> = ports.map(|port| RData::SRV(SRV::new(0, 100, port.number, target.clone()))).collect();
        let mut answer = self.choose(name, RecordType::SRV, records);
        answer.additional = addresses.iter().map(|it| record(target.clone(), address_data(*it))).collect();
        answer
    }

    fn endpoint_ports(&self, name: &Name, id: &str, endpoints: &[Headless], wanted: impl Fn(&Port) -> bool) -> Answer {
        let (mut records, mut additional) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let Ok(target) = self.name_below(&format!("{}.{id}.svc", endpoint_label(endpoint))) else { continue };
            for port in endpoint.ports.iter().filter(|it| wanted(it)) {
                records.push(RData::SRV(SRV::new(0, 100, port.number, target.clone())));
            }
            additional.push(record(target, address_data(endpoint.address)));
        }
        let mut answer = self.choose(name, RecordType::SRV, records);
        answer.additional = additional;
        answer
    }

    /// An alias, followed as long as it stays in the cluster.
    fn alias(&self, name: &Name, target: &Name, kind: RecordType) -> Answer {
        /// Longer chains are loops or mistakes.
        const ALIASES_MAX: usize = 8;
        let mut records = vec![record(name.clone(), RData::CNAME(CNAME(target.clone())))];
        if kind == RecordType::CNAME {
            return Answer { records, ..self.nothing_said() };
        }
        let mut target = target.clone();
        for _ in 0..ALIASES_MAX {
            let all = labels(&target);
            let Some([service, namespace, svc]) = all.strip_suffix(&*self.labels) else {
                let chase = (!all.ends_with(&self.labels)).then_some(target);
                return Answer { records, chase, ..self.nothing_said() };
            };
            let next = (svc == "svc").then(|| self.services.get(&format!("{service}.{namespace}"))).flatten();
            match next.map(|it| &**it) {
                Some(Service::External(next)) => {
                    records.push(record(target, RData::CNAME(CNAME(next.clone()))));
                    target = next.clone();
                }
                Some(found) => {
                    let id = format!("{service}.{namespace}");
                    let mut end = self.service(&target, &[], &id, found, kind);
                    end.records.splice(0..0, records);
                    return end;
                }
                None => return Answer { records, ..self.missing() },
            }
        }
        Answer { records, ..self.nothing_said() }
    }

    fn backward(&self, name: &Name, address: IpAddr, kind: RecordType) -> Answer {
        let Some(names) = self.pointers.get(&address) else { return self.missing() };
        let records = names.iter().filter_map(|it| Some(RData::PTR(PTR(self.name_below(it).ok()?)))).collect();
        self.choose(name, kind, records)
    }

    /// Those of `data` that the question asks for; no data when there are none.
    fn choose(&self, name: &Name, kind: RecordType, data: Vec<RData>) -> Answer {
        let wanted = |it: &RData| kind == RecordType::ANY || it.record_type() == kind;
        let records: Vec<Record> = data.into_iter().filter(wanted).map(|it| record(name.clone(), it)).collect();
        if records.is_empty() { self.nothing() } else { Answer { records, ..self.nothing_said() } }
    }

    fn nothing_said(&self) -> Answer {
        let (records, additional) = (Vec::new(), Vec::new());
        Answer { code: ResponseCode::NoError, records, additional, authority: None, chase: None }
    }

    /// The name exists, but not with this type.
    fn nothing(&self) -> Answer {
        Answer { authority: Some(self.authority()), ..self.nothing_said() }
    }

    /// The name does not exist.
    fn missing(&self) -> Answer {
        Answer { code: ResponseCode::NXDomain, ..self.nothing() }
    }

    fn authority(&self) -> Record {
        let server = self.name_below("ns.dns").unwrap_or_else(|_| self.domain.clone());
        let contact = self.name_below("hostmaster").unwrap_or_else(|_| self.domain.clone());
        let (refresh, retry, expire) = (7_200, 1_800, 86_400);
        let start = SOA::new(server, contact, self.serial, refresh, retry, expire, NEGATIVE_TTL_SECONDS);
        Record::from_rdata(self.domain.clone(), NEGATIVE_TTL_SECONDS, RData::SOA(start))
    }

    fn name_below(&self, below: &str) -> Result<Name, hickory_proto::ProtoError> {
        Name::from_ascii(below)?.append_domain(&self.domain)
    }
}

fn record(name: Name, data: RData) -> Record {
    Record::from_rdata(name, TTL_SECONDS, data)
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// `_http._tcp` names a port; a Service's only port may have no name.
fn is_port(port: &Port, name: &str, protocol: &str) -> bool {
    let protocol_fits = match port.protocol {
        Protocol::Tcp => protocol == "_tcp",
        Protocol::Udp => protocol == "_udp",
    };
    protocol_fits && !port.name.is_empty() && name.strip_prefix('_') == Some(&port.name)
}

/// The name of an endpoint below its Service.
fn endpoint_label(endpoint: &Headless) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace(['.', ':'], "-"))
}

/// `10-244-0-5` is the pod with this address, whether or not there is one (as upstream's
/// `pods insecure`).
fn dashed_address(label: &str) -> Option<IpAddr> {
    let dotted: Option<Ipv4Addr> = label.replace('-', ".").parse().ok();
    dotted.map(IpAddr::V4).or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}

/// The address a reverse name is about.
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    let [d, c, b, a, "in-addr", "arpa"] = labels.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        return None;
    };
    format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// The reverse names a Service gives: its own addresses, and pods that chose a hostname.
fn pointers(id: &str, service: &Service) -> Vec<(IpAddr, String)> {
    let named = |endpoints: &[Headless]| -> Vec<(IpAddr, String)> {
        let of = |it: &Headless| Some((it.address, format!("{}.{id}.svc", it.hostname.as_ref()?)));
        endpoints.iter().filter_map(of).collect()
    };
    match service {
        Service::Cluster { addresses, named: endpoints, .. } => {
            let mut all: Vec<_> = addresses.iter().map(|it| (*it, format!("{id}.svc"))).collect();
            all.extend(named(endpoints));
            all
        }
        Service::Headless(endpoints) => named(endpoints),
        Service::External(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
