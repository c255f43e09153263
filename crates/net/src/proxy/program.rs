//! The shape of the proxy's nftables table: its sets, its fixed chains, and the chains that
//! frontends share.
//!
//! | object | key → value | purpose |
//! |---|---|---|
//! | map `services` | address . protocol . port → kind | how it is answered |
//! | map `inside` | the same | how clients on this node are answered instead |
//! | map `kinds` | kind → goto chain | the chain of the kind |
//! | map `endpoints` | address . protocol . port . index → address . port | the backends |
//! | map `affinity` | client . address . protocol . port → address . port | who answered last |
//! | set `pinned` | address . protocol . port . address . port | backends an `affinity` may name |
//! | set `hairpin` | pod . pod | local backends, which may reach themselves |
//!
//! Services do not map to chains directly: each element with a verdict makes the kernel walk all
//! elements to look for loops (14 ms at 45,000 Services instead of 0.1 ms).
//!
//! A node port's address is 0.0.0.0. A chain exists once per [`Chain`], not per Service. Stale
//! affinity needs no cleaning: an entry counts only while `pinned` has its backend.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::compile::BACKENDS_MAX;
use super::{Empty, Frontend, Masquerade, Node, Vip};
use crate::netlink::nft::{Batch, Data, Dynamic, Element, Fields, Hook, Rule, Set, Value, Verdict, kind};

pub(super) const SERVICES: &str = "services";
pub(super) const INSIDE: &str = "inside";
pub(super) const KINDS: &str = "kinds";
pub(super) const ENDPOINTS: &str = "endpoints";
pub(super) const AFFINITY: &str = "affinity";
pub(super) const PINNED: &str = "pinned";
pub(super) const HAIRPIN: &str = "hairpin";

/// The bit kube-proxy uses for "replace the source address".
const MARK_MASQUERADE: u32 = 0x4000;
const DESTINATION_NAT_PRIORITY: i32 = -100;
const SOURCE_NAT_PRIORITY: i32 = 100;
/// Clients times Services with affinity that are remembered; then new clients are not pinned.
const AFFINITIES_MAX: u32 = 262_144;
/// Indices of the backends for clients inside the node start here.
const INSIDE_OFFSET: u32 = BACKENDS_MAX as u32;

/// Registers of the endpoint key; the client's address lies just before it.
const CLIENT: u32 = 11;
const KEY: u32 = 12;
const INDEX: u32 = 15;
/// Where the lookup of a Service puts its kind, two registers.
const FOUND_KIND: u32 = 8;
/// Where lookups put address and port.
const BACKEND: u32 = 9;
/// Right after the key, so that key and remembered backend form the key of `pinned`.
const REMEMBERED: u32 = 15;

/// What a chain does; frontends that agree in this share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Chain {
    /// Says no.
    Reject,
    /// Says nothing.
    Drop,
    /// Chooses a backend.
    Balance { node_port: bool, inside: bool, masquerade: Masquerade, backends: u32, affinity_seconds: Option<u32> },
}

impl Chain {
    /// Where clients of `frontend` at `vip` go.
    pub(super) fn of(vip: Vip, frontend: &Frontend) -> Self {
        if frontend.backends.is_empty() {
            return match frontend.empty {
                Empty::Reject => Self::Reject,
                Empty::Drop => Self::Drop,
            };
        }
        Self::balance(vip, frontend, &frontend.backends, false)
    }

    /// Where clients inside the node go instead.
    pub(super) fn of_inside(vip: Vip, frontend: &Frontend) -> Option<Self> {
        let inside = frontend.inside.as_ref()?;
        Some(if inside.is_empty() { Self::Reject } else { Self::balance(vip, frontend, inside, true) })
    }

    fn balance(vip: Vip, frontend: &Frontend, backends: &[SocketAddrV4], inside: bool) -> Self {
        Self::Balance {
            node_port: vip.is_node_port(),
            inside,
            masquerade: frontend.masquerade,
            backends: backends.len() as u32,
            affinity_seconds: frontend.affinity_seconds,
        }
    }

    /// Its key in [`KINDS`]: shape and number of backends, then the affinity's seconds.
    pub(super) fn kind(self) -> Vec<u8> {
        let (shape, seconds) = match self {
            Self::Reject => (1, 0),
            Self::Drop => (2, 0),
            Self::Balance { node_port, inside, masquerade, backends, affinity_seconds } => {
                let flags = u32::from(node_port) << 28 | u32::from(inside) << 29 | (masquerade as u32 + 1) << 30;
                (flags | backends, affinity_seconds.unwrap_or(0))
            }
        };
        Fields::new().index(shape).index(seconds).end()
    }

    /// The element of [`KINDS`] that leads to it.
    pub(super) fn element(self) -> Element {
        Element::new(self.kind(), Value::Verdict(Verdict::Goto(self.name())))
    }

    /// Whether it is written with the table and stays.
    pub(super) fn is_fixed(self) -> bool {
        !matches!(self, Self::Balance { .. })
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Reject => "reject".to_owned(),
            Self::Drop => "drop".to_owned(),
            Self::Balance { node_port, inside, masquerade, backends, affinity_seconds } => {
                let place = if node_port { "port" } else { "address" };
                let side = if inside { "-inside" } else { "" };
                let source = match masquerade {
                    Masquerade::Outsiders => "",
                    Masquerade::Always => "-masquerade",
                    Masquerade::Never => "-keep",
                };
                let affinity = affinity_seconds.map(|seconds| format!("-{seconds}s")).unwrap_or_default();
                format!("{place}{side}{source}{affinity}-{backends}")
            }
        }
    }

    /// Writes the chain with its rules and the way to it.
    pub(super) fn write(self, batch: &mut Batch, node: &Node) {
        let name = self.name();
        batch.chain(&name);
        batch.elements(KINDS, [self.element()]);
        let Self::Balance { node_port, inside, masquerade, backends, affinity_seconds } = self else {
            return write_refusal(self, batch);
        };
        match masquerade {
            Masquerade::Never => {}
            Masquerade::Always => batch.rule(&name, |rule| {
                rule.set_mark(MARK_MASQUERADE);
            }),
            Masquerade::Outsiders => batch.rule(&name, |rule| {
                rule.source_not_in(node.cluster_cidr).set_mark(MARK_MASQUERADE);
            }),
        }
        let offset = if inside { INSIDE_OFFSET } else { 0 };
        let Some(seconds) = affinity_seconds else {
            batch.rule(&name, |rule| {
                choose(load_key(rule, node_port), backends, offset).dnat(BACKEND, BACKEND + 1);
            });
            return;
        };
        let timeout_ms = u64::from(seconds) * 1_000;
        batch.rule(&name, |rule| {
            load_key(rule.source(CLIENT), node_port)
                .lookup_map(AFFINITY, CLIENT, REMEMBERED)
                .lookup(PINNED, KEY)
                .remember(AFFINITY, CLIENT, REMEMBERED, timeout_ms)
                .dnat(REMEMBERED, REMEMBERED + 1);
        });
        batch.rule(&name, |rule| {
            // Remembering does not change the value of a key that is there: forget it first.
            choose(load_key(rule.source(CLIENT), node_port), backends, offset)
                .forget(AFFINITY, CLIENT, BACKEND)
                .remember(AFFINITY, CLIENT, BACKEND, timeout_ms)
                .dnat(BACKEND, BACKEND + 1);
        });
    }
}

fn load_key<'a, 'b>(rule: &'a mut Rule<'b>, node_port: bool) -> &'a mut Rule<'b> {
    let rule = if node_port { rule.immediate([0; 4], KEY) } else { rule.destination(KEY) };
    rule.l4_protocol(KEY + 1).destination_port(KEY + 2)
}

fn choose<'a, 'b>(rule: &'a mut Rule<'b>, backends: u32, offset: u32) -> &'a mut Rule<'b> {
    let rule = match backends {
        1 => rule.immediate(offset.to_ne_bytes(), INDEX),
        _ => rule.random(backends, offset, INDEX),
    };
    rule.lookup_map(ENDPOINTS, KEY, BACKEND)
}

fn write_refusal(chain: Chain, batch: &mut Batch) {
    let name = chain.name();
    if chain == Chain::Drop {
        return batch.rule(&name, |rule| {
            rule.verdict(&Verdict::Drop);
        });
    }
    batch.rule(&name, |rule| {
        rule.protocol_is(libc::IPPROTO_TCP as u8).reset();
    });
    batch.rule(&name, |rule| {
        rule.reject();
    });
}

/// Starts the table anew: sets and fixed chains, no Services yet.
pub(super) fn write_frame(batch: &mut Batch, node: &Node) {
    batch.replace_table();
    let vip = [kind::IPV4, kind::PROTOCOL, kind::PORT];
    let backend = [kind::IPV4, kind::PORT];
    let chain = [kind::MARK, kind::MARK];
    let services = |name| Set { name, key: &vip, data: Data::Fields(&chain), dynamic: None };
    batch.set(&services(SERVICES));
    batch.set(&services(INSIDE));
    batch.set(&Set { name: KINDS, key: &chain, data: Data::Verdict, dynamic: None });
    let indexed = [kind::IPV4, kind::PROTOCOL, kind::PORT, kind::MARK];
    batch.set(&Set { name: ENDPOINTS, key: &indexed, data: Data::Fields(&backend), dynamic: None });
    let client = [kind::IPV4, kind::IPV4, kind::PROTOCOL, kind::PORT];
    let dynamic = Some(Dynamic { size_max: AFFINITIES_MAX });
    batch.set(&Set { name: AFFINITY, key: &client, data: Data::Fields(&backend), dynamic });
    let pinned = [kind::IPV4, kind::PROTOCOL, kind::PORT, kind::IPV4, kind::PORT];
    batch.set(&Set { name: PINNED, key: &pinned, data: Data::None, dynamic: None });
    batch.set(&Set { name: HAIRPIN, key: &[kind::IPV4, kind::IPV4], data: Data::None, dynamic: None });

    for chain in [Chain::Reject, Chain::Drop] {
        chain.write(batch, node);
    }
    write_dispatch(batch, "from-inside", INSIDE);
    write_dispatch(batch, "to-services", SERVICES);
    for (hook, name) in [(Hook::Prerouting, "prerouting"), (Hook::Output, "output")] {
        write_entry(batch, node, hook, name);
    }
    batch.base_chain("postrouting", "nat", Hook::Postrouting, SOURCE_NAT_PRIORITY);
    batch.rule("postrouting", |rule| {
        rule.marked(MARK_MASQUERADE).masquerade();
    });
    batch.rule("postrouting", |rule| {
        rule.source(KEY).destination(KEY + 1).lookup(HAIRPIN, KEY).masquerade();
    });
}

/// The two chains that packets enter at `hook`.
///
/// The second one is for a packet that meets a commit half-way: the kernel picks rules by the
/// generation at which the packet entered a base chain, but elements by the current one, so it
/// may be led to a chain that is still empty for it, or to a backend's index that is no more.
/// Untranslated it would be lost for good (its connection would be tracked as it is). A second
/// base chain looks again with the new generation; translated packets do not reach it.
fn write_entry(batch: &mut Batch, node: &Node, hook: Hook, name: &str) {
    let again = format!("{name}-again");
    for (chain, priority) in [(name, DESTINATION_NAT_PRIORITY), (&*again, DESTINATION_NAT_PRIORITY + 1)] {
        batch.base_chain(chain, "nat", hook, priority);
        batch.rule(chain, |rule| {
            if hook == Hook::Prerouting {
                rule.source_in(node.cluster_cidr);
            }
            rule.verdict(&Verdict::Jump("from-inside".into()));
        });
        batch.rule(chain, |rule| {
            rule.verdict(&Verdict::Jump("to-services".into()));
        });
    }
    batch.rule(&again, |rule| {
        rule.destination_in(node.service_cidr).verdict(&Verdict::Goto("reject".into()));
    });
}

/// A chain that looks an address up, then a port of the node.
fn write_dispatch(batch: &mut Batch, chain: &str, map: &str) {
    batch.chain(chain);
    for node_port in [false, true] {
        batch.rule(chain, |rule| {
            if node_port {
                rule.destination_is_local();
            }
            load_key(rule, node_port).lookup_map(map, KEY, FOUND_KIND).lookup_verdict(KINDS, FOUND_KIND);
        });
    }
}

/// The elements of a frontend, except those of [`HAIRPIN`].
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Elements(pub(super) Vec<(&'static str, Element)>);

impl Elements {
    /// Of `frontend` at `vip`.
    pub(super) fn of(vip: Vip, frontend: &Frontend) -> Self {
        let mut elements = Self::default();
        elements.push(SERVICES, key(vip).end(), Value::Bytes(Chain::of(vip, frontend).kind()));
        elements.push_backends(vip, &frontend.backends, 0);
        if let (Some(chain), Some(inside)) = (Chain::of_inside(vip, frontend), &frontend.inside) {
            elements.push(INSIDE, key(vip).end(), Value::Bytes(chain.kind()));
            elements.push_backends(vip, inside, INSIDE_OFFSET);
        }
        if frontend.affinity_seconds.is_some() {
            let inside = frontend.inside.iter().flatten();
            let all: BTreeSet<&SocketAddrV4> = frontend.backends.iter().chain(inside).collect();
            for backend in all {
                let key = key(vip).address(*backend.ip()).port(backend.port()).end();
                elements.push(PINNED, key, Value::None);
            }
        }
        elements
    }

    fn push(&mut self, set: &'static str, key: Vec<u8>, value: Value) {
        self.0.push((set, Element::new(key, value)));
    }

    fn push_backends(&mut self, vip: Vip, backends: &[SocketAddrV4], offset: u32) {
        for (index, backend) in backends.iter().enumerate() {
            let value = Fields::new().address(*backend.ip()).port(backend.port()).end();
            self.push(ENDPOINTS, key(vip).index(offset + index as u32).end(), Value::Bytes(value));
        }
    }
}

fn key(vip: Vip) -> Fields {
    Fields::new().address(vip.address).protocol(vip.protocol.number()).port(vip.port)
}

/// The element that lets a local backend reach itself.
pub(super) fn hairpin(pod: Ipv4Addr) -> Element {
    Element::new(Fields::new().address(pod).address(pod).end(), Value::None)
}
