//! nf_tables: atomic batches of tables, chains, rules, sets and maps of the `ip` family.
//!
//! Only the expressions that Skiff uses are here, each one function on [`Rule`]. Registers are
//! the kernel's 32-bit registers 8 to 23; a concatenated key lies in consecutive registers, one
//! per field, whatever the field's width.

mod rule;

use std::net::Ipv4Addr;

pub(crate) use self::rule::Rule;
use super::socket::outcome;
use super::{Attributes, Message, Protocol, Socket, text, u32_be};
use crate::error::{Cause, NetError, Result};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DEL_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;
const DEL_ELEMENT: u16 = SUBSYSTEM | 14;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
/// Lengths of nests are 16 bits: this many of the largest elements (about 100 bytes) fit well.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Key and data types as `nft list` names them; a concatenation packs six bits per field.
pub(crate) mod kind {
    pub(crate) const IPV4: u32 = 7;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const PORT: u32 = 13;
    /// The index into an endpoint table. `integer` would crash `nft list` 1.0.6.
    pub(crate) const MARK: u32 = 19;
    pub(crate) const VERDICT: u32 = 0xffff_ff00;

    /// The type of a concatenation of fields.
    pub(crate) const fn concat(fields: &[u32]) -> u32 {
        let mut kind = 0;
        let mut index = 0;
        while index < fields.len() {
            kind = (kind << 6) | fields[index];
            index += 1;
        }
        kind
    }
}

/// Where a base chain sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Goto(String),
    Jump(String),
}

/// A set or a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a [u32],
    pub(crate) data: Data<'a>,
    /// Elements come from packets and expire.
    pub(crate) dynamic: Option<Dynamic>,
}

/// What a map maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data<'a> {
    /// It is a set.
    None,
    Verdict,
    Fields(&'a [u32]),
}

/// A set that packets fill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dynamic {
    pub(crate) size_max: u32,
}

/// One element: key bytes (four per field) and what they map to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Value,
    /// Of elements of dynamic sets.
    pub(crate) life: Option<Life>,
}

/// How long an element stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// From its last refresh.
    pub(crate) timeout_ms: u64,
    /// From now.
    pub(crate) remaining_ms: u64,
}

impl Element {
    /// An element that stays.
    pub(crate) fn new(key: Vec<u8>, value: Value) -> Self {
        Self { key, value, life: None }
    }
}

/// What an element maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    None,
    Verdict(Verdict),
    Bytes(Vec<u8>),
}

/// Changes to one table that take effect together or not at all.
pub(crate) struct Batch {
    table: String,
    messages: Vec<(Message, Object)>,
}

#[derive(Clone, Debug)]
enum Object {
    Table,
    Chain(String),
    Rule(String),
    Set(String),
    Elements(String),
}

impl Batch {
    /// An empty batch for `table` of the `ip` family.
    pub(crate) fn new(table: &str) -> Self {
        Self { table: table.to_owned(), messages: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Makes sure the table exists.
    pub(crate) fn table(&mut self, user_data: &[u8]) {
        let mut message = start(NEW_TABLE, CREATE);
        message.attr_str(1, &self.table).attr_be32(2, 0);
        if !user_data.is_empty() {
            message.attr(6, user_data);
        }
        self.messages.push((message, Object::Table));
    }

    /// Removes the table with everything in it.
    pub(crate) fn delete_table(&mut self) {
        let mut message = start(DEL_TABLE, 0);
        message.attr_str(1, &self.table);
        self.messages.push((message, Object::Table));
    }

    /// Starts from an empty table, whatever was there.
    pub(crate) fn replace_table(&mut self) {
        self.table(&[]);
        self.delete_table();
        self.table(&[]);
    }

    /// Adds a chain that others jump to.
    pub(crate) fn chain(&mut self, name: &str) {
        let mut message = start(NEW_CHAIN, CREATE);
        message.attr_str(1, &self.table).attr_str(3, name);
        self.messages.push((message, Object::Chain(name.to_owned())));
    }

    /// Adds a chain that the kernel enters at `hook`; `kind` is `nat` or `filter`.
    pub(crate) fn base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        const POLICY_ACCEPT: u32 = 1;
        let mut message = start(NEW_CHAIN, CREATE);
        message.attr_str(1, &self.table).attr_str(3, name);
        message.nest(4, |nest| {
            nest.attr_be32(1, hook as u32).attr_be32(2, priority as u32);
        });
        message.attr_be32(5, POLICY_ACCEPT).attr_str(7, kind);
        self.messages.push((message, Object::Chain(name.to_owned())));
    }

    /// Removes a chain with its rules.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        let mut message = start(DEL_CHAIN, 0);
        message.attr_str(1, &self.table).attr_str(3, name);
        self.messages.push((message, Object::Chain(name.to_owned())));
    }

    /// Appends a rule to a chain.
    pub(crate) fn rule(&mut self, chain: &str, build: impl FnOnce(&mut Rule<'_>)) {
        let mut message = start(NEW_RULE, CREATE | libc::NLM_F_APPEND as u16);
        message.attr_str(1, &self.table).attr_str(2, chain);
        message.nest(4, |list| build(&mut Rule::new(list)));
        self.messages.push((message, Object::Rule(chain.to_owned())));
    }

    /// Adds a set or map.
    pub(crate) fn set(&mut self, set: &Set<'_>) {
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const EVALUATED: u32 = 0x20;
        let mut flags = 0;
        let mut message = start(NEW_SET, CREATE);
        message.attr_str(1, &self.table).attr_str(2, set.name);
        if set.data != Data::None {
            flags |= MAP;
        }
        if set.dynamic.is_some() {
            flags |= TIMEOUT | EVALUATED;
        }
        message.attr_be32(3, flags);
        message.attr_be32(4, kind::concat(set.key)).attr_be32(5, 4 * set.key.len() as u32);
        match set.data {
            Data::None => {}
            Data::Verdict => {
                message.attr_be32(6, kind::VERDICT);
            }
            Data::Fields(fields) => {
                message.attr_be32(6, kind::concat(fields)).attr_be32(7, 4 * fields.len() as u32);
            }
        }
        if let Some(dynamic) = set.dynamic {
            message.nest(9, |nest| {
                nest.attr_be32(1, dynamic.size_max);
            });
        }
        // An id is required; sets are referred to by name.
        message.attr_be32(10, self.messages.len() as u32 + 1);
        self.messages.push((message, Object::Set(set.name.to_owned())));
    }

    /// Adds elements.
    pub(crate) fn elements(&mut self, set: &str, elements: impl IntoIterator<Item = Element>) {
        self.element_messages(NEW_ELEMENT, CREATE, set, elements);
    }

    /// Removes elements by key.
    pub(crate) fn delete_elements(&mut self, set: &str, elements: impl IntoIterator<Item = Element>) {
        self.element_messages(DEL_ELEMENT, 0, set, elements);
    }

    fn element_messages(
        &mut self,
        message_kind: u16,
        flags: u16,
        set: &str,
        elements: impl IntoIterator<Item = Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let mut message = start(message_kind, flags);
            message.attr_str(1, &self.table).attr_str(2, set);
            message.nest(3, |list| {
                for element in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                    list.nest(1, |nest| {
                        nest.nest(1, |key| {
                            key.attr(1, &element.key);
                        });
                        if message_kind == NEW_ELEMENT {
                            write_value(nest, &element.value);
                            if let Some(life) = element.life {
                                nest.attr_be64(4, life.timeout_ms).attr_be64(5, life.remaining_ms);
                            }
                        }
                    });
                }
            });
            self.messages.push((message, Object::Elements(set.to_owned())));
        }
    }
}

fn write_value(nest: &mut Message, value: &Value) {
    match value {
        Value::None => {}
        Value::Verdict(verdict) => {
            nest.nest(2, |data| write_verdict(data, verdict));
        }
        Value::Bytes(bytes) => {
            nest.nest(2, |data| {
                data.attr(1, bytes);
            });
        }
    }
}

fn write_verdict(data: &mut Message, verdict: &Verdict) {
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    data.nest(2, |nest| {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (JUMP, Some(chain)),
            Verdict::Goto(chain) => (GOTO, Some(chain)),
        };
        nest.attr_be32(1, code as u32);
        if let Some(chain) = chain {
            nest.attr_str(2, chain);
        }
    });
}

fn start(kind: u16, flags: u16) -> Message {
    // struct nfgenmsg: family, version, resource id.
    Message::new(kind, flags).fixed(&[libc::AF_INET as u8, 0, 0, 0])
}

/// A connection to one namespace's nf_tables.
#[derive(Debug)]
pub(crate) struct Tables {
    socket: Socket,
}

impl Tables {
    /// Connects in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Applies a batch: all of it or nothing.
    pub(crate) fn commit(&mut self, batch: Batch) -> Result<()> {
        let Some(last) = batch.messages.len().checked_sub(1) else { return Ok(()) };
        let count = batch.messages.len() as u32 + 2;
        let first = self.socket.reserve(count);
        let frame = |kind, sequence| Message::new(kind, 0).fixed(&[0, 0, 0, 10]).finish(sequence);
        let mut bytes = frame(BATCH_BEGIN, first);
        let mut objects = Vec::with_capacity(batch.messages.len());
        for (index, (mut message, object)) in batch.messages.into_iter().enumerate() {
            if index == last {
                message.add_flags(libc::NLM_F_ACK as u16);
            }
            bytes.extend_from_slice(&message.finish(first + 1 + index as u32));
            objects.push(object);
        }
        bytes.extend_from_slice(&frame(BATCH_END, first + count - 1));

        let object = |index: Option<usize>| match index.and_then(|index| objects.get(index)) {
            None | Some(Object::Table) => format!("table {}", batch.table),
            Some(Object::Chain(name)) => format!("chain {name} of table {}", batch.table),
            Some(Object::Rule(name)) => format!("a rule in chain {name} of table {}", batch.table),
            Some(Object::Set(name)) => format!("set {name} of table {}", batch.table),
            Some(Object::Elements(name)) => format!("elements of {name} of table {}", batch.table),
        };
        self.socket.send(&bytes).map_err(|cause| NetError::new("send nftables batch", object(None), cause))?;
        let mut failure: Option<(Option<usize>, Cause)> = None;
        let mut finished = false;
        while !finished {
            let received = self.socket.receive(|message| {
                if message.kind != libc::NLMSG_ERROR as u16 || message.sequence < first {
                    return;
                }
                let index = (message.sequence - first).checked_sub(1).map(|index| index as usize);
                // The answer to the first frame or to the last message ends the batch.
                finished |= index.is_none_or(|index| index >= last);
                if let Err(cause) = outcome(message.payload) {
                    failure.get_or_insert((index, cause));
                }
            });
            received.map_err(|cause| NetError::new("read nftables answer", object(None), cause))?;
        }
        match failure {
            None => Ok(()),
            Some((index, cause)) => Err(NetError::new("change", object(index), cause)),
        }
    }

    /// The tables of the `ip` family with their user data.
    pub(crate) fn tables(&mut self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut tables = Vec::new();
        self.socket.dump(start(GET_TABLE, 0), "list tables", |kind, payload| {
            let attributes = Attributes::new(payload.get(4..).unwrap_or_default());
            if let (NEW_TABLE, Some(name)) = (kind, attributes.find(1)) {
                tables.push((text(name), attributes.find(6).unwrap_or_default().to_vec()));
            }
        })?;
        Ok(tables)
    }

    /// Base chains of every IPv4 family at `hook` whose policy is to drop.
    pub(crate) fn dropping_chains(&mut self, hook: Hook) -> Result<Vec<String>> {
        const POLICY_DROP: u32 = 0;
        // struct nfgenmsg of a dump: family 0 asks for all of them.
        let message = Message::new(GET_CHAIN, 0).fixed(&[0; 4]);
        let mut found = Vec::new();
        self.socket.dump(message, "list chains", |_, payload| {
            let attributes = Attributes::new(payload.get(4..).unwrap_or_default());
            let at = attributes.nest(4).and_then(|nest| nest.find(1)).and_then(u32_be);
            let policy = attributes.find(5).and_then(u32_be);
            let family = match payload.first().map(|family| i32::from(*family)) {
                Some(libc::NFPROTO_INET) => "inet",
                Some(libc::NFPROTO_IPV4) => "ip",
                _ => return,
            };
            if (at, policy) == (Some(hook as u32), Some(POLICY_DROP)) {
                let name = |kind| attributes.find(kind).map(text).unwrap_or_default();
                found.push(format!("{family}/{}/{}", name(1), name(3)));
            }
        })?;
        Ok(found)
    }

    /// The elements of a set or map.
    pub(crate) fn elements(&mut self, table: &str, set: &str) -> Result<Vec<Element>> {
        let mut message = start(GET_ELEMENT, 0);
        message.attr_str(1, table).attr_str(2, set);
        let mut elements = Vec::new();
        self.socket.dump(message, "list elements", |_, payload| {
            let attributes = Attributes::new(payload.get(4..).unwrap_or_default());
            let Some(list) = attributes.nest(3) else { return };
            elements.extend(list.filter(|(kind, _)| *kind == 1).filter_map(|(_, bytes)| read_element(bytes)));
        })?;
        Ok(elements)
    }

    /// Removes a table if it is there.
    pub(crate) fn delete(&mut self, table: &str) -> Result<()> {
        let mut batch = Batch::new(table);
        // Adding it first makes the removal succeed in either case, atomically.
        batch.table(&[]);
        batch.delete_table();
        self.commit(batch)
    }
}

fn read_element(bytes: &[u8]) -> Option<Element> {
    let element = Attributes::new(bytes);
    let key = element.nest(1)?.find(1)?.to_vec();
    let value = match element.nest(2) {
        None => Value::None,
        Some(data) => match (data.find(1), data.nest(2)) {
            (Some(bytes), _) => Value::Bytes(bytes.to_vec()),
            (None, Some(verdict)) => {
                let chain = verdict.find(2).map(text);
                let code = u32_be(verdict.find(1)?)? as i32;
                Value::Verdict(match (code, chain) {
                    (-3, Some(chain)) => Verdict::Jump(chain),
                    (-4, Some(chain)) => Verdict::Goto(chain),
                    (1, _) => Verdict::Accept,
                    _ => Verdict::Drop,
                })
            }
            (None, None) => Value::None,
        },
    };
    let milliseconds = |kind| -> Option<u64> { Some(u64::from_be_bytes(element.find(kind)?.try_into().ok()?)) };
    let life =
        milliseconds(5).map(|remaining_ms| Life { timeout_ms: milliseconds(4).unwrap_or(remaining_ms), remaining_ms });
    Some(Element { key, value, life })
}

/// Writes a concatenated key or value, four bytes per field.
#[derive(Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(20))
    }

    pub(crate) fn address(mut self, address: Ipv4Addr) -> Self {
        self.0.extend_from_slice(&address.octets());
        self
    }

    pub(crate) fn protocol(mut self, protocol: u8) -> Self {
        self.0.extend_from_slice(&[protocol, 0, 0, 0]);
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.0.extend_from_slice(&port.to_be_bytes());
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    pub(crate) fn index(mut self, index: u32) -> Self {
        self.0.extend_from_slice(&index.to_ne_bytes());
        self
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0
    }
}
