//! From protobuf to the tree.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::decode::{self, DEPTH_MAX, DecodeError, KeySet, keeps, put};
use crate::json;
use crate::protobuf::wire::{Fields, Value, malformed};
use crate::schema::{Either, Or, Scalar, Schema, Shape, StructType, TypeId, Wire};
use crate::time::{self, Time};
use crate::tree::{Key, Map, Tree};

/// Reads a bare message of type `ty`: its canonical tree. Unknown fields are skipped.
///
/// # Errors
/// When the bytes are no such message or nested too deep.
pub fn decode(bytes: &[u8], schema: &Schema, ty: TypeId) -> Result<Tree, DecodeError> {
    let tree = Reader { schema, depth: 0 }.message(bytes, ty)?;
    // A list of messages is one level here and two in JSON, and embedded JSON counts from its own start: whatever is
    // read must be readable as JSON, which is what is stored.
    decode::check(&tree).map(|()| tree)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    schema: &'a Schema,
    depth: usize,
}

impl Reader<'_> {
    fn deeper(self) -> Result<Self, DecodeError> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX { Err(DecodeError::TooDeep) } else { Ok(Self { depth, ..self }) }
    }

    fn message(self, bytes: &[u8], ty: TypeId) -> Result<Tree, DecodeError> {
        let reader = self.deeper()?;
        match &self.schema.get(ty).shape {
            Shape::Struct(shape) => reader.structure(bytes, shape),
            Shape::Either(either) => reader.either(bytes, either),
            _ => Err(malformed("a type without a protobuf form")),
        }
    }

    fn structure(self, bytes: &[u8], shape: &StructType) -> Result<Tree, DecodeError> {
        let mut slots = vec![Tree::Null; shape.fields.len()];
        let mut seen = HashMap::new();
        self.items(bytes, shape, &shape.wire, &mut slots, &mut seen)?;
        let mut map = Map::with_capacity(slots.iter().filter(|slot| !slot.is_null()).count());
        for (field, value) in shape.fields.iter().zip(slots) {
            if keeps(field, &value) {
                map.push_unchecked(field.name.clone(), value);
            }
        }
        Ok(Tree::Map(map))
    }

    fn items(
        self,
        bytes: &[u8],
        shape: &StructType,
        items: &[Wire],
        slots: &mut [Tree],
        seen: &mut HashMap<usize, KeySet>,
    ) -> Result<(), DecodeError> {
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            let Ok(place) = items.binary_search_by_key(&number, Wire::number) else { continue };
            match &items[place] {
                Wire::Group { items, .. } => self.deeper()?.items(bytes_of(value)?, shape, items, slots, seen)?,
                Wire::Field { index, .. } => {
                    let index = usize::from(*index);
                    let ty = shape.fields[index].ty;
                    match &self.schema.get(ty).shape {
                        Shape::Map { value: ty, .. } => {
                            let (key, value) = self.entry(bytes_of(value)?, *ty)?;
                            put(slots[index].ensure_map(), seen.entry(index).or_default(), key, value)?;
                        }
                        _ => self.field(value, ty, &mut slots[index])?,
                    }
                }
            }
        }
        Ok(())
    }

    /// A field's value; lists grow by one.
    fn field(self, value: Value<'_>, ty: TypeId, slot: &mut Tree) -> Result<(), DecodeError> {
        match &self.schema.get(ty).shape {
            Shape::List(list) if list.wrapped => *slot = self.wrapped(bytes_of(value)?, list.item)?,
            Shape::List(list) => {
                if !matches!(slot, Tree::List(_)) {
                    *slot = Tree::list();
                }
                if let Tree::List(items) = slot {
                    items.push(self.value(value, list.item)?);
                }
            }
            _ => *slot = self.value(value, ty)?,
        }
        Ok(())
    }

    /// A list in a message of its own.
    fn wrapped(self, bytes: &[u8], ty: TypeId) -> Result<Tree, DecodeError> {
        let mut items = Vec::new();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                items.push(self.value(value, ty)?);
            }
        }
        Ok(Tree::List(items))
    }

    fn entry(self, bytes: &[u8], ty: TypeId) -> Result<(Key, Tree), DecodeError> {
        let mut key = String::new();
        let mut found = None;
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => key = text(value)?,
                2 => {
                    found = Some(match &self.schema.get(ty).shape {
                        Shape::List(list) => self.wrapped(bytes_of(value)?, list.item)?,
                        _ => self.value(value, ty)?,
                    });
                }
                _ => {}
            }
        }
        Ok((Key::from(key), found.unwrap_or_else(|| crate::decode::zero(self.schema, ty))))
    }

    fn value(self, value: Value<'_>, ty: TypeId) -> Result<Tree, DecodeError> {
        match &self.schema.get(ty).shape {
            Shape::Struct(_) | Shape::Either(_) => self.message(bytes_of(value)?, ty),
            Shape::Any => raw(bytes_of(value)?),
            Shape::Scalar(scalar) => self.scalar(value, *scalar),
            Shape::List(_) | Shape::Map { .. } => Err(malformed("a type without a protobuf form")),
        }
    }

    fn scalar(self, value: Value<'_>, scalar: Scalar) -> Result<Tree, DecodeError> {
        Ok(match scalar {
            Scalar::String => text(value)?.into(),
            Scalar::Bool => Tree::Bool(varint(value)? != 0),
            Scalar::Int32 => Tree::Int((varint(value)? as i32).into()),
            Scalar::Int64 => Tree::Int(varint(value)? as i64),
            Scalar::Double => match value {
                Value::Fixed64(bits) => double(f64::from_bits(bits))?,
                _ => return Err(wrong_layout()),
            },
            Scalar::Bytes => STANDARD.encode(bytes_of(value)?).into(),
            Scalar::Quantity => quantity(bytes_of(value)?)?,
            Scalar::IntOrString => int_or_string(bytes_of(value)?)?,
            Scalar::Time => instant(bytes_of(value)?)?.map_or(Tree::Null, |time| time.rfc3339().into()),
            Scalar::MicroTime => instant(bytes_of(value)?)?.map_or(Tree::Null, |time| time.rfc3339_micro().into()),
            Scalar::Duration => {
                let nanos = numbers(bytes_of(value)?)?[0].unwrap_or_default();
                time::format_duration(nanos).into()
            }
            Scalar::FieldsV1 => raw(bytes_of(value)?)?,
        })
    }

    fn either(self, bytes: &[u8], either: &Either) -> Result<Tree, DecodeError> {
        let mut fields = Fields::new(bytes);
        let mut found = if either.or == Or::Bool { Tree::Bool(false) } else { Tree::Null };
        let mut items = Vec::new();
        while let Some((number, value)) = fields.next()? {
            match (number, either.or) {
                (1, Or::Bool) if found.as_map().is_none() => found = Tree::Bool(varint(value)? != 0),
                (2, Or::Bool) | (1, Or::List | Or::Strings) => found = self.message(bytes_of(value)?, either.object)?,
                (2, Or::List) => items.push(self.message(bytes_of(value)?, either.object)?),
                (2, Or::Strings) => items.push(text(value)?.into()),
                _ => {}
            }
        }
        Ok(if items.is_empty() { found } else { Tree::List(items) })
    }
}

fn wrong_layout() -> DecodeError {
    malformed("wrong wireType")
}

fn bytes_of(value: Value<'_>) -> Result<&[u8], DecodeError> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong_layout()),
    }
}

fn varint(value: Value<'_>) -> Result<u64, DecodeError> {
    match value {
        Value::Varint(number) => Ok(number),
        _ => Err(wrong_layout()),
    }
}

/// Go takes any bytes for a string and repairs them when it writes JSON.
fn text(value: Value<'_>) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(bytes_of(value)?).into_owned())
}

/// Whole numbers are written without a fraction, as Go does.
fn double(number: f64) -> Result<Tree, DecodeError> {
    if !number.is_finite() {
        return Err(DecodeError::Type(format!("json: unsupported value: {number}")));
    }
    let whole = number as i64;
    Ok(if whole as f64 == number && number.abs() < 1e15 { Tree::Int(whole) } else { Tree::Float(number) })
}

fn quantity(bytes: &[u8]) -> Result<Tree, DecodeError> {
    let mut fields = Fields::new(bytes);
    let mut found = String::new();
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            found = text(value)?;
        }
    }
    if found.is_empty() {
        return Ok("0".into());
    }
    match crate::quantity::canonical(&found) {
        Ok(canonical) => Ok(canonical.into()),
        Err(error) => Err(DecodeError::Type(error.to_string())),
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Tree, DecodeError> {
    let mut fields = Fields::new(bytes);
    let (mut kind, mut whole, mut string) = (0, 0, String::new());
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => kind = varint(value)?,
            2 => whole = varint(value)? as i32,
            3 => string = text(value)?,
            _ => {}
        }
    }
    Ok(if kind == 1 { string.into() } else { whole.into() })
}

fn instant(bytes: &[u8]) -> Result<Option<Time>, DecodeError> {
    let [seconds, nanos] = numbers(bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let nanos = u32::try_from(nanos.unwrap_or_default()).unwrap_or_default().min(999_999_999);
    let time = Time { seconds: seconds.unwrap_or_default(), nanos };
    if !time.is_writable() {
        return Err(DecodeError::Type("year outside of range [0,9999]".to_owned()));
    }
    Ok(Some(time).filter(|time| *time != Time::ZERO))
}

/// The whole numbers in fields 1 and 2.
fn numbers(bytes: &[u8]) -> Result<[Option<i64>; 2], DecodeError> {
    let mut found = [None; 2];
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        if let 1 | 2 = number {
            found[number as usize - 1] = Some(varint(value)? as i64);
        }
    }
    Ok(found)
}

/// The JSON inside of a `RawExtension`, `JSON` or `FieldsV1`; null when nothing is set.
fn raw(bytes: &[u8]) -> Result<Tree, DecodeError> {
    let mut fields = Fields::new(bytes);
    let mut found = Tree::Null;
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            found = json::decode_untyped(bytes_of(value)?)?;
        }
    }
    Ok(found)
}
