//! From the tree to protobuf, byte for byte as Go writes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::json;
use crate::protobuf::wire::{Layout, put_bytes, put_message, put_number, put_tag};
use crate::schema::{Either, Field, Or, Scalar, Schema, Shape, StructType, TypeId, Wire};
use crate::time::{self, Time};
use crate::tree::{Map, Tree};

/// Writes an object of type `ty` as a bare message, without its envelope.
pub fn encode(tree: &Tree, schema: &Schema, ty: TypeId) -> Vec<u8> {
    let mut out = Vec::with_capacity(1_024);
    let writer = Writer { schema };
    writer.message(&mut out, Some(tree), ty);
    out
}

#[derive(Clone, Copy)]
struct Writer<'a> {
    schema: &'a Schema,
}

impl Writer<'_> {
    /// The content of the message of a struct.
    fn message(self, out: &mut Vec<u8>, tree: Option<&Tree>, ty: TypeId) {
        match &self.schema.get(ty).shape {
            Shape::Struct(shape) => self.items(out, tree.and_then(Tree::as_map), shape, &shape.wire),
            Shape::Either(either) => self.either(out, tree, either),
            _ => {}
        }
    }

    fn items(self, out: &mut Vec<u8>, map: Option<&Map>, shape: &StructType, items: &[Wire]) {
        for item in items {
            match item {
                Wire::Group { number, items } => {
                    put_message(out, *number, |out| self.items(out, map, shape, items));
                }
                Wire::Field { number, index } => {
                    let field = &shape.fields[usize::from(*index)];
                    let value = map.and_then(|map| map.get(field.name.as_str())).filter(|value| !value.is_null());
                    self.field(out, *number, field, value);
                }
            }
        }
    }

    fn field(self, out: &mut Vec<u8>, number: u32, field: &Field, value: Option<&Tree>) {
        match (&self.schema.get(field.ty).shape, value) {
            (Shape::List(list), Some(Tree::List(items))) if list.wrapped => {
                put_message(out, number, |out| self.list(out, 1, items, list.item));
            }
            (Shape::List(list), Some(Tree::List(items))) => self.list(out, number, items, list.item),
            (Shape::Map { value: ty, .. }, Some(Tree::Map(map))) => self.map(out, number, map, *ty),
            (Shape::List(_) | Shape::Map { .. }, _) => {}
            (Shape::Scalar(Scalar::Bytes), None) => {}
            (_, None) if field.pointer => {}
            (_, value) => self.value(out, number, value, field.ty),
        }
    }

    fn list(self, out: &mut Vec<u8>, number: u32, items: &[Tree], ty: TypeId) {
        for item in items {
            self.value(out, number, Some(item), ty);
        }
    }

    fn map(self, out: &mut Vec<u8>, number: u32, map: &Map, ty: TypeId) {
        let mut entries: Vec<(&str, &Tree)> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
        entries.sort_by_key(|(key, _)| *key);
        for (key, value) in entries {
            put_message(out, number, |out| {
                put_bytes(out, 1, key.as_bytes());
                match (&self.schema.get(ty).shape, value) {
                    (Shape::List(list), Tree::List(items)) if list.wrapped => {
                        put_message(out, 2, |out| self.list(out, 1, items, list.item));
                    }
                    _ => self.value(out, 2, Some(value), ty),
                }
            });
        }
    }

    /// A single value, its zero when absent.
    fn value(self, out: &mut Vec<u8>, number: u32, value: Option<&Tree>, ty: TypeId) {
        match &self.schema.get(ty).shape {
            Shape::Struct(_) | Shape::Either(_) => put_message(out, number, |out| self.message(out, value, ty)),
            Shape::Scalar(scalar) => self.scalar(out, number, value, *scalar),
            Shape::Any => put_message(out, number, |out| raw(out, value)),
            // Neither lists of lists nor lists of maps have a protobuf form.
            Shape::List(_) | Shape::Map { .. } => {}
        }
    }

    fn scalar(self, out: &mut Vec<u8>, number: u32, value: Option<&Tree>, scalar: Scalar) {
        let text = || value.and_then(Tree::as_str).unwrap_or_default();
        let whole = || value.and_then(Tree::as_int).unwrap_or_default();
        match scalar {
            Scalar::String => put_bytes(out, number, text().as_bytes()),
            Scalar::Bool => put_number(out, number, i64::from(value.and_then(Tree::as_bool).unwrap_or_default())),
            Scalar::Int32 | Scalar::Int64 => put_number(out, number, whole()),
            Scalar::Double => {
                let float = match value {
                    Some(Tree::Float(float)) => *float,
                    _ => whole() as f64,
                };
                put_tag(out, number, Layout::Fixed64);
                out.extend_from_slice(&float.to_le_bytes());
            }
            Scalar::Bytes => put_bytes(out, number, &STANDARD.decode(text()).unwrap_or_default()),
            Scalar::Quantity => put_message(out, number, |out| {
                put_bytes(out, 1, value.and_then(Tree::as_str).unwrap_or("0").as_bytes());
            }),
            Scalar::IntOrString => put_message(out, number, |out| {
                put_number(out, 1, i64::from(matches!(value, Some(Tree::Str(_)))));
                put_number(out, 2, whole());
                put_bytes(out, 3, text().as_bytes());
            }),
            Scalar::Time => put_message(out, number, |out| instant(out, text(), Precision::Seconds)),
            Scalar::MicroTime => put_message(out, number, |out| instant(out, text(), Precision::Micros)),
            Scalar::Duration => put_message(out, number, |out| {
                put_number(out, 1, time::parse_duration(text()).unwrap_or_default());
            }),
            Scalar::FieldsV1 => put_message(out, number, |out| raw(out, value)),
        }
    }

    fn either(self, out: &mut Vec<u8>, value: Option<&Tree>, either: &Either) {
        let object = value.filter(|value| value.as_map().is_some());
        let schema = |out: &mut Vec<u8>, number| {
            if object.is_some() {
                put_message(out, number, |out| self.message(out, object, either.object));
            }
        };
        match either.or {
            Or::Bool => {
                // Go's decoder sets both when it reads an object.
                let allows = object.is_some() || value == Some(&Tree::Bool(true));
                put_number(out, 1, i64::from(allows));
                schema(out, 2);
            }
            Or::List => {
                schema(out, 1);
                for item in value.and_then(Tree::as_list).unwrap_or_default() {
                    put_message(out, 2, |out| self.message(out, Some(item), either.object));
                }
            }
            Or::Strings => {
                schema(out, 1);
                for item in value.and_then(Tree::as_list).unwrap_or_default() {
                    put_bytes(out, 2, item.as_str().unwrap_or_default().as_bytes());
                }
            }
        }
    }
}

/// How much of a second is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Precision {
    Seconds,
    Micros,
}

/// The content of a `Time`; a time that was never set is an empty message.
fn instant(out: &mut Vec<u8>, text: &str, precision: Precision) {
    let Ok(time) = Time::parse(text) else { return };
    put_number(out, 1, time.seconds);
    let nanos = if precision == Precision::Micros { time.nanos / 1_000 * 1_000 } else { 0 };
    put_number(out, 2, i64::from(nanos));
}

/// The content of a message around JSON.
fn raw(out: &mut Vec<u8>, value: Option<&Tree>) {
    if let Some(value) = value {
        put_bytes(out, 1, &json::encode_untyped(value));
    }
}
