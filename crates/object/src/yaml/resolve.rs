//! What an unquoted scalar means in YAML 1.1, as Go's YAML library reads it.

use crate::tree::Tree;

/// The value of a plain scalar. Timestamps stay text.
pub(super) fn resolve(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Tree::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Tree::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Tree::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Tree::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Tree::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return text.into();
    }
    let plain = text.replace('_', "");
    whole(&plain).or_else(|| float(&plain)).unwrap_or_else(|| text.into())
}

/// A whole number in any of Go's bases: `12`, `0x1f`, `0o17`, `017`, `0b11`.
fn whole(text: &str) -> Option<Tree> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match lower.as_str() {
        "0" => ("0", 10),
        rest if rest.starts_with("0x") => (&rest[2..], 16),
        rest if rest.starts_with("0o") => (&rest[2..], 8),
        rest if rest.starts_with("0b") => (&rest[2..], 2),
        rest if rest.starts_with('0') => (&rest[1..], 8),
        rest => (rest, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let size = i128::from_str_radix(digits, base).ok()?;
    let number = if negative { -size } else { size };
    match i64::try_from(number) {
        Ok(number) => Some(Tree::Int(number)),
        Err(_) if (0..=i128::from(u64::MAX)).contains(&number) => Some(Tree::Float(number as f64)),
        Err(_) => None,
    }
}

/// A float, if it looks like one: digits, perhaps a point, perhaps a signed exponent.
fn float(text: &str) -> Option<Tree> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (before, after) = mantissa.split_once('.').unwrap_or(("", mantissa));
    let exponent_fits = exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
    let ends_in_point = mantissa.ends_with('.') && digits(before);
    if !exponent_fits || !(before.is_empty() || digits(before)) || !(digits(after) || ends_in_point) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Tree::Float)
}

/// Whether `text` would be read as base-60 by older readers; Go quotes it.
pub(super) fn is_sexagesimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    unsigned.contains(':')
        && unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned.split(':').enumerate().all(|(place, part)| {
            let part = if place > 0 { part.split('.').next().unwrap_or(part) } else { part };
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        })
}

/// Whether `text` would be read as a date or time; Go quotes it.
pub(super) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && text[5..].starts_with(|c: char| c.is_ascii_digit())
        && (crate::time::Time::parse(text).is_ok() || is_date(text))
}

/// `2006-1-2`, perhaps with a time behind a space.
fn is_date(text: &str) -> bool {
    let date = text.split([' ', 'T', 't']).next().unwrap_or(text);
    let parts: Vec<&str> = date.split('-').collect();
    let fits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts.as_slice(), [_, month, day] if fits(month) && fits(day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_they_mean_to_go() {
        for (text, wanted) in [
            ("yes", Tree::Bool(true)),
            ("Off", Tree::Bool(false)),
            ("~", Tree::Null),
            ("010", Tree::Int(8)),
            ("0x1F", Tree::Int(31)),
            ("1_000", Tree::Int(1000)),
            ("+1", Tree::Int(1)),
            ("-0b11", Tree::Int(-3)),
            ("08", Tree::Float(8.0)),
            ("1.50", Tree::Float(1.5)),
            (".5", Tree::Float(0.5)),
            ("1e3", Tree::Float(1000.0)),
            ("1.2.3", "1.2.3".into()),
            ("100m", "100m".into()),
            ("-", "-".into()),
            ("2026-11-22", "2026-11-22".into()),
            ("12:30:45", "12:30:45".into()),
            ("0xzz", "0xzz".into()),
        ] {
            assert_eq!(resolve(text), wanted, "{text}");
        }
    }
}
