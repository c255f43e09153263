//! What a call costs when it runs, in upstream's units. The numbers are cel-go's and upstream's: policies are written
//! against them.

use crate::opaque::Opaque;
use crate::value::Value;

/// What looking at one character costs.
pub(crate) const CHAR_COST: f64 = 0.1;
/// What one character of a pattern costs for each character looked at.
pub(crate) const PATTERN_COST: f64 = 0.25;

/// How the cost of a call follows from its arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Charge {
    /// The same every time.
    Fixed(u64),
    /// The size of an argument, times a factor for each character.
    Size(usize, f64),
    /// The size of the result, likewise.
    Result(f64),
    /// The size of an argument, item by item.
    Items(usize),
    /// The size of the smaller argument.
    Smaller,
    /// The sizes of both.
    Both,
    /// Text times pattern.
    Pattern,
    /// Text times text.
    Substring,
    /// Everything below the first argument.
    Tree,
    /// Parsing a selector.
    Selector,
    /// Comparing an address with a network; an address given as text is parsed.
    ContainsIp(bool),
    /// Comparing two networks; one given as text is parsed.
    ContainsCidr(bool),
    /// Text times the pattern a format stands for.
    Format,
    /// Every item of one list with every one of the other, so many times.
    Sets(u64),
    /// A list is made.
    NewList,
    /// A list is flattened to a depth.
    Flatten,
    /// Every item of an argument is compared with every other.
    SelfCompare(usize),
}

/// The rule for a call, known by its function and, when only one fits, its overload.
pub(crate) fn rule(function: &str, overload: Option<&str>) -> Charge {
    match function {
        "check" => return Charge::Fixed(350_000),
        "fieldSelector" | "labelSelector" => return Charge::Selector,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => return Charge::Tree,
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => return Charge::Size(0, CHAR_COST),
        "replace" | "split" | "ip.isCanonical" => return Charge::Size(0, 2.0 * CHAR_COST),
        "join" => return Charge::Result(2.0 * CHAR_COST),
        "find" | "findAll" => return Charge::Pattern,
        "ip" if overload != Some("cidr_ip") => return Charge::Size(0, CHAR_COST),
        "containsIP" => return Charge::ContainsIp(overload == Some("cidr_contains_ip_string")),
        "containsCIDR" => return Charge::ContainsCidr(overload == Some("cidr_contains_cidr_string")),
        "validate" => return Charge::Format,
        "sets.contains" | "sets.intersects" => return Charge::Sets(1),
        "sets.equivalent" => return Charge::Sets(2),
        "slice" | "lists.range" | "reverse" => return Charge::NewList,
        "flatten" => return Charge::Flatten,
        "distinct" | "sort" => return Charge::SelfCompare(0),
        "@sortByAssociatedKeys" => return Charge::SelfCompare(1),
        _ => {}
    }
    match overload.unwrap_or_default() {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => Charge::Size(0, CHAR_COST),
        "in_list" => Charge::Items(1),
        "equals" | "not_equals" => Charge::Smaller,
        "matches" | "matches_string" => Charge::Pattern,
        "contains_string" => Charge::Substring,
        "add_string" | "add_bytes" => Charge::Both,
        id if id.ends_with("_string") || id.ends_with("_bytes") => match id.split('_').next() {
            Some("less" | "greater") => Charge::Smaller,
            _ => Charge::Fixed(1),
        },
        _ => Charge::Fixed(1),
    }
}

/// What a call cost.
pub(crate) fn charge(rule: Charge, args: &[Value<'_>], result: &Value<'_>) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Value::cost_size);
    match rule {
        Charge::Fixed(cost) => cost,
        Charge::Size(index, factor) => scaled(size(index), factor),
        Charge::Result(factor) => scaled(result.cost_size(), factor),
        Charge::Items(index) => size(index),
        Charge::Smaller => match args.first() {
            Some(Value::Opaque(_)) => 1,
            _ => scaled(size(0).min(size(1)), CHAR_COST),
        },
        Charge::Both => scaled(size(0).saturating_add(size(1)), CHAR_COST),
        Charge::Pattern => {
            let pattern = scaled(size(1), PATTERN_COST);
            scaled(size(0).saturating_add(1), CHAR_COST).saturating_mul(pattern)
        }
        Charge::Substring => scaled(size(0), CHAR_COST).saturating_mul(scaled(size(1), CHAR_COST)),
        Charge::Tree => args.first().map_or(0, tree),
        Charge::Selector => {
            // Each requirement is at least two characters, a structure and a list.
            let length = size(1);
            10 + scaled(length, CHAR_COST) + scaled(scaled(length, 0.5), 50.0)
        }
        Charge::ContainsIp(text) => {
            let parse = if text { scaled(size(1), CHAR_COST) } else { 0 };
            scaled(size(0).saturating_mul(2), CHAR_COST) + parse
        }
        Charge::ContainsCidr(text) => {
            let parse = if text { scaled(size(1), CHAR_COST) } else { 0 };
            scaled(size(0).saturating_mul(2), CHAR_COST) + scaled(size(0), CHAR_COST) + 1 + parse
        }
        Charge::Format => match args.first() {
            Some(Value::Opaque(Opaque::Format(format))) => {
                let pattern = scaled(format.pattern_size, PATTERN_COST);
                scaled(size(1).saturating_add(1), CHAR_COST).saturating_mul(pattern)
            }
            _ => 1,
        },
        Charge::Sets(times) => size(0).saturating_mul(size(1)).saturating_mul(times).saturating_add(1),
        Charge::NewList => result.cost_size().saturating_add(11),
        Charge::Flatten => {
            let depth = match args.get(1) {
                Some(Value::Int(depth)) => u64::try_from(*depth).unwrap_or(0),
                _ => 1,
            };
            size(0).saturating_mul(depth).saturating_add(11)
        }
        Charge::SelfCompare(index) => {
            let first = match args.get(index) {
                Some(Value::List(list)) => list.get(0),
                _ => None,
            };
            let text = matches!(first, Some(Ok(Value::Str(_) | Value::Bytes(_))));
            let square = size(index).saturating_mul(size(index));
            scaled_down(square, if text { 2.0 + CHAR_COST } else { 2.0 }).saturating_add(11)
        }
    }
}

/// Every scalar below a value costs one, a text by its length.
fn tree(value: &Value<'_>) -> u64 {
    match value {
        Value::Str(text) => scaled_down(text.len() as u64, CHAR_COST),
        Value::Bytes(octets) => scaled_down(octets.len() as u64, CHAR_COST),
        Value::List(list) => list.iter().filter_map(Result::ok).map(|item| tree(&item)).sum(),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| tree(key) + map.get(key).and_then(Result::ok).map_or(0, |value| tree(&value)))
            .sum(),
        _ => 1,
    }
}

/// `size × factor`, rounded up.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts saturate, and costs that large are past every limit"
)]
pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts saturate, and costs that large are past every limit"
)]
fn scaled_down(size: u64, factor: f64) -> u64 {
    (size as f64 * factor) as u64
}
