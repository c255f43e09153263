//! nf_tables: atomic batches of tables, chains, rules, sets and maps of the `ip` family.
//!
//! Only the expressions that Skiff uses are here, each one function on [`Rule`]. Registers are
//! the kernel's 32-bit registers 8 to 23; a concatenated key lies in consecutive registers, one
//! per field, whatever the field's width.

use std::net::Ipv4Addr;

use super::socket::outcome;
use super::{Attributes, Message, Protocol, Socket, text};
use crate::cidr::Cidr;
use crate::error::{Cause, NetError, Result};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
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
        message.nest(4, |list| build(&mut Rule(list)));
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

/// The expressions of one rule, evaluated in order; a comparison that fails ends the rule.
pub(crate) struct Rule<'a>(&'a mut Message);

/// A register: 8 to 23, four bytes each.
pub(crate) type Register = u32;

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const META_MARK: u32 = 3;
const META_IIF_NAME: u32 = 6;
const META_OIF_NAME: u32 = 7;
const META_L4_PROTOCOL: u32 = 16;

impl Rule<'_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Message)) -> &mut Self {
        self.0.nest(1, |element| {
            element.attr_str(1, name).nest(2, data);
        });
        self
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, to: Register) -> &mut Self {
        self.expression("payload", |data| {
            data.attr_be32(1, to).attr_be32(2, base).attr_be32(3, offset).attr_be32(4, length);
        })
    }

    fn meta(&mut self, key: u32, to: Register) -> &mut Self {
        self.expression("meta", |data| {
            data.attr_be32(1, to).attr_be32(2, key);
        })
    }

    fn compare(&mut self, register: Register, operation: u32, value: &[u8]) -> &mut Self {
        self.expression("cmp", |data| {
            data.attr_be32(1, register).attr_be32(2, operation).nest(3, |nest| {
                nest.attr(1, value);
            });
        })
    }

    fn bitwise(&mut self, register: Register, mask: [u8; 4], xor: [u8; 4]) -> &mut Self {
        self.expression("bitwise", |data| {
            data.attr_be32(1, register).attr_be32(2, register).attr_be32(3, 4);
            data.nest(4, |nest| {
                nest.attr(1, &mask);
            });
            data.nest(5, |nest| {
                nest.attr(1, &xor);
            });
        })
    }

    /// Loads the source address.
    pub(crate) fn source(&mut self, to: Register) -> &mut Self {
        self.payload(1, 12, 4, to)
    }

    /// Loads the destination address.
    pub(crate) fn destination(&mut self, to: Register) -> &mut Self {
        self.payload(1, 16, 4, to)
    }

    /// Loads the transport protocol's number.
    pub(crate) fn l4_protocol(&mut self, to: Register) -> &mut Self {
        self.meta(META_L4_PROTOCOL, to)
    }

    /// Loads the destination port.
    pub(crate) fn destination_port(&mut self, to: Register) -> &mut Self {
        self.payload(2, 2, 2, to)
    }

    /// Loads constant bytes, four of them.
    pub(crate) fn immediate(&mut self, value: [u8; 4], to: Register) -> &mut Self {
        self.expression("immediate", |data| {
            data.attr_be32(1, to).nest(2, |nest| {
                nest.attr(1, &value);
            });
        })
    }

    /// Loads `offset` plus a random number below `modulus`.
    pub(crate) fn random(&mut self, modulus: u32, offset: u32, to: Register) -> &mut Self {
        const RANDOM: u32 = 1;
        self.expression("numgen", |data| {
            data.attr_be32(1, to).attr_be32(2, modulus).attr_be32(3, RANDOM).attr_be32(4, offset);
        })
    }

    /// Goes on when the source lies in `cidr`.
    pub(crate) fn source_in(&mut self, cidr: Cidr) -> &mut Self {
        self.source(8).in_cidr(cidr, EQUAL)
    }

    /// Goes on when the source does not lie in `cidr`.
    pub(crate) fn source_not_in(&mut self, cidr: Cidr) -> &mut Self {
        self.source(8).in_cidr(cidr, NOT_EQUAL)
    }

    /// Goes on when the destination lies in `cidr`.
    pub(crate) fn destination_in(&mut self, cidr: Cidr) -> &mut Self {
        self.destination(8).in_cidr(cidr, EQUAL)
    }

    /// Goes on when the destination does not lie in `cidr`.
    pub(crate) fn destination_not_in(&mut self, cidr: Cidr) -> &mut Self {
        self.destination(8).in_cidr(cidr, NOT_EQUAL)
    }

    fn in_cidr(&mut self, cidr: Cidr, operation: u32) -> &mut Self {
        self.bitwise(8, cidr.mask().octets(), [0; 4]).compare(8, operation, &cidr.network().octets())
    }

    /// Goes on when the destination is an address of this machine.
    pub(crate) fn destination_is_local(&mut self) -> &mut Self {
        const ADDRESS_TYPE: u32 = 3;
        const DESTINATION: u32 = 2;
        self.expression("fib", |data| {
            data.attr_be32(1, 8).attr_be32(2, ADDRESS_TYPE).attr_be32(3, DESTINATION);
        });
        self.compare(8, EQUAL, &u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Goes on when the packet leaves through `link`.
    pub(crate) fn leaves_by(&mut self, link: &str) -> &mut Self {
        self.meta(META_OIF_NAME, 8).compare(8, EQUAL, &name_bytes(link))
    }

    /// Goes on when the packet leaves through another link than `link`.
    pub(crate) fn leaves_not_by(&mut self, link: &str) -> &mut Self {
        self.meta(META_OIF_NAME, 8).compare(8, NOT_EQUAL, &name_bytes(link))
    }

    /// Goes on when the packet came in through another link than `link`.
    pub(crate) fn came_not_by(&mut self, link: &str) -> &mut Self {
        self.meta(META_IIF_NAME, 8).compare(8, NOT_EQUAL, &name_bytes(link))
    }

    /// Goes on when the connection's destination was not translated.
    pub(crate) fn destination_not_translated(&mut self) -> &mut Self {
        const STATUS: u32 = 2;
        const DESTINATION_TRANSLATED: u32 = 1 << 5;
        self.expression("ct", |data| {
            data.attr_be32(1, 8).attr_be32(2, STATUS);
        });
        self.bitwise(8, DESTINATION_TRANSLATED.to_ne_bytes(), [0; 4]).compare(8, EQUAL, &[0; 4])
    }

    /// Goes on when all bits of `mark` are set on the packet.
    pub(crate) fn marked(&mut self, mark: u32) -> &mut Self {
        let bytes = mark.to_ne_bytes();
        self.meta(META_MARK, 8).bitwise(8, bytes, [0; 4]).compare(8, EQUAL, &bytes)
    }

    /// Sets the bits of `mark` on the packet.
    pub(crate) fn set_mark(&mut self, mark: u32) -> &mut Self {
        self.meta(META_MARK, 8).bitwise(8, (!mark).to_ne_bytes(), mark.to_ne_bytes());
        self.expression("meta", |data| {
            data.attr_be32(2, META_MARK).attr_be32(3, 8);
        })
    }

    /// Goes on when the key at `from` is in the set.
    pub(crate) fn lookup(&mut self, set: &str, from: Register) -> &mut Self {
        self.expression("lookup", |data| {
            data.attr_str(1, set).attr_be32(2, from);
        })
    }

    /// Loads what the map holds for the key at `from`; ends the rule when there is nothing.
    pub(crate) fn lookup_map(&mut self, map: &str, from: Register, to: Register) -> &mut Self {
        self.expression("lookup", |data| {
            data.attr_str(1, map).attr_be32(2, from).attr_be32(3, to);
        })
    }

    /// Follows the verdict that the map holds for the key at `from`.
    pub(crate) fn lookup_verdict(&mut self, map: &str, from: Register) -> &mut Self {
        self.lookup_map(map, from, 0)
    }

    /// Ends with a verdict.
    pub(crate) fn verdict(&mut self, verdict: &Verdict) -> &mut Self {
        self.expression("immediate", |data| {
            data.attr_be32(1, 0).nest(2, |nest| write_verdict(nest, verdict));
        })
    }

    /// Sends the connection to the address and port in two registers.
    pub(crate) fn dnat(&mut self, address: Register, port: Register) -> &mut Self {
        const DNAT: u32 = 1;
        self.expression("nat", |data| {
            data.attr_be32(1, DNAT).attr_be32(2, libc::AF_INET as u32).attr_be32(3, address).attr_be32(5, port);
        })
    }

    /// Gives the connection the outgoing link's source address and a random source port.
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        const RANDOM_FULLY: u32 = 16;
        self.expression("masq", |data| {
            data.attr_be32(1, RANDOM_FULLY);
        })
    }

    /// Answers "port unreachable", which every protocol's clients read as refused.
    pub(crate) fn reject(&mut self) -> &mut Self {
        const ICMP_UNREACHABLE: u32 = 0;
        const PORT_UNREACHABLE: u8 = 3;
        self.expression("reject", |data| {
            data.attr_be32(1, ICMP_UNREACHABLE).attr(2, &[PORT_UNREACHABLE]);
        })
    }

    /// Answers with a TCP reset.
    pub(crate) fn reset(&mut self) -> &mut Self {
        const TCP_RESET: u32 = 1;
        self.expression("reject", |data| {
            data.attr_be32(1, TCP_RESET);
        })
    }

    /// Goes on for this transport protocol.
    pub(crate) fn protocol_is(&mut self, protocol: u8) -> &mut Self {
        self.l4_protocol(8).compare(8, EQUAL, &[protocol])
    }

    /// Remembers key → data in a dynamic map for `timeout_ms`, or refreshes it.
    pub(crate) fn remember(&mut self, map: &str, key: Register, data_from: Register, timeout_ms: u64) -> &mut Self {
        const UPDATE: u32 = 1;
        self.expression("dynset", |data| {
            data.attr_str(1, map).attr_be32(3, UPDATE).attr_be32(4, key).attr_be32(5, data_from);
            data.attr_be64(6, timeout_ms);
        })
    }

    /// Forgets a key of a dynamic map. The kernel wants a data register also for this.
    pub(crate) fn forget(&mut self, map: &str, key: Register, data_from: Register) -> &mut Self {
        const DELETE: u32 = 2;
        self.expression("dynset", |data| {
            data.attr_str(1, map).attr_be32(3, DELETE).attr_be32(4, key).attr_be32(5, data_from);
        })
    }
}

fn name_bytes(link: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = link.len().min(15);
    bytes[..length].copy_from_slice(&link.as_bytes()[..length]);
    bytes
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
                let code = super::u32_be(verdict.find(1)?)? as i32;
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
