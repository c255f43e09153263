//! Objects from bytes.

use skiff_object::schema::{Or, Scalar, Shape};
use skiff_object::{Key, Map, Schema, Tree, TypeId};

/// Names that meet again in several objects of one input: keys of maps, of list items, values.
const WORDS: [&str; 16] =
    ["", "a", "b", "web", "app", "x/y", "TCP", "UDP", "http", "name", "80", "a.b/c", "$patch", "Ä", "-1", "0"];
const QUANTITIES: [&str; 8] = ["1", "0", "100m", "1.5Gi", "12e6", "-3k", "0.000000001", "9223372036854775807Ei"];
const TIMES: [&str; 4] =
    ["2026-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-01-02T03:04:05.678901+01:00"];
const DURATIONS: [&str; 4] = ["0s", "1h30m", "-1.5s", "1ns"];
const BASE64: [&str; 4] = ["", "AA==", "c2tpZmY=", "/+8="];
/// Deeper than any built-in type nests where it does not contain itself.
const DEPTH_MAX: usize = 12;

/// Bytes from which decisions are taken, one after the other; zeroes when they have run out.
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// All of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether anything is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// A number below `bound`, of at most 255.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A word that other objects may have, too.
    pub fn word(&mut self) -> &'static str {
        self.pick(&WORDS)
    }

    /// An object of a type, as a client could write it: nulls and unknown fields are possible.
    pub fn object(&mut self, schema: &Schema, ty: TypeId) -> Tree {
        self.value(schema, ty, 0)
    }

    fn value(&mut self, schema: &Schema, ty: TypeId, depth: usize) -> Tree {
        if depth > DEPTH_MAX {
            return Tree::Null;
        }
        match &schema.get(ty).shape {
            Shape::Struct(shape) => {
                let mut map = Map::new();
                for _ in 0..self.below(6) {
                    if shape.fields.is_empty() {
                        break;
                    }
                    let field = &shape.fields[self.below(shape.fields.len())];
                    let value = self.value(schema, field.ty, depth + 1);
                    map.insert(field.name.clone(), value);
                }
                // Items of lists are found by these.
                for name in ["name", "containerPort", "protocol", "key", "type", "port"] {
                    if let Some(field) = shape.field(name)
                        && !map.contains_key(name)
                        && self.byte() & 1 == 1
                    {
                        let value = self.value(schema, field.ty, depth + 1);
                        map.insert(field.name.clone(), value);
                    }
                }
                Tree::Map(map)
            }
            Shape::Map { value, .. } => self.map(|source| source.value(schema, *value, depth + 1)),
            Shape::List(list) => {
                let items = (0..self.below(4)).map(|_| self.value(schema, list.item, depth + 1)).collect();
                Tree::List(items)
            }
            Shape::Scalar(scalar) => self.scalar(*scalar, depth),
            Shape::Either(either) => match (self.byte() & 1, either.or) {
                (0, _) => self.value(schema, either.object, depth + 1),
                (_, Or::Bool) => Tree::Bool(self.byte() & 1 == 1),
                (_, Or::List) => Tree::List(vec![self.value(schema, either.object, depth + 1)]),
                (_, Or::Strings) => Tree::List(vec![self.word().into()]),
            },
            Shape::Any => self.any(depth),
        }
    }

    fn map(&mut self, mut value: impl FnMut(&mut Self) -> Tree) -> Tree {
        let mut map = Map::new();
        for _ in 0..self.below(4) {
            let key = self.word();
            let value = value(self);
            map.insert(Key::Static(key), value);
        }
        Tree::Map(map)
    }

    fn scalar(&mut self, scalar: Scalar, depth: usize) -> Tree {
        match scalar {
            Scalar::String => self.word().into(),
            Scalar::Bool => Tree::Bool(self.byte() & 1 == 1),
            Scalar::Int32 => Tree::Int(i64::from(self.int() as i32)),
            Scalar::Int64 => Tree::Int(self.int()),
            Scalar::Double => self.double(),
            Scalar::Bytes => self.pick(&BASE64).into(),
            Scalar::Quantity => self.pick(&QUANTITIES).into(),
            Scalar::IntOrString if self.byte() & 1 == 1 => self.word().into(),
            Scalar::IntOrString => Tree::Int(i64::from(self.int() as i32)),
            Scalar::Time | Scalar::MicroTime => self.pick(&TIMES).into(),
            Scalar::Duration => self.pick(&DURATIONS).into(),
            Scalar::FieldsV1 => self.map(|source| source.any(depth + 1)),
        }
    }

    fn int(&mut self) -> i64 {
        match self.byte() {
            255 => i64::MAX,
            254 => i64::MIN,
            253 => i64::from(i32::MAX) + 1,
            small => i64::from(small as i8),
        }
    }

    fn double(&mut self) -> Tree {
        match self.byte() {
            255 => Tree::Float(1e21),
            254 => Tree::Float(-1e-7),
            253 => Tree::Float(f64::MAX),
            small if small & 1 == 1 => Tree::Float(f64::from(small) / 4.0 + 0.125),
            small => Tree::Int(i64::from(small)),
        }
    }

    /// Any JSON value.
    pub fn any(&mut self, depth: usize) -> Tree {
        match self.below(if depth > DEPTH_MAX { 5 } else { 7 }) {
            0 => Tree::Null,
            1 => Tree::Bool(self.byte() & 1 == 1),
            2 => Tree::Int(self.int()),
            3 => self.double(),
            4 => self.word().into(),
            5 => Tree::List((0..self.below(4)).map(|_| self.any(depth + 1)).collect()),
            _ => self.map(|source| source.any(depth + 1)),
        }
    }

    /// Puts nulls and directives of strategic merge into a patch.
    pub fn season(&mut self, patch: &mut Tree) {
        match patch {
            Tree::Map(map) => {
                for (_, value) in map.iter_mut() {
                    match self.byte() {
                        0..=15 => *value = Tree::Null,
                        _ => self.season(value),
                    }
                }
                match self.byte() {
                    1 => drop(map.insert("$patch", self.pick(&["replace", "delete", "merge", "else"]))),
                    2 => drop(map.insert("$retainKeys", vec![Tree::from(self.word()), Tree::from(self.word())])),
                    3 => {
                        let field = map.keys().next().map_or("", Key::as_str).to_owned();
                        let prefix = self.pick(&["$setElementOrder/", "$deleteFromPrimitiveList/"]);
                        map.insert(
                            Key::from(format!("{prefix}{field}")),
                            vec![self.any(DEPTH_MAX), self.any(DEPTH_MAX)],
                        );
                    }
                    _ => {}
                }
            }
            Tree::List(items) => items.iter_mut().for_each(|item| self.season(item)),
            _ => {}
        }
    }
}
