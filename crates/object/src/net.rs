//! Addresses and blocks of addresses as API fields hold them.
//!
//! Go once read `010.0.0.1` as ten and other programs read it as eight. Upstream therefore refuses
//! what can be read in two ways (KEP-4858); the messages are its own.

use std::net::IpAddr;

/// `must be a valid IP address, …`
const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// `must be a valid CIDR value, …`
const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address as lenient readers understand it: numbers may have leading zeros.
pub fn sloppy(value: &str) -> Option<IpAddr> {
    if let Ok(address) = value.parse() {
        return Some(address);
    }
    let plain: Vec<&str> = value
        .split('.')
        .map(|part| {
            let rest = part.trim_start_matches('0');
            if rest.is_empty() && !part.is_empty() { "0" } else { rest }
        })
        .collect();
    plain.join(".").parse().ok()
}

/// A block as lenient readers understand it: its address and how many bits are fixed.
pub fn sloppy_block(value: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = value.split_once('/')?;
    let address = sloppy(address)?;
    if bits.is_empty() || !bits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let bits: u8 = bits.parse().ok()?;
    (bits <= bits_of(address)).then_some((address, bits))
}

const fn bits_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// The first address of the block.
fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

/// Whether the block `outer` holds every address of the smaller block `inner`.
pub fn holds(outer: (IpAddr, u8), inner: (IpAddr, u8)) -> bool {
    outer.0.is_ipv4() == inner.0.is_ipv4()
        && outer.1 < inner.1
        && network(inner.0, outer.1) == network(outer.0, outer.1)
}

/// An IPv4 or IPv6 address.
pub fn ip(value: &str) -> Vec<String> {
    let wrong = match value.parse() {
        Ok(address) if is_mapped(address) => "must not be an IPv4-mapped IPv6 address",
        Ok(_) => return Vec::new(),
        Err(_) if sloppy(value).is_some() => "must not have leading 0s",
        Err(_) => NO_IP,
    };
    vec![wrong.to_owned()]
}

/// As [`ip`], and written the one way in which it is usually written.
pub fn canonical_ip(value: &str) -> Vec<String> {
    let wrong = ip(value);
    match value.parse::<IpAddr>() {
        Ok(address) if wrong.is_empty() && address.to_string() != value => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        _ => wrong,
    }
}

/// A block of addresses.
pub fn cidr(value: &str) -> Vec<String> {
    let Some((address, bits)) = sloppy_block(value) else { return vec![NO_CIDR.to_owned()] };
    let strict = value
        .split_once('/')
        .is_some_and(|(text, length)| text.parse::<IpAddr>().is_ok() && (length == "0" || !length.starts_with('0')));
    let wrong = if !strict {
        "must not have leading 0s in IP or prefix length"
    } else if is_mapped(address) {
        "must not have an IPv4-mapped IPv6 address"
    } else if network(address, bits) != address {
        "must not have bits set beyond the prefix length"
    } else {
        return Vec::new();
    };
    vec![wrong.to_owned()]
}

/// As [`cidr`], and written the one way in which it is usually written.
pub fn canonical_cidr(value: &str) -> Vec<String> {
    let wrong = cidr(value);
    match sloppy_block(value) {
        Some((address, bits)) if wrong.is_empty() && format!("{address}/{bits}") != value => {
            vec![format!("must be in canonical form ({:?})", format!("{address}/{bits}"))]
        }
        _ => wrong,
    }
}

/// An address that another machine can be reached at: what Endpoints and external IPs must be.
pub fn not_special(value: &str) -> Vec<String> {
    let Some(address) = sloppy(value) else { return vec!["must be a valid IP address".to_owned()] };
    let (link_local, local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    let checks = [
        (address.is_unspecified(), format!("may not be unspecified ({value})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    checks.into_iter().filter_map(|(wrong, message)| wrong.then_some(message)).collect()
}

/// Whether there is an IPv4 and an IPv6 address among these.
pub fn is_dual_stack<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let (mut v4, mut v6) = (false, false);
    for value in values {
        let text = value.split_once('/').map_or(value, |(address, _)| address);
        match sloppy(text) {
            Some(IpAddr::V4(_)) => v4 = true,
            Some(IpAddr::V6(_)) => v6 = true,
            None => return false,
        }
    }
    v4 && v6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (value, want) in [
            ("10.1.2.3", ""),
            ("2001:db8::1", ""),
            ("010.1.2.3", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("300.1.2.3", NO_IP),
            ("fe80::1%eth0", NO_IP),
            ("", NO_IP),
        ] {
            assert_eq!(ip(value).join(";"), want, "{value}");
        }
        for (value, want) in [
            ("10.0.0.0/8", ""),
            ("::/0", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
            ("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
            ("10.0.0.0", NO_CIDR),
            ("10.0.0.0/33", NO_CIDR),
            ("10.0.0.0/+1", NO_CIDR),
        ] {
            assert_eq!(cidr(value).join(";"), want, "{value}");
        }
        assert_eq!(canonical_ip("2001:DB8::1"), [r#"must be in canonical form ("2001:db8::1")"#]);
    }

    #[test]
    fn addresses_of_this_machine_are_special() {
        for value in ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.5", "::", "::1", "fe80::1", "ff02::1"] {
            assert_eq!(not_special(value).len(), 1, "{value}");
        }
        assert!(not_special("10.0.0.1").is_empty() && not_special("2001:db8::1").is_empty());
    }

    #[test]
    fn blocks_hold_smaller_ones() {
        let block = |text| sloppy_block(text).expect("a block");
        assert!(holds(block("10.0.0.0/8"), block("10.1.0.0/16")));
        assert!(!holds(block("10.0.0.0/8"), block("10.0.0.0/8")));
        assert!(!holds(block("10.0.0.0/8"), block("11.1.0.0/16")));
        assert!(!holds(block("::/0"), block("10.0.0.0/8")));
    }
}
