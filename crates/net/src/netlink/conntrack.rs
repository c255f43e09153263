//! The connection table: finding and forgetting connections (ctnetlink).

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{Attributes, Message, Protocol, Socket};
use crate::error::{Already, Result};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddrV4,
    /// To whom.
    pub destination: SocketAddrV4,
    /// The transport protocol's number.
    pub protocol: u8,
}

/// A tracked connection: as the client sees it, and as the server answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// From the client to the address it asked for.
    pub original: Tuple,
    /// From the real server back.
    pub reply: Tuple,
}

/// A connection to one namespace's connection table.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Connects in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netlink socket for us.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Forgets every IPv4 connection that `stale` picks and tells how many there were.
    ///
    /// # Errors
    /// When the kernel refuses the listing or a removal.
    pub fn forget(&mut self, protocol: u8, mut stale: impl FnMut(&Connection) -> bool) -> Result<usize> {
        let mut found = Vec::new();
        let mut message = start(GET);
        filter_by_protocol(&mut message, protocol);
        self.socket.dump(message, "list connections", |_, payload| {
            let connection = payload.get(4..).and_then(read);
            found.extend(connection.filter(|it| it.original.protocol == protocol && stale(it)));
        })?;
        for connection in &found {
            let mut message = start(DELETE);
            write_tuple(&mut message, TUPLE_ORIGINAL, &connection.original);
            self.socket.request(message, "forget connection", || format!("{:?}", connection.original)).or_gone()?;
        }
        Ok(found.len())
    }
}

fn start(kind: u16) -> Message {
    Message::new(kind, 0).fixed(&[libc::AF_INET as u8, 0, 0, 0])
}

/// Lets the kernel (5.8 and later; others ignore it) skip the connections of other protocols.
fn filter_by_protocol(message: &mut Message, protocol: u8) {
    const FILTER: u16 = 25;
    const ORIGINAL_FLAGS: u16 = 1;
    const REPLY_FLAGS: u16 = 2;
    const BY_PROTOCOL: u32 = 1 << 3;
    message.nest(TUPLE_ORIGINAL, |nest| {
        nest.nest(2, |transport| {
            transport.attr(1, &[protocol]);
        });
    });
    message.nest(FILTER, |nest| {
        nest.attr_u32(ORIGINAL_FLAGS, BY_PROTOCOL).attr_u32(REPLY_FLAGS, 0);
    });
}

fn write_tuple(message: &mut Message, kind: u16, tuple: &Tuple) {
    message.nest(kind, |nest| {
        nest.nest(1, |ip| {
            ip.attr(1, &tuple.source.ip().octets()).attr(2, &tuple.destination.ip().octets());
        });
        nest.nest(2, |transport| {
            transport
                .attr(1, &[tuple.protocol])
                .attr(2, &tuple.source.port().to_be_bytes())
                .attr(3, &tuple.destination.port().to_be_bytes());
        });
    });
}

fn read(payload: &[u8]) -> Option<Connection> {
    let attributes = Attributes::new(payload);
    Some(Connection {
        original: read_tuple(attributes.nest(TUPLE_ORIGINAL)?)?,
        reply: read_tuple(attributes.nest(TUPLE_REPLY)?)?,
    })
}

fn read_tuple(tuple: Attributes<'_>) -> Option<Tuple> {
    let address = |kind| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = tuple.nest(1)?.find(kind)?.try_into().ok()?;
        Some(bytes.into())
    };
    let transport = tuple.nest(2)?;
    let port = |kind| transport.find(kind).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Tuple {
        source: SocketAddrV4::new(address(1)?, port(2)),
        destination: SocketAddrV4::new(address(2)?, port(3)),
        protocol: *transport.find(1)?.first()?,
    })
}
