//! What the kernel has, and the smallest change to what it should have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use super::program::{self, Chain, Elements, HAIRPIN};
use super::{Compiled, Frontend, Node, Protocol, ServiceKey, Vip};
use crate::error::Result;
use crate::namespace::Namespace;
use crate::netlink::conntrack::Conntrack;
use crate::netlink::nft::{Batch, Element, Tables, Value, Verdict};

/// The proxy's table in the machine's namespace.
const TABLE: &str = "skiff-services";

/// Chains without users that are kept. Making and removing one makes the kernel wait for all
/// packets under way, and Services that scale between few and no backends use the same again.
const IDLE_CHAINS_MAX: usize = 64;

/// The Services of one machine in its kernel.
#[derive(Debug)]
pub struct Table {
    node: Node,
    wanted: Wanted,
    installed: BTreeMap<Vip, Arc<Frontend>>,
    /// The chains that are there, and how many frontends use each.
    chains: BTreeMap<Chain, usize>,
    hairpins: BTreeMap<Ipv4Addr, usize>,
    /// The kernel is not known to match `installed`: write everything.
    dirty: bool,
    tables: Tables,
    conntrack: Conntrack,
}

/// Every Service's wishes. When two want the same address and port, the first by name has it.
#[derive(Debug, Default)]
struct Wanted {
    vips: HashMap<ServiceKey, Vec<Vip>>,
    claims: BTreeMap<Vip, BTreeMap<ServiceKey, Arc<Frontend>>>,
}

impl Wanted {
    /// Replaces a Service's wishes and tells which addresses may lead elsewhere now.
    fn set(&mut self, service: ServiceKey, compiled: Compiled) -> BTreeSet<Vip> {
        let mut touched: BTreeSet<Vip> = self.vips.remove(&service).into_iter().flatten().collect();
        touched.retain(|vip| !compiled.frontends.contains_key(vip));
        for vip in &touched {
            if let Some(claims) = self.claims.get_mut(vip) {
                claims.remove(&service);
                if claims.is_empty() {
                    self.claims.remove(vip);
                }
            }
        }
        if !compiled.frontends.is_empty() {
            self.vips.insert(service.clone(), compiled.frontends.keys().copied().collect());
        }
        for (vip, frontend) in compiled.frontends {
            let claims = self.claims.entry(vip).or_default();
            if claims.get(&service).is_some_and(|known| **known == frontend) {
                continue;
            }
            claims.insert(service.clone(), Arc::new(frontend));
            touched.insert(vip);
        }
        touched
    }

    fn effective(&self, vip: Vip) -> Option<&Arc<Frontend>> {
        self.claims.get(&vip)?.values().next()
    }
}

impl Table {
    /// Connects to the kernel in `namespace`. Nothing is written before the first
    /// [`Table::apply`], which replaces whatever an earlier process left.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn open(namespace: &Namespace, node: Node) -> Result<Self> {
        let (tables, conntrack) = namespace.run(|| Ok((Tables::open()?, Conntrack::open()?)))??;
        Ok(Self {
            node,
            wanted: Wanted::default(),
            installed: BTreeMap::new(),
            chains: BTreeMap::new(),
            hairpins: BTreeMap::new(),
            dirty: true,
            tables,
            conntrack,
        })
    }

    /// Takes changed Services (deleted ones come without frontends) and brings the kernel to the
    /// new state in one batch. After an error the next call writes everything anew.
    ///
    /// # Errors
    /// When the kernel refuses the batch; the earlier state stays in force then.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = (ServiceKey, Compiled)>) -> Result<()> {
        let mut touched = BTreeSet::new();
        for (service, compiled) in changes {
            touched.extend(self.wanted.set(service, compiled));
        }
        let datagrams = if self.dirty {
            self.write_all()?;
            self.installed.keys().copied().filter(|vip| vip.protocol == Protocol::Udp).collect()
        } else {
            self.write_changes(&touched)?
        };
        self.forget_datagrams(&datagrams)
    }

    /// Removes the table.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self) -> Result<()> {
        self.dirty = true;
        self.tables.delete(TABLE)
    }

    /// How many addresses and ports are served.
    pub fn len(&self) -> usize {
        self.installed.len()
    }

    /// Whether none is served.
    pub fn is_empty(&self) -> bool {
        self.installed.is_empty()
    }

    /// What the kernel holds, one line an element, sorted; for people (`nft list` cannot read
    /// parts of it).
    ///
    /// # Errors
    /// When there is no table or the kernel refuses.
    pub fn dump(&mut self) -> Result<String> {
        let mut lines = Vec::new();
        let kinds = self.tables.elements(TABLE, program::KINDS)?;
        for set in [
            program::SERVICES,
            program::INSIDE,
            program::ENDPOINTS,
            program::AFFINITY,
            program::PINNED,
            program::HAIRPIN,
        ] {
            let elements = self.tables.elements(TABLE, set)?;
            lines.extend(elements.iter().map(|element| format!("{set} {}", describe(set, element, &kinds))));
        }
        lines.sort();
        Ok(lines.join("\n"))
    }

    fn write_all(&mut self) -> Result<()> {
        let wanted: BTreeMap<Vip, Arc<Frontend>> = self
            .wanted
            .claims
            .iter()
            .filter_map(|(vip, claims)| Some((*vip, claims.values().next()?.clone())))
            .collect();
        let mut chains = BTreeMap::new();
        let mut hairpins = BTreeMap::new();
        let mut elements: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        for (vip, frontend) in &wanted {
            for chain in chains_of(*vip, frontend) {
                *chains.entry(chain).or_default() += 1;
            }
            for pod in self.local_pods(frontend) {
                *hairpins.entry(pod).or_default() += 1;
            }
            for (set, element) in Elements::of(*vip, frontend).0 {
                elements.entry(set).or_default().push(element);
            }
        }
        let mut batch = Batch::new(TABLE);
        let affinity = self.remembered_clients()?;
        program::write_frame(&mut batch, &self.node);
        for chain in chains.keys() {
            chain.write(&mut batch, &self.node);
        }
        for (set, elements) in elements {
            batch.elements(set, elements);
        }
        batch.elements(HAIRPIN, hairpins.keys().map(|pod| program::hairpin(*pod)));
        batch.elements(program::AFFINITY, affinity);
        self.tables.commit(batch)?;
        (self.installed, self.chains, self.hairpins, self.dirty) = (wanted, chains, hairpins, false);
        Ok(())
    }

    /// The clients an earlier table remembers; entries that name former backends do no harm.
    fn remembered_clients(&mut self) -> Result<Vec<Element>> {
        match self.tables.elements(TABLE, program::AFFINITY) {
            Err(error) if error.kernel() == Some(nix::errno::Errno::ENOENT) => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(mut elements) => {
                elements.retain(|it| it.life.is_some_and(|life| life.remaining_ms > 0));
                Ok(elements)
            }
        }
    }

    /// Gives the datagram frontends that lead elsewhere now.
    fn write_changes(&mut self, touched: &BTreeSet<Vip>) -> Result<BTreeSet<Vip>> {
        let mut chains = Counts::new(&mut self.chains);
        let mut pods: BTreeMap<Ipv4Addr, isize> = BTreeMap::new();
        let mut removed: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        let mut added: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        let mut changed = Vec::new();
        for vip in touched {
            let old = self.installed.get(vip);
            let new = self.wanted.effective(*vip);
            if old == new {
                continue;
            }
            changed.push((*vip, new.cloned()));
            for chain in new.iter().flat_map(|it| chains_of(*vip, it)) {
                chains.count(chain, 1);
            }
            for chain in old.iter().flat_map(|it| chains_of(*vip, it)) {
                chains.count(chain, -1);
            }
            for pod in new.iter().flat_map(|it| local_pods(&self.node, it)) {
                *pods.entry(pod).or_default() += 1;
            }
            for pod in old.iter().flat_map(|it| local_pods(&self.node, it)) {
                *pods.entry(pod).or_default() -= 1;
            }
            difference(*vip, old, new, &mut removed, &mut added);
        }
        let (new_chains, old_chains) = chains.changes();
        let mut batch = Batch::new(TABLE);
        for (set, elements) in removed {
            batch.delete_elements(set, elements);
        }
        for chain in &new_chains {
            chain.write(&mut batch, &self.node);
        }
        for (set, elements) in added {
            batch.elements(set, elements);
        }
        for chain in &old_chains {
            batch.delete_elements(program::KINDS, [chain.element()]);
            batch.delete_chain(&chain.name());
        }
        for (pod, change) in pods {
            let count = self.hairpins.entry(pod).or_default();
            let before = *count;
            *count = count.saturating_add_signed(change);
            match (before, *count) {
                (0, 0) => drop(self.hairpins.remove(&pod)),
                (0, _) => batch.elements(HAIRPIN, [program::hairpin(pod)]),
                (_, 0) => {
                    batch.delete_elements(HAIRPIN, [program::hairpin(pod)]);
                    self.hairpins.remove(&pod);
                }
                _ => {}
            }
        }
        // Counts are ahead of the kernel from here on until the batch is in.
        self.dirty = true;
        self.tables.commit(batch)?;
        self.dirty = false;
        let datagrams = changed.iter().filter(|(vip, new)| self.strands_datagrams(*vip, new.as_deref()));
        let datagrams = datagrams.map(|(vip, _)| *vip).collect();
        for (vip, frontend) in changed {
            match frontend {
                Some(frontend) => self.installed.insert(vip, frontend),
                None => self.installed.remove(&vip),
            };
        }
        Ok(datagrams)
    }

    /// A UDP client keeps its translation for as long as it talks. Whoever talks to a backend
    /// that is none (or to an address that had none) must be looked up again.
    fn forget_datagrams(&mut self, vips: &BTreeSet<Vip>) -> Result<()> {
        if vips.is_empty() {
            return Ok(());
        }
        let (installed, node) = (&self.installed, &self.node);
        let forgotten = self.conntrack.forget(Protocol::Udp.number(), |connection| {
            let asked = connection.original.destination;
            let vip = Vip::new(*asked.ip(), Protocol::Udp, asked.port());
            let of_node = *asked.ip() == node.address || asked.ip().is_loopback();
            let port = Vip::node_port(Protocol::Udp, asked.port());
            let vip = if vips.contains(&vip) {
                vip
            } else if of_node && vips.contains(&port) {
                port
            } else {
                return false;
            };
            installed.get(&vip).is_none_or(|frontend| !leads_to(frontend, connection.reply.source))
        })?;
        if forgotten > 0 {
            tracing::debug!(connections = forgotten, "forgot datagram connections to former backends");
        }
        Ok(())
    }

    /// Whether a change can leave clients with a backend that is none, or with none.
    fn strands_datagrams(&self, vip: Vip, new: Option<&Frontend>) -> bool {
        if vip.protocol != Protocol::Udp {
            return false;
        }
        let (Some(old), Some(new)) = (self.installed.get(&vip), new) else { return true };
        let kept = |backend: &SocketAddrV4| leads_to(new, *backend);
        old.backends.is_empty() || !old.backends.iter().chain(old.inside.iter().flatten()).all(kept)
    }

    fn local_pods(&self, frontend: &Frontend) -> BTreeSet<Ipv4Addr> {
        local_pods(&self.node, frontend)
    }
}

fn leads_to(frontend: &Frontend, backend: SocketAddrV4) -> bool {
    frontend.backends.contains(&backend) || frontend.inside.iter().flatten().any(|it| *it == backend)
}

fn local_pods(node: &Node, frontend: &Frontend) -> BTreeSet<Ipv4Addr> {
    let all = frontend.backends.iter().chain(frontend.inside.iter().flatten());
    all.map(|backend| *backend.ip()).filter(|ip| node.pod_cidr.contains(*ip)).collect()
}

fn chains_of(vip: Vip, frontend: &Frontend) -> impl Iterator<Item = Chain> {
    let all = [Some(Chain::of(vip, frontend)), Chain::of_inside(vip, frontend)];
    all.into_iter().flatten().filter(|chain| !chain.is_fixed())
}

/// The elements to remove and to add. A map's element cannot be changed: it is removed and added.
fn difference(
    vip: Vip,
    old: Option<&Arc<Frontend>>,
    new: Option<&Arc<Frontend>>,
    removed: &mut BTreeMap<&'static str, Vec<Element>>,
    added: &mut BTreeMap<&'static str, Vec<Element>>,
) {
    let elements = |frontend: Option<&Arc<Frontend>>| frontend.map(|it| Elements::of(vip, it)).unwrap_or_default().0;
    let index = |elements: Vec<(&'static str, Element)>| -> BTreeMap<(&'static str, Vec<u8>), Value> {
        elements.into_iter().map(|(set, element)| ((set, element.key), element.value)).collect()
    };
    let (old, new) = (index(elements(old)), index(elements(new)));
    for ((set, key), value) in &old {
        if new.get(&(*set, key.clone())) != Some(value) {
            removed.entry(set).or_default().push(Element::new(key.clone(), Value::None));
        }
    }
    for ((set, key), value) in new {
        if old.get(&(set, key.clone())) != Some(&value) {
            added.entry(set).or_default().push(Element::new(key, value));
        }
    }
}

/// Reference counts that remember which chains are new.
struct Counts<'a> {
    counts: &'a mut BTreeMap<Chain, usize>,
    new: BTreeSet<Chain>,
}

impl<'a> Counts<'a> {
    fn new(counts: &'a mut BTreeMap<Chain, usize>) -> Self {
        Self { counts, new: BTreeSet::new() }
    }

    fn count(&mut self, chain: Chain, change: isize) {
        let count = self.counts.entry(chain).or_insert_with(|| {
            self.new.insert(chain);
            0
        });
        *count = count.saturating_add_signed(change);
    }

    /// The chains to make, and those to remove.
    fn changes(self) -> (BTreeSet<Chain>, Vec<Chain>) {
        let idle: Vec<Chain> = self.counts.iter().filter(|(_, count)| **count == 0).map(|(chain, _)| *chain).collect();
        let old = if idle.len() > IDLE_CHAINS_MAX { idle } else { Vec::new() };
        self.counts.retain(|chain, _| !old.contains(chain));
        (self.new, old)
    }
}

fn describe(set: &str, element: &Element, kinds: &[Element]) -> String {
    let field = |bytes: &[u8], index: usize| -> [u8; 4] {
        bytes.get(index * 4..index * 4 + 4).and_then(|it| it.try_into().ok()).unwrap_or_default()
    };
    let ip = |bytes: &[u8], index| Ipv4Addr::from(field(bytes, index));
    let port = |bytes: &[u8], index| u16::from_be_bytes([field(bytes, index)[0], field(bytes, index)[1]]);
    let vip = |bytes: &[u8], index: usize| {
        let protocol = if field(bytes, index + 1)[0] == Protocol::Udp.number() { Protocol::Udp } else { Protocol::Tcp };
        Vip::new(ip(bytes, index), protocol, port(bytes, index + 2)).to_string()
    };
    let key = &element.key;
    let key = match set {
        program::ENDPOINTS => format!("{} {}", vip(key, 0), u32::from_ne_bytes(field(key, 3))),
        program::AFFINITY => format!("{} at {}", ip(key, 0), vip(key, 1)),
        program::PINNED => format!("{} {}:{}", vip(key, 0), ip(key, 3), port(key, 4)),
        program::HAIRPIN => ip(key, 0).to_string(),
        _ => vip(key, 0),
    };
    match &element.value {
        Value::None => key,
        Value::Bytes(bytes) if matches!(set, program::SERVICES | program::INSIDE) => {
            let chain = kinds.iter().find(|kind| kind.key == *bytes).map(|kind| &kind.value);
            match chain {
                Some(Value::Verdict(Verdict::Goto(chain))) => format!("{key} -> {chain}"),
                _ => format!("{key} -> an unknown kind"),
            }
        }
        Value::Bytes(bytes) => format!("{key} -> {}:{}", ip(bytes, 0), port(bytes, 1)),
        Value::Verdict(verdict) => format!("{key} -> {verdict:?}"),
    }
}
