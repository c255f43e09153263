//! From the tree to JSON, byte for byte as Go writes it.

use crate::decode::{keeps, zero};
use crate::schema::{Absent, Schema, Shape, StructType, TypeId};
use crate::tree::{Map, Tree};

/// Writes an object of type `ty`: fields in Go's order, absent ones in the shape Go gives them,
/// map keys sorted. What the type does not know is left out.
pub fn encode(tree: &Tree, schema: &Schema, ty: TypeId) -> Vec<u8> {
    let mut writer = Writer { out: Vec::with_capacity(1_024), schema };
    writer.typed(tree, ty);
    writer.out
}

/// Writes any tree as it is, keys in their order.
pub fn encode_untyped(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    untyped(&mut out, tree, Order::Kept);
    out
}

/// Writes any tree with the keys of all objects sorted, as Go writes objects it has no type for.
pub fn encode_sorted(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    untyped(&mut out, tree, Order::Sorted);
    out
}

/// The order of keys in untyped objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kept,
    Sorted,
}

struct Writer<'a> {
    out: Vec<u8>,
    schema: &'a Schema,
}

impl Writer<'_> {
    fn typed(&mut self, tree: &Tree, ty: TypeId) {
        let schema = self.schema;
        match (&schema.get(ty).shape, tree) {
            (Shape::Struct(shape), Tree::Map(map)) => self.structure(shape, map, schema.is_lenient(ty)),
            (Shape::Map { value, .. }, Tree::Map(map)) => self.map(map, *value),
            (Shape::List(list), Tree::List(items)) => self.list(items, list.item),
            (Shape::Either(either), Tree::Map(_)) => self.typed(tree, either.object),
            (Shape::Either(either), Tree::List(items)) if matches!(items.first(), Some(Tree::Map(_))) => {
                self.list(items, either.object);
            }
            _ => untyped(&mut self.out, tree, if schema.lenient { Order::Sorted } else { Order::Kept }),
        }
    }

    fn structure(&mut self, shape: &StructType, map: &Map, lenient: bool) {
        if shape.preserve_unknown {
            return self.open_structure(shape, map);
        }
        let schema = self.schema;
        // (place of the field, value), ordered by place; the common case is ordered already.
        let mut present: Vec<(usize, &Tree)> = Vec::with_capacity(map.len());
        let mut hint = 0;
        for (key, value) in map.iter() {
            let found = match shape.fields.get(hint) {
                Some(field) if field.name == *key => Some(hint),
                _ => shape.fields.iter().position(|field| field.name == *key),
            };
            if let Some(place) = found {
                hint = place + 1;
                if keeps(&shape.fields[place], value) || (lenient && value.is_null()) {
                    present.push((place, value));
                }
            }
        }
        if !present.is_sorted_by_key(|(place, _)| *place) {
            present.sort_by_key(|(place, _)| *place);
        }
        let mut present = present.into_iter().peekable();
        self.out.push(b'{');
        let mut first = true;
        for (place, field) in shape.fields.iter().enumerate() {
            let value = present.next_if(|(at, _)| *at == place).map(|(_, value)| value);
            if value.is_none() && field.absent == Absent::Omitted {
                continue;
            }
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.out.push(b'"');
            self.out.extend_from_slice(field.name.as_str().as_bytes());
            self.out.extend_from_slice(b"\":");
            match (value, field.absent) {
                (Some(value), _) => self.typed(value, field.ty),
                (None, Absent::EmptyStruct) => self.typed(&Tree::map(), field.ty),
                (None, Absent::Zero) => untyped(&mut self.out, &zero(schema, field.ty), Order::Kept),
                (None, _) => self.out.extend_from_slice(b"null"),
            }
        }
        self.out.push(b'}');
    }

    /// A struct with fields of its own: only custom kinds have them, and Go writes those as maps.
    fn open_structure(&mut self, shape: &StructType, map: &Map) {
        self.out.push(b'{');
        for (place, (key, value)) in sorted(map).into_iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            string(&mut self.out, key);
            self.out.push(b':');
            match shape.field(key) {
                Some(field) => self.typed(value, field.ty),
                None => untyped(&mut self.out, value, Order::Sorted),
            }
        }
        self.out.push(b'}');
    }

    fn map(&mut self, map: &Map, ty: TypeId) {
        self.out.push(b'{');
        for (place, (key, value)) in sorted(map).into_iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            string(&mut self.out, key);
            self.out.push(b':');
            self.typed(value, ty);
        }
        self.out.push(b'}');
    }

    fn list(&mut self, items: &[Tree], ty: TypeId) {
        self.out.push(b'[');
        for (place, item) in items.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.typed(item, ty);
        }
        self.out.push(b']');
    }
}

/// Entries ordered as Go orders map keys: bytewise.
fn sorted(map: &Map) -> Vec<(&str, &Tree)> {
    let mut entries: Vec<(&str, &Tree)> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn untyped(out: &mut Vec<u8>, tree: &Tree, order: Order) {
    match tree {
        Tree::Null => out.extend_from_slice(b"null"),
        Tree::Bool(true) => out.extend_from_slice(b"true"),
        Tree::Bool(false) => out.extend_from_slice(b"false"),
        Tree::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Tree::Float(number) => float(out, *number),
        Tree::Str(text) => string(out, text),
        Tree::List(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                untyped(out, item, order);
            }
            out.push(b']');
        }
        Tree::Map(map) if order == Order::Sorted => object(out, sorted(map), order),
        Tree::Map(map) => object(out, map.iter().map(|(key, value)| (key.as_str(), value)), order),
    }
}

fn object<'a>(out: &mut Vec<u8>, entries: impl IntoIterator<Item = (&'a str, &'a Tree)>, order: Order) {
    out.push(b'{');
    for (place, (key, value)) in entries.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        string(out, key);
        out.push(b':');
        untyped(out, value, order);
    }
    out.push(b'}');
}

/// Go escapes what HTML could misread, too.
fn string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !SPECIAL[usize::from(*byte)] {
            continue;
        }
        let mut escaped = [b'\\', b'u', b'0', b'0', 0, 0];
        let (escape, skip): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0c => (b"\\f", 1),
            // U+2028 and U+2029 end lines in JavaScript.
            0xe2 => match bytes.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => (b"\\u2028", 3),
                Some([0x80, 0xa9]) => (b"\\u2029", 3),
                _ => continue,
            },
            _ => {
                escaped[4] = HEX[usize::from(byte >> 4)];
                escaped[5] = HEX[usize::from(byte & 15)];
                (&escaped, 1)
            }
        };
        out.extend_from_slice(&bytes[start..at]);
        out.extend_from_slice(escape);
        start = at + skip;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Bytes that may need an escape.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special[b'<' as usize] = true;
    special[b'>' as usize] = true;
    special[b'&' as usize] = true;
    special[0xe2] = true;
    special
};

/// The shortest digits that read back the same; an exponent below 1e-6 and from 1e21 on.
fn float(out: &mut Vec<u8>, number: f64) {
    if !number.is_finite() {
        // Neither JSON nor Go has them; no decoder makes them.
        out.extend_from_slice(b"null");
        return;
    }
    let size = number.abs();
    if number == 0.0 || (1e-6..1e21).contains(&size) {
        out.extend_from_slice(number.to_string().as_bytes());
        return;
    }
    let text = format!("{number:e}");
    // Rust writes 1e21, Go 1e+21.
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => {
            out.extend_from_slice(digits.as_bytes());
            out.extend_from_slice(b"e+");
            out.extend_from_slice(exponent.as_bytes());
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
}
