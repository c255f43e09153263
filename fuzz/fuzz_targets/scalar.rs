//! Quantities, times, durations, addresses and names.
//!
//! The text is read as everything; behind a zero byte is a second quantity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skiff_object::quantity::{Quantity, canonical};
use skiff_object::time::{Time, format_duration, parse_duration};
use skiff_object::{name, net};

/// Amounts below this cannot overflow when two are added.
const NANOS_MAX: i128 = 1 << 120;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, other) = text.split_once('\0').unwrap_or((text, ""));
    quantity(text, other);
    times(text);
    names(text);
});

fn quantity(text: &str, other: &str) {
    let Ok(amount) = text.parse::<Quantity>() else { return };
    let printed = amount.to_string();
    assert_eq!(canonical(text).as_deref(), Ok(&*printed));
    let again: Quantity = printed.parse().unwrap_or_else(|error| panic!("printed {printed}: {error}"));
    assert_eq!(again.nanos(), amount.nanos(), "printed {printed}");
    assert_eq!(again.to_string(), printed, "printed twice");
    let rounded = |by: i128| {
        let whole = amount.nanos() / by + (amount.nanos() % by).signum();
        whole.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    };
    assert_eq!((amount.units(), amount.milli()), (rounded(1_000_000_000), rounded(1_000_000)));
    let Ok(other) = other.parse::<Quantity>() else { return };
    assert_eq!(amount < other, amount.nanos() < other.nanos());
    if amount.nanos().abs() < NANOS_MAX && other.nanos().abs() < NANOS_MAX {
        assert_eq!((amount + other).nanos(), (other + amount).nanos());
        assert_eq!((amount + other - other).nanos(), amount.nanos());
        assert_eq!((-amount).nanos(), -amount.nanos());
    }
}

fn times(text: &str) {
    if let Ok(time) = Time::parse(text) {
        let printed = time.rfc3339();
        let again = Time::parse(&printed).unwrap_or_else(|error| panic!("printed {printed}: {error}"));
        assert_eq!(again.seconds, time.seconds, "printed {printed}");
        let printed = time.rfc3339_micro();
        let again = Time::parse(&printed).unwrap_or_else(|error| panic!("printed {printed}: {error}"));
        assert_eq!((again.seconds, again.nanos / 1_000), (time.seconds, time.nanos / 1_000), "printed {printed}");
    }
    if let Ok(nanos) = parse_duration(text) {
        let printed = format_duration(nanos);
        assert_eq!(parse_duration(&printed), Ok(nanos), "printed {printed}");
    }
}

fn names(text: &str) {
    // Each is narrower than the next.
    if name::dns1035_label(text).is_empty() {
        assert!(name::dns1123_label(text).is_empty());
    }
    if name::dns1123_label(text).is_empty() {
        assert!(name::dns1123_subdomain(text).is_empty());
        assert!(name::label_value(text).is_empty());
        assert!(name::qualified_name(text).is_empty());
    }
    if name::dns1123_subdomain(text).is_empty() {
        assert!(name::dns1123_subdomain_with_underscore(text).is_empty());
        assert!(name::path_segment(text).is_empty());
    }
    if name::c_identifier(text).is_empty() {
        assert!(name::env_var_name(text).is_empty());
    }
    if net::canonical_ip(text).is_empty() {
        assert!(net::ip(text).is_empty());
        assert!(net::sloppy(text).is_some());
    }
    if net::canonical_cidr(text).is_empty() {
        assert!(net::cidr(text).is_empty());
    }
    if let Some(block) = net::sloppy_block(text) {
        assert!(!net::holds(block, block), "no block is smaller than itself");
        assert_eq!(net::holds((block.0, 0), block), block.1 > 0);
    }
    for problems in [
        name::config_map_key(text),
        name::port_name(text),
        name::percent(text),
        name::http_header_name(text),
        name::domain_prefixed_path(text),
        name::fully_qualified_name(text),
        name::fully_qualified_domain(text),
        name::wildcard_dns1123_subdomain(text),
        net::not_special(text),
    ] {
        assert!(problems.iter().all(|problem| !problem.is_empty()));
    }
}
