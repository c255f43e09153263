//! String formats that a schema may ask for (`k8s.io/kube-openapi/pkg/validation/strfmt`).

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skiff_object::{name, time};

/// The formats that are checked; others are a warning when the definition is written and nothing later.
const KNOWN: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether upstream knows the format for values of this type.
pub(crate) fn is_known(ty: &str, format: &str) -> bool {
    match ty {
        "" | "string" => KNOWN.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a string has a format; `true` for formats that nobody knows.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && all_hex(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => is_ssn(text),
        "hexcolor" => is_hex_color(text),
        "rgbcolor" => is_rgb_color(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "datetime" => time::Time::parse(text).is_ok(),
        "k8sshortname" => name::dns1123_label(text).is_empty(),
        "k8slongname" => name::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn all_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Go's `url.ParseRequestURI`: absolute, or a path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.bytes();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        && !rest.is_empty()
}

fn is_email(text: &str) -> bool {
    let address = match (text.find('<'), text.ends_with('>')) {
        (Some(start), true) => &text[start + 1..text.len() - 1],
        _ => text,
    };
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !address.contains(char::is_whitespace) && !local.ends_with('.')
    })
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte >= 0x80)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(width) = bits.parse::<u8>() else { return false };
    if !all_digits(bits) {
        return false;
    }
    (address.parse::<Ipv4Addr>().is_ok() && width <= 32) || (address.parse::<Ipv6Addr>().is_ok() && width <= 128)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize| {
        let groups: Vec<&str> = text.split(separator).collect();
        groups.iter().all(|group| group.len() == width && all_hex(group)).then_some(groups.len() * width / 2)
    };
    let bytes = groups(':', 2).or_else(|| groups('-', 2)).or_else(|| groups('.', 4));
    matches!(bytes, Some(6 | 8 | 20))
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let plain: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let dashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at);
    let well_placed = dashes.eq([8, 13, 18, 23]) || !text.contains('-');
    plain.len() == 32
        && well_placed
        && plain.iter().all(u8::is_ascii_hexdigit)
        && version.is_none_or(|version| plain[12] == version)
        && version.is_none_or(|version| version == b'3' || matches!(plain[16], b'8' | b'9' | b'a' | b'b' | b'A' | b'B'))
}

fn digits_of(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_digit(10).unwrap_or(10)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let clean: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let body = clean.len() == 10 && all_digits(&clean[..9]) && matches!(clean.as_bytes()[9], b'0'..=b'9' | b'X');
    body && (1..).zip(digits_of(&clean)).map(|(weight, digit)| weight * digit).sum::<u32>().is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits_of(text);
    digits.len() == 13
        && digits.iter().all(|digit| *digit < 10)
        && digits
            .iter()
            .enumerate()
            .map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 })
            .sum::<u32>()
            .is_multiple_of(10)
}

/// Luhn over thirteen to nineteen digits.
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ => (digit * 2) / 10 + (digit * 2) % 10,
        })
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

fn is_ssn(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let separators = text.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'-' | b' ')).map(|(at, _)| at);
    plain.len() == 9 && all_digits(&plain) && separators.into_iter().all(|at| matches!(at, 3 | 5 | 6))
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && all_hex(digits)
}

fn is_rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| all_digits(part) && part.parse::<u8>().is_ok())
    })
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && time::Time::parse(&format!("{text}T00:00:00Z")).is_ok()
}

/// Go's durations, and numbers with the units that Scala writes (`22 ns`, `3 minutes`).
fn is_duration(text: &str) -> bool {
    if time::parse_duration(text).is_ok() {
        return true;
    }
    const UNITS: [&str; 9] = ["ns", "us", "µs", "ms", "s", "m", "h", "d", "w"];
    const WORDS: [&str; 10] = ["nano", "micro", "milli", "second", "sec", "minute", "min", "hour", "hr", "day"];
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim().to_lowercase());
    let word = unit.trim_end_matches('s');
    number.parse::<f64>().is_ok()
        && (UNITS.contains(&unit.as_str())
            || WORDS.contains(&word)
            || matches!(word, "nanosecond" | "microsecond" | "millisecond" | "week" | "wk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_upstream_takes() {
        let rows: &[(&str, &[&str], &[&str])] = &[
            ("date-time", &["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123+02:00"], &["2024-01-02", "x"]),
            ("date", &["2024-02-29"], &["2023-02-29", "2024-1-1"]),
            ("duration", &["5m", "22 ns", "3 minutes"], &["5 parsecs", ""]),
            ("ipv4", &["10.0.0.1"], &["10.0.0", "::1"]),
            ("ipv6", &["::1"], &["10.0.0.1"]),
            ("cidr", &["10.0.0.0/8", "fd00::/64"], &["10.0.0.0", "10.0.0.0/33"]),
            ("mac", &["00:00:5e:00:53:01", "0000.5e00.5301"], &["00:00"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567"]),
            ("uri", &["https://a.b/c", "/path"], &["a.b", ""]),
            ("email", &["a@b.c"], &["a", "a b@c"]),
            ("hostname", &["a.example.com"], &["-a.b", "a_b"]),
            ("byte", &["aGk="], &["?"]),
            ("hexcolor", &["#fff", "A0b1C2"], &["#ffff"]),
            ("isbn", &["0321751043", "978-0321751041"], &["123"]),
            ("k8s-short-name", &["a-b"], &["A", "a.b"]),
            ("no-such-format", &["anything"], &[]),
        ];
        for (format, yes, no) in rows {
            yes.iter().for_each(|text| assert!(fits(format, text), "{format} {text}"));
            no.iter().for_each(|text| assert!(!fits(format, text), "{format} {text}"));
        }
        assert!(is_known("integer", "int32") && !is_known("string", "int32") && is_known("", "date-time"));
    }
}
