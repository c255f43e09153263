//! Equality, order and arithmetic of values.

use std::cmp::Ordering;
use std::sync::Arc;

use skiff_object::Tree;

use crate::decl::ListKind;
use crate::error::EvalError;
use crate::time::Timestamp;
use crate::value::{List, Map, MapKey, Value};

/// A list made by an expression holds at most this many items: doubling one costs little and the memory must end
/// somewhere. A request of 3 MiB has no list as long.
pub(crate) const LIST_ITEMS_MAX: usize = 1 << 21;

/// Values nested deeper than this are not compared: objects of the API nest at most 128 deep, expressions 250.
const NESTING_MAX: usize = 512;

type Result<T> = std::result::Result<T, EvalError>;

/// Whether two values are the same. Values of different kinds are not; numbers compare across their types.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool> {
    equal_within(a, b, NESTING_MAX)
}

fn equal_within(a: &Value<'_>, b: &Value<'_>, depth: usize) -> Result<bool> {
    let Some(depth) = depth.checked_sub(1) else { return Err(EvalError::failed("values nest too deep")) };
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal_within(a, b, depth)?,
            (None, None) => true,
            _ => false,
        },
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        (Value::List(a), Value::List(b)) => lists_equal(a, b, depth)?,
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b, depth)?,
        (Value::Object(a), Value::Object(b)) => {
            if a.name != b.name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for ((name, a), (other, b)) in a.fields.iter().zip(&b.fields) {
                if name != other || !equal_within(a, b, depth)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Unknown(a), Value::Unknown(b)) => a == b,
        (a, b) => numeric_order(a, b) == Some(Ordering::Equal),
    })
}

fn lists_equal(a: &List<'_>, b: &List<'_>, depth: usize) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    match a.kind() {
        ListKind::Atomic => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal_within(&a?, &b?, depth)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        // The order of a set or a map says nothing.
        ListKind::Set => {
            let mut ours: Vec<Tree> = a.iter().map(|item| item?.to_tree()).collect::<Result<_>>()?;
            let mut theirs: Vec<Tree> = b.iter().map(|item| item?.to_tree()).collect::<Result<_>>()?;
            sort_trees(&mut ours);
            sort_trees(&mut theirs);
            ours.dedup();
            theirs.dedup();
            Ok(ours == theirs)
        }
        ListKind::Map(keys) => {
            for item in b.iter() {
                let item = item?;
                match find_by_keys(a, &item, keys)? {
                    Some(index) => {
                        let Some(ours) = a.get(index) else { return Ok(false) };
                        if !equal_within(&ours?, &item, depth)? {
                            return Ok(false);
                        }
                    }
                    None => return Ok(false),
                }
            }
            Ok(true)
        }
    }
}

fn sort_trees(trees: &mut [Tree]) {
    trees.sort_by_cached_key(skiff_object::json::encode_sorted);
}

/// The fields an item of a list of type map is told apart by, as they are stored.
fn item_keys(item: &Value<'_>, keys: &[Box<str>]) -> Vec<Option<Tree>> {
    let Value::Map(map) = item else { return Vec::new() };
    keys.iter()
        .map(|key| match map {
            Map::Tree { map, .. } => map.get(key).cloned(),
            Map::Values(_) => map.field(key).and_then(|value| value.ok()?.to_tree().ok()),
        })
        .collect()
}

fn find_by_keys(list: &List<'_>, item: &Value<'_>, keys: &[Box<str>]) -> Result<Option<usize>> {
    let wanted = item_keys(item, keys);
    for (index, candidate) in list.iter().enumerate() {
        if item_keys(&candidate?, keys) == wanted {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>, depth: usize) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for key in a.keys() {
        match (a.get(&key), b.get(&key)) {
            (Some(a), Some(b)) => {
                if !equal_within(&a?, &b?, depth)? {
                    return Ok(false);
                }
            }
            (None, None) => {}
            _ => return Ok(false),
        }
    }
    Ok(match (a, b) {
        // Fields no schema describes are compared as they are.
        (Map::Tree { map: ours, decl: Some(decl) }, Map::Tree { map: theirs, .. }) if decl.values().is_none() => ours
            .iter()
            .filter(|(key, _)| decl.field(key.as_str()).is_none())
            .all(|(key, value)| theirs.get(key.as_str()).is_none_or(|other| other == value)),
        _ => true,
    })
}

/// How two numbers compare whatever their types; `None` for what is no number.
fn numeric_order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => double_order(*a, whole(b)?),
        (a, Value::Double(b)) => double_order(*b, whole(a)?).map(Ordering::reverse),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// A double compares with a whole number as with the nearest double, which is what cel-go does.
#[expect(clippy::cast_precision_loss, reason = "see above")]
fn double_order(a: f64, b: i128) -> Option<Ordering> {
    a.partial_cmp(&(b as f64))
}

/// How two values of an ordered kind compare.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Str(a), Value::Str(b)) => Ok((**a).cmp(&**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        (Value::Double(number), _) | (_, Value::Double(number)) if number.is_nan() => {
            Err(EvalError::failed("NaN values cannot be ordered"))
        }
        (a, b) => numeric_order(a, b).ok_or_else(EvalError::no_such_overload),
    }
}

fn int_overflow() -> EvalError {
    EvalError::failed("integer overflow")
}

fn uint_overflow() -> EvalError {
    EvalError::failed("unsigned integer overflow")
}

fn duration_overflow() -> EvalError {
    EvalError::failed("duration overflow")
}

fn moved<'a>(time: Timestamp, nanos: i64) -> Result<Value<'a>> {
    time.plus(nanos).map(Value::Timestamp).ok_or_else(|| EvalError::failed("timestamp overflow"))
}

/// `a + b`
pub(crate) fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>> {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(uint_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::Str(a), Value::Str(b)) => {
            let mut text = String::with_capacity(a.len() + b.len());
            text.push_str(a);
            text.push_str(b);
            Value::text(text)
        }
        (Value::Bytes(a), Value::Bytes(b)) => Value::Bytes(a.iter().chain(b.iter()).copied().collect()),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(duration_overflow)?),
        (Value::Timestamp(time), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(time)) => {
            moved(*time, *nanos)?
        }
        (Value::List(a), Value::List(b)) => concat(a, b)?,
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn concat<'a>(a: &List<'a>, b: &List<'a>) -> Result<Value<'a>> {
    if a.len() + b.len() > LIST_ITEMS_MAX {
        return Err(EvalError::CostExceeded);
    }
    let mut items = a.iter().collect::<Result<Vec<_>>>()?;
    match a.kind() {
        ListKind::Atomic => items.extend(b.iter().collect::<Result<Vec<_>>>()?),
        ListKind::Set => {
            let mut seen: std::collections::HashSet<Vec<u8>> = std::collections::HashSet::new();
            for item in &items {
                seen.insert(skiff_object::json::encode_sorted(&item.to_tree()?));
            }
            for item in b.iter() {
                let item = item?;
                if seen.insert(skiff_object::json::encode_sorted(&item.to_tree()?)) {
                    items.push(item);
                }
            }
        }
        ListKind::Map(keys) => {
            for item in b.iter() {
                let item = item?;
                match find_by_keys(a, &item, keys)? {
                    Some(index) => items[index] = item,
                    None => items.push(item),
                }
            }
        }
    }
    Ok(Value::list(items))
}

/// `a - b`
pub(crate) fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>> {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(uint_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(duration_overflow)?),
        (Value::Timestamp(time), Value::Duration(nanos)) => {
            moved(*time, nanos.checked_neg().ok_or_else(duration_overflow)?)?
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanos = a.total_nanos() - b.total_nanos();
            Value::Duration(i64::try_from(nanos).map_err(|_| duration_overflow())?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// `a * b`
pub(crate) fn multiply<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>> {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_mul(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_mul(*b).ok_or_else(uint_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// `a / b`
pub(crate) fn divide<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>> {
    Ok(match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            return Err(EvalError::failed("division by zero"));
        }
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_div(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a / b),
        (Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// `a % b`
pub(crate) fn modulo<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>> {
    Ok(match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            return Err(EvalError::failed("modulus by zero"));
        }
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_rem(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a % b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// `-a`
pub(crate) fn negate<'a>(a: &Value<'a>) -> Result<Value<'a>> {
    Ok(match a {
        Value::Int(number) => Value::Int(number.checked_neg().ok_or_else(int_overflow)?),
        Value::Double(number) => Value::Double(-number),
        _ => return Err(EvalError::no_such_overload()),
    })
}

/// `container[key]`, `None` when there is no such item.
pub(crate) fn find<'a>(container: &Value<'a>, key: &Value<'_>) -> Result<Option<Result<Value<'a>>>> {
    match container {
        Value::List(list) => {
            let index = match key {
                Value::Int(index) => usize::try_from(*index).ok(),
                Value::Uint(index) => usize::try_from(*index).ok(),
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole")]
                Value::Double(index) if index.fract() == 0.0 && (0.0..4e9).contains(index) => Some(*index as usize),
                Value::Double(_) => return Err(EvalError::failed(format!("unsupported index value: {key}"))),
                _ => return Err(EvalError::no_such_overload()),
            };
            Ok(index.and_then(|index| list.get(index)))
        }
        Value::Map(map) => match key {
            Value::Str(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_) => Ok(map.get(key)),
            _ => Err(EvalError::no_such_overload()),
        },
        Value::Object(_) => match key {
            Value::Str(name) => Ok(select(container, name)?),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

/// `operand.field`, `None` when there is no such field.
pub(crate) fn select<'a>(operand: &Value<'a>, field: &str) -> Result<Option<Result<Value<'a>>>> {
    match operand {
        Value::Map(map) => Ok(map.field(field)),
        Value::Object(object) => Ok(match object.fields.get(field) {
            Some(value) => Some(Ok(value.clone())),
            // What a patch does not say is empty.
            None if &*object.name == "JSONPatch" && field != "value" => Some(Ok(Value::str(""))),
            None => None,
        }),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// `item in container`
pub(crate) fn contains(container: &Value<'_>, item: &Value<'_>) -> Result<bool> {
    match container {
        Value::List(list) => {
            for candidate in list.iter() {
                if equal(item, &candidate?)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => match item {
            Value::Str(_) | Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Double(_) => {
                map.get(item).transpose().map(|value| value.is_some())
            }
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A map with one more entry.
pub(crate) fn insert<'a>(map: &mut Value<'a>, key: &Value<'a>, value: Value<'a>) -> Result<()> {
    let Value::Map(Map::Values(entries)) = map else { return Err(EvalError::no_such_overload()) };
    let Some(map_key) = MapKey::of(key) else {
        return Err(EvalError::failed(format!("unsupported key type: {}", key.type_of())));
    };
    match Arc::make_mut(entries).entry(map_key) {
        std::collections::btree_map::Entry::Vacant(slot) => {
            slot.insert(value);
            Ok(())
        }
        std::collections::btree_map::Entry::Occupied(_) => {
            Err(EvalError::failed(format!("insert failed: key {key} already exists")))
        }
    }
}
