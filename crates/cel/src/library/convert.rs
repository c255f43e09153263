//! Conversions between types.

use super::{Function, failed, unsupported};
use crate::error::EvalError;
use crate::opaque::Opaque;
use crate::time::{Timestamp, duration_text};
use crate::value::Value;

/// What a value converts to, or why it does not.
type Converted<'a> = Result<Value<'a>, EvalError>;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "bool",
        native: |_, args| to_bool(&args[0]),
        overloads: &["bool_to_bool: (bool) bool", "string_to_bool: (string) bool"],
    },
    Function {
        name: "bytes",
        native: |_, args| match &args[0] {
            Value::Bytes(_) => Ok(args[0].clone()),
            Value::Str(text) => Ok(Value::Bytes(text.as_bytes().into())),
            other => mismatch(other, "bytes"),
        },
        overloads: &["bytes_to_bytes: (bytes) bytes", "string_to_bytes: (string) bytes"],
    },
    Function {
        name: "double",
        native: |_, args| to_double(&args[0]),
        overloads: &[
            "double_to_double: (double) double",
            "int64_to_double: (int) double",
            "string_to_double: (string) double",
            "uint64_to_double: (uint) double",
        ],
    },
    Function {
        name: "duration",
        native: |_, args| match &args[0] {
            Value::Duration(_) => Ok(args[0].clone()),
            Value::Str(text) => match parse_duration(text) {
                Some(nanos) => Ok(Value::Duration(nanos)),
                None => match skiff_object::time::parse_duration(text) {
                    Err(error) => failed(error.to_string()),
                    Ok(_) => failed("duration overflow"),
                },
            },
            other => mismatch(other, "google.protobuf.Duration"),
        },
        overloads: &["duration_to_duration: (duration) duration", "string_to_duration: (string) duration"],
    },
    Function {
        name: "int",
        native: |_, args| to_int(&args[0]),
        overloads: &[
            "int64_to_int64: (int) int",
            "double_to_int64: (double) int",
            "duration_to_int64: (duration) int",
            "string_to_int64: (string) int",
            "timestamp_to_int64: (timestamp) int",
            "uint64_to_int64: (uint) int",
        ],
    },
    Function {
        name: "string",
        native: |_, args| to_string(&args[0]).map(Value::text),
        overloads: &[
            "string_to_string: (string) string",
            "bool_to_string: (bool) string",
            "bytes_to_string: (bytes) string",
            "double_to_string: (double) string",
            "duration_to_string: (duration) string",
            "int64_to_string: (int) string",
            "timestamp_to_string: (timestamp) string",
            "uint64_to_string: (uint) string",
            "ip_to_string: (net.IP) string",
            "cidr_to_string: (net.CIDR) string",
        ],
    },
    Function {
        name: "timestamp",
        native: |_, args| match &args[0] {
            Value::Timestamp(_) => Ok(args[0].clone()),
            Value::Int(seconds) => match Timestamp::new(*seconds, 0) {
                Some(time) => Ok(Value::Timestamp(time)),
                None => failed("timestamp overflow"),
            },
            Value::Str(text) => match Timestamp::parse(text) {
                Some(time) => Ok(Value::Timestamp(time)),
                None => failed(format!("parsing time \"{}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse", &**text)),
            },
            other => mismatch(other, "google.protobuf.Timestamp"),
        },
        overloads: &[
            "timestamp_to_timestamp: (timestamp) timestamp",
            "int64_to_timestamp: (int) timestamp",
            "string_to_timestamp: (string) timestamp",
        ],
    },
    Function {
        name: "uint",
        native: |_, args| to_uint(&args[0]),
        overloads: &[
            "uint64_to_uint64: (uint) uint",
            "double_to_uint64: (double) uint",
            "int64_to_uint64: (int) uint",
            "string_to_uint64: (string) uint",
        ],
    },
];

/// A duration within the span the language has (that of 10,000 years).
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    skiff_object::time::parse_duration(text).ok()
}

fn mismatch<'a>(value: &Value<'_>, to: &str) -> Converted<'a> {
    match value {
        Value::Opaque(_) | Value::Optional(_) => unsupported(),
        _ => failed(format!("type conversion error from '{}' to '{to}'", value.type_of().runtime_name())),
    }
}

fn not_a_number<'a>(function: &str, text: &str, why: &str) -> Converted<'a> {
    failed(format!("strconv.{function}: parsing {text:?}: {why}"))
}

fn to_bool<'a>(value: &Value<'a>) -> Converted<'a> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::Str(text) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            other => not_a_number("ParseBool", other, "invalid syntax"),
        },
        other => mismatch(other, "bool"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "what the language says a conversion does")]
fn to_double<'a>(value: &Value<'a>) -> Converted<'a> {
    match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::Uint(number) => Ok(Value::Double(*number as f64)),
        Value::Str(text) => match text.parse::<f64>() {
            Ok(number) if number.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) => {
                not_a_number("ParseFloat", text, "value out of range")
            }
            Ok(number) => Ok(Value::Double(number)),
            Err(_) => not_a_number("ParseFloat", text, "invalid syntax"),
        },
        other => mismatch(other, "double"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn to_int<'a>(value: &Value<'a>) -> Converted<'a> {
    let overflow = || EvalError::failed("integer overflow");
    match value {
        Value::Int(_) => Ok(value.clone()),
        Value::Uint(number) => Ok(Value::Int(i64::try_from(*number).map_err(|_| overflow())?)),
        // Both ends of the range round to what does not fit.
        Value::Double(number) if *number > i64::MIN as f64 && *number < i64::MAX as f64 => {
            Ok(Value::Int(*number as i64))
        }
        Value::Double(_) => Err(overflow()),
        Value::Timestamp(time) => Ok(Value::Int(time.seconds())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        Value::Str(text) => match text.parse::<i64>() {
            Ok(number) => Ok(Value::Int(number)),
            Err(error) => not_a_number("ParseInt", text, parse_reason(&error)),
        },
        other => mismatch(other, "int"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked before")]
fn to_uint<'a>(value: &Value<'a>) -> Converted<'a> {
    let overflow = || EvalError::failed("unsigned integer overflow");
    match value {
        Value::Uint(_) => Ok(value.clone()),
        Value::Int(number) => Ok(Value::Uint(u64::try_from(*number).map_err(|_| overflow())?)),
        Value::Double(number) if *number >= 0.0 && *number < 18_446_744_073_709_551_616.0 => {
            Ok(Value::Uint(*number as u64))
        }
        Value::Double(_) => Err(overflow()),
        Value::Str(text) => match text.parse::<u64>() {
            Ok(number) if !text.starts_with('+') => Ok(Value::Uint(number)),
            Ok(_) => not_a_number("ParseUint", text, "invalid syntax"),
            Err(error) => not_a_number("ParseUint", text, parse_reason(&error)),
        },
        other => mismatch(other, "uint"),
    }
}

fn parse_reason(error: &std::num::ParseIntError) -> &'static str {
    match error.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// The text of a value, as `string()` gives it.
pub(crate) fn to_string(value: &Value<'_>) -> Result<String, EvalError> {
    Ok(match value {
        Value::Str(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => double_text(*number),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => duration_text(*nanos),
        Value::Type(ty) => ty.runtime_name().to_owned(),
        Value::Bytes(octets) => match std::str::from_utf8(octets) {
            Ok(text) => text.to_owned(),
            Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Opaque(Opaque::Ip(address)) => address.to_string(),
        Value::Opaque(Opaque::Cidr(cidr)) => cidr.to_string(),
        other => return mismatch(other, "string").map(|_| String::new()),
    })
}

/// A double as Go writes it at its shortest: an exponent from 1e+21 on and below 1e-4.
pub(crate) fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..21).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", power.abs());
    }
    number.to_string()
}
