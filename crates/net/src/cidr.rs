//! An IPv4 network in the notation of RFC 4632.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network such as `10.244.0.0/24`; host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    address: Ipv4Addr,
    prefix: u8,
}

/// The text is no IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network such as 10.244.0.0/24")]
pub struct ParseCidrError(String);

impl Cidr {
    /// The network of `address` with `prefix` bits; host bits are cleared, more than 32 bits are 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    /// The first address.
    pub fn network(self) -> Ipv4Addr {
        self.address
    }

    /// The number of network bits, 0 to 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The network mask.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// How many addresses there are.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Whether `address` lies within.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.address.to_bits()
    }

    /// The address `offset` places after the first one, when it lies within.
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.address.to_bits().checked_add(offset)?);
        self.contains(address).then_some(address)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, ParseCidrError> {
        let error = || ParseCidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().ok().filter(|bits| *bits <= 32).ok_or_else(error)?;
        Ok(Self::new(address, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_clear_host_bits_and_know_their_members() {
        let cidr: Cidr = "10.244.1.9/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.1.0/24");
        assert!(cidr.contains(Ipv4Addr::new(10, 244, 1, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 244, 2, 0)));
        assert_eq!(cidr.nth(255), Some(Ipv4Addr::new(10, 244, 1, 255)));
        assert_eq!(cidr.nth(256), None);
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().size(), 1 << 32);
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("10.0.0.0".parse::<Cidr>().is_err());
    }
}
