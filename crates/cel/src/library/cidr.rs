//! IP addresses and networks.

use std::fmt;
use std::net::IpAddr;

use super::{Function, failed, unsupported};
use crate::error::EvalError;
use crate::opaque::Opaque;
use crate::value::Value;

/// A network: an address, not necessarily its first, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "ip",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Cidr(cidr))] => Ok(Value::Opaque(Opaque::Ip(cidr.address))),
            [Value::Str(text)] => match parse_ip(text) {
                Ok(address) => Ok(Value::Opaque(Opaque::Ip(address))),
                Err(message) => failed(message),
            },
            _ => unsupported(),
        },
        overloads: &["string_to_ip: (string) net.IP", "cidr_ip: net.CIDR.() net.IP"],
    },
    Function {
        name: "isIP",
        native: |_, args| match args {
            [Value::Str(text)] => Ok(Value::Bool(parse_ip(text).is_ok())),
            _ => unsupported(),
        },
        overloads: &["is_ip: (string) bool"],
    },
    Function {
        name: "ip.isCanonical",
        native: |_, args| match args {
            [Value::Str(text)] => match parse_ip(text) {
                Ok(address) => Ok(Value::Bool(address.to_string() == **text)),
                Err(message) => failed(message),
            },
            _ => unsupported(),
        },
        overloads: &["ip_is_canonical: (string) bool"],
    },
    Function {
        name: "family",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Ip(address))] => Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 })),
            _ => unsupported(),
        },
        overloads: &["ip_family: net.IP.() int"],
    },
    Function {
        name: "isUnspecified",
        native: |_, args| address_is(args, |address| address.is_unspecified()),
        overloads: &["ip_is_unspecified: net.IP.() bool"],
    },
    Function {
        name: "isLoopback",
        native: |_, args| address_is(args, |address| address.is_loopback()),
        overloads: &["ip_is_loopback: net.IP.() bool"],
    },
    Function {
        name: "isLinkLocalMulticast",
        native: |_, args| {
            address_is(args, |address| match address {
                IpAddr::V4(address) => address.octets().starts_with(&[224, 0, 0]),
                IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
            })
        },
        overloads: &["ip_is_link_local_multicast: net.IP.() bool"],
    },
    Function {
        name: "isLinkLocalUnicast",
        native: |_, args| address_is(args, is_link_local),
        overloads: &["ip_is_link_local_unicast: net.IP.() bool"],
    },
    Function {
        name: "isGlobalUnicast",
        native: |_, args| {
            address_is(args, |address| {
                let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
                !broadcast
                    && !address.is_unspecified()
                    && !address.is_loopback()
                    && !address.is_multicast()
                    && !is_link_local(address)
            })
        },
        overloads: &["ip_is_global_unicast: net.IP.() bool"],
    },
    Function {
        name: "cidr",
        native: |_, args| match args {
            [Value::Str(text)] => parse_cidr_value(text).map(|cidr| Value::Opaque(Opaque::Cidr(cidr))),
            _ => unsupported(),
        },
        overloads: &["string_to_cidr: (string) net.CIDR"],
    },
    Function {
        name: "isCIDR",
        native: |_, args| match args {
            [Value::Str(text)] => Ok(Value::Bool(parse_cidr(text).is_ok())),
            _ => unsupported(),
        },
        overloads: &["is_cidr: (string) bool"],
    },
    Function {
        name: "containsIP",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Cidr(cidr)), Value::Opaque(Opaque::Ip(address))] => {
                Ok(Value::Bool(contains(*cidr, *address)))
            }
            [Value::Opaque(Opaque::Cidr(cidr)), Value::Str(text)] => match parse_ip(text) {
                Ok(address) => Ok(Value::Bool(contains(*cidr, address))),
                Err(message) => failed(message),
            },
            _ => unsupported(),
        },
        overloads: &["cidr_contains_ip_string: net.CIDR.(string) bool", "cidr_contains_ip_ip: net.CIDR.(net.IP) bool"],
    },
    Function {
        name: "containsCIDR",
        native: |_, args| {
            let (cidr, other) = match args {
                [Value::Opaque(Opaque::Cidr(cidr)), Value::Opaque(Opaque::Cidr(other))] => (cidr, *other),
                [Value::Opaque(Opaque::Cidr(cidr)), Value::Str(text)] => (cidr, parse_cidr_value(text)?),
                _ => return unsupported(),
            };
            Ok(Value::Bool(cidr.prefix <= other.prefix && contains(*cidr, other.address)))
        },
        overloads: &[
            "cidr_contains_cidr_string: net.CIDR.(string) bool",
            "cidr_contains_cidr: net.CIDR.(net.CIDR) bool",
        ],
    },
    Function {
        name: "prefixLength",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Cidr(cidr))] => Ok(Value::Int(i64::from(cidr.prefix))),
            _ => unsupported(),
        },
        overloads: &["cidr_prefix_length: net.CIDR.() int"],
    },
    Function {
        name: "masked",
        native: |_, args| match args {
            [Value::Opaque(Opaque::Cidr(cidr))] => {
                let address = masked(cidr.address, cidr.prefix);
                Ok(Value::Opaque(Opaque::Cidr(Cidr { address, prefix: cidr.prefix })))
            }
            _ => unsupported(),
        },
        overloads: &["cidr_masked: net.CIDR.() net.CIDR"],
    },
];

fn address_is<'a>(args: &[Value<'a>], holds: fn(&IpAddr) -> bool) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Opaque(Opaque::Ip(address))] => Ok(Value::Bool(holds(address))),
        _ => unsupported(),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )
    })?;
    match address {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        address => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let invalid = |why: &str| {
        format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}")
    };
    let (address, prefix) = text.rsplit_once('/').ok_or_else(|| invalid("no '/'"))?;
    let address: IpAddr =
        address.parse().map_err(|_| invalid(&format!("ParseAddr({address:?}): unable to parse IP")))?;
    if matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    let plain = prefix.bytes().all(|b| b.is_ascii_digit()) && (prefix.len() == 1 || !prefix.starts_with('0'));
    let bad = || invalid(&format!("bad bits after slash: {prefix:?}"));
    let length: u8 = if plain { prefix.parse().map_err(|_| bad())? } else { return Err(bad()) };
    if length > if address.is_ipv4() { 32 } else { 128 } {
        return Err(invalid("prefix length out of range"));
    }
    Ok(Cidr { address, prefix: length })
}

fn parse_cidr_value(text: &str) -> Result<Cidr, EvalError> {
    parse_cidr(text).map_err(|message| {
        EvalError::failed(format!("network address parse error during conversion from string: {message}"))
    })
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

fn contains(cidr: Cidr, address: IpAddr) -> bool {
    cidr.address.is_ipv4() == address.is_ipv4() && masked(cidr.address, cidr.prefix) == masked(address, cidr.prefix)
}
