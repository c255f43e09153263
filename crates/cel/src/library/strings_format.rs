//! `"%s is %d".format([…])`.

use super::convert::{double_text, to_string};
use super::{failed, unsupported};
use crate::error::EvalError;
use crate::value::{List, Map, MapKey, Value};

/// More digits after the point are not written.
const PRECISION_MAX: usize = 1_000;

/// Digits after the point when none are asked for.
const PRECISION: usize = 6;

/// A formatted text is at most this long.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// Values nested deeper than this are not written.
const NESTING_MAX: usize = 256;

type Formatted = Result<String, EvalError>;

/// Writes `values` into the places `template` has for them.
pub(crate) fn format(template: &str, values: &List<'_>) -> Formatted {
    let mut out = String::with_capacity(template.len());
    let mut values = values.iter();
    let mut index = 0;
    let mut rest = template;
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let precision = match rest.strip_prefix('.') {
            None => None,
            Some(after) => {
                let digits = after.bytes().take_while(u8::is_ascii_digit).count();
                let number: usize = after[..digits].parse().unwrap_or(0);
                if number > PRECISION_MAX {
                    return failed(format!("precision {number} exceeds maximum of {PRECISION_MAX}"));
                }
                rest = &after[digits..];
                Some(number)
            }
        };
        let Some(verb) = rest.chars().next() else { return failed("unexpected end of string") };
        rest = &rest[verb.len_utf8()..];
        if !"sdfebxXo".contains(verb) {
            return failed(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\""));
        }
        let Some(value) = values.next() else { return failed(format!("index {index} out of range")) };
        out.push_str(&clause(verb, precision, &value?)?);
        if out.len() > TEXT_BYTES_MAX {
            return Err(EvalError::CostExceeded);
        }
        index += 1;
    }
    out.push_str(rest);
    Ok(out)
}

fn clause(verb: char, precision: Option<usize>, value: &Value<'_>) -> Formatted {
    let wrong = |what: &str| {
        let name = value.type_of();
        failed(format!("error during formatting: {what}, was given {}", name.runtime_name()))
    };
    match (verb, value) {
        ('s', value) => text(value, NESTING_MAX),
        ('d', Value::Int(number)) => Ok(number.to_string()),
        ('d', Value::Uint(number)) => Ok(number.to_string()),
        ('d', _) => wrong("decimal clause can only be used on integers"),
        ('f' | 'e', value) => {
            let number = match value {
                Value::Double(number) => *number,
                Value::Str(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => {
                    text.parse().unwrap_or(f64::NAN)
                }
                _ if verb == 'f' => return wrong("fixed-point clause can only be used on doubles"),
                _ => return wrong("scientific clause can only be used on doubles"),
            };
            Ok(real(verb, precision.unwrap_or(PRECISION), number))
        }
        ('b', Value::Int(number)) => Ok(signed(*number, |size| format!("{size:b}"))),
        ('b', Value::Uint(number)) => Ok(format!("{number:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => wrong("only integers and bools can be formatted as binary"),
        ('o', Value::Int(number)) => Ok(signed(*number, |size| format!("{size:o}"))),
        ('o', Value::Uint(number)) => Ok(format!("{number:o}")),
        ('o', _) => wrong("octal clause can only be used on integers"),
        (_, value) => {
            let hex = match value {
                Value::Int(number) => signed(*number, |size| format!("{size:x}")),
                Value::Uint(number) => format!("{number:x}"),
                Value::Str(text) => text.bytes().map(|octet| format!("{octet:02x}")).collect(),
                Value::Bytes(octets) => octets.iter().map(|octet| format!("{octet:02x}")).collect(),
                _ => return wrong("only integers, byte buffers, and strings can be formatted as hex"),
            };
            Ok(if verb == 'X' { hex.to_uppercase() } else { hex })
        }
    }
}

fn signed(number: i64, digits: impl Fn(u64) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", digits(number.unsigned_abs()))
}

fn real(verb: char, precision: usize, number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "∞" } else { "-∞" }.to_owned();
    }
    if verb == 'f' {
        return format!("{number:.precision$}");
    }
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

fn text(value: &Value<'_>, depth: usize) -> Formatted {
    let Some(depth) = depth.checked_sub(1) else { return failed("values nest too deep") };
    match value {
        Value::Null => Ok("null".to_owned()),
        Value::List(list) => {
            let items = list.iter().map(|item| nested(&item?, depth)).collect::<Result<Vec<_>, _>>()?;
            Ok(format!("[{}]", items.join(", ")))
        }
        Value::Map(map) => mapping(map, depth),
        Value::Opaque(_) | Value::Optional(_) | Value::Object(_) | Value::Unknown(_) => {
            let name = value.type_of();
            failed(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, \
                 lists, types, durations, and timestamps, was given {}",
                name.runtime_name()
            ))
        }
        other => to_string(other),
    }
}

fn mapping(map: &Map<'_>, depth: usize) -> Formatted {
    let mut entries = Vec::with_capacity(map.len());
    for key in map.keys() {
        if MapKey::of(&key).is_none() {
            return unsupported();
        }
        let Some(value) = map.get(&key) else { continue };
        entries.push((nested(&key, depth)?, nested(&value?, depth)?));
    }
    entries.sort();
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}

/// A value inside a list or map: text in quotes.
fn nested(value: &Value<'_>, depth: usize) -> Formatted {
    match value {
        Value::Str(text) => Ok(format!("{:?}", &**text)),
        Value::Bytes(_) => Ok(format!("b{:?}", text(value, depth)?)),
        Value::Double(number) if !number.is_finite() => Ok(format!("{:?}", double_text(*number))),
        Value::Double(number) => Ok(format!("{number:.PRECISION$}")),
        Value::Timestamp(time) => Ok(format!("timestamp(\"{time}\")")),
        Value::Duration(_) => Ok(format!("duration(\"{}\")", to_string(value)?)),
        Value::Type(ty) => Ok(format!("type({})", ty.runtime_name())),
        other => text(other, depth),
    }
}
