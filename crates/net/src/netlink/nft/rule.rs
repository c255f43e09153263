//! The expressions of rules.

use super::{Verdict, write_verdict};
use crate::cidr::Cidr;
use crate::netlink::Message;

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

impl<'a> Rule<'a> {
    /// Writes into the list of a rule's expressions.
    pub(super) fn new(list: &'a mut Message) -> Self {
        Self(list)
    }

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

    /// Gives the connection the outgoing link's source address, and its own source port if that
    /// is free. Upstream asks for random ports; a server that closes first then meets ports it
    /// has in TIME_WAIT with newer timestamps and ignores the client (measured: 2 % of the
    /// connections of one busy client needed a second SYN, none with their own ports).
    pub(crate) fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |data| {
            data.attr_be32(1, 0);
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
