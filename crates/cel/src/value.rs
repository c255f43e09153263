//! Values: what expressions are evaluated over and to.
//!
//! Objects of the API are not copied: a list or map of an object is a reference to its tree, and
//! what it holds becomes values as it is looked at.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use skiff_object::{Key, Map as TreeMap, Tree};

use crate::decl::{DeclType, ListKind, Shape};
use crate::error::EvalError;
use crate::escape::{escape, unescape};
use crate::opaque::Opaque;
use crate::time::{self, Timestamp};
use crate::types::Type;

/// A value. `'a` is the life of the objects and programs it borrows from.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    Str(Text<'a>),
    /// `bytes`
    Bytes(Arc<[u8]>),
    /// `timestamp`
    Timestamp(Timestamp),
    /// `duration`, in nanoseconds.
    Duration(i64),
    /// `list`
    List(List<'a>),
    /// `map`, and objects of the API.
    Map(Map<'a>),
    /// An object an expression constructed: `Object{…}`, `JSONPatch{…}`.
    Object(Arc<Object<'a>>),
    /// `optional_type`
    Optional(Option<Arc<Value<'a>>>),
    /// A type.
    Type(Type),
    /// A value of a library: a quantity, an address, a version, ….
    Opaque(Opaque),
    /// Data preserved without a schema: it can be compared, nothing else.
    Unknown(&'a Tree),
}

/// A string: borrowed, or made by the expression.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Part of an object or of the program.
    Borrowed(&'a str),
    /// Made on the way.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// A list of an object, its items described by `items` when there is a schema.
    Tree {
        /// The items.
        list: &'a [Tree],
        /// The type of the list.
        decl: Option<&'a DeclType>,
    },
    /// A list an expression made.
    Values(Arc<Vec<Value<'a>>>),
}

/// A map.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// A map or object of an object, described by `decl` when there is a schema.
    Tree {
        /// The entries.
        map: &'a TreeMap,
        /// The type of the map or object.
        decl: Option<&'a DeclType>,
    },
    /// A map an expression made.
    Values(Arc<BTreeMap<MapKey, Value<'a>>>),
}

/// A key of a map. Numbers are one key whatever their type: `1`, `1u` and `1.0`.
#[derive(Clone, Debug)]
pub enum MapKey {
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `string`
    Str(Arc<str>),
}

/// A constructed object: its type and the fields given.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    /// The name of its type: `Object.spec`.
    pub name: Arc<str>,
    /// Its fields.
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

impl MapKey {
    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) | Self::Uint(_) => 1,
            Self::Str(_) => 2,
        }
    }

    fn number(&self) -> i128 {
        match self {
            Self::Int(number) => i128::from(*number),
            Self::Uint(number) => i128::from(*number),
            _ => 0,
        }
    }

    pub(crate) fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(number) => Value::Int(*number),
            Self::Uint(number) => Value::Uint(*number),
            Self::Str(text) => Value::Str(Text::Shared(Arc::clone(text))),
        }
    }

    /// The key a value is; `None` when it can be none.
    pub(crate) fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Uint(number) => Some(Self::Uint(*number)),
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.2e18 => Some(Self::Int(*number as i64)),
            Value::Str(text) => Some(Self::Str(match text {
                Text::Borrowed(text) => (*text).into(),
                Text::Shared(text) => Arc::clone(text),
            })),
            _ => None,
        }
    }
}

impl PartialEq for MapKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for MapKey {}

impl PartialOrd for MapKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MapKey {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (a, b) if a.rank() == 1 && b.rank() == 1 => a.number().cmp(&b.number()),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl<'a> List<'a> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Tree { list, .. } => list.len(),
            Self::Values(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Tree { list, decl } => list.get(index).map(|item| Value::of(item, decl.and_then(DeclType::items))),
            Self::Values(values) => values.get(index).cloned().map(Ok),
        }
    }

    /// The items.
    ///
    /// # Errors
    /// For an item that is not what the schema says.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn kind(&self) -> &ListKind {
        match self {
            Self::Tree { decl: Some(DeclType { shape: Shape::List { kind, .. }, .. }), .. } => kind,
            _ => &ListKind::Atomic,
        }
    }
}

impl<'a> Map<'a> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Tree { map, .. } => map.len(),
            Self::Values(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key; for an object of a schema the key is the name expressions use.
    pub(crate) fn get(&self, key: &Value<'_>) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Tree { .. } => match key {
                Value::Str(name) => self.field(name),
                _ => None,
            },
            Self::Values(values) => values.get(&MapKey::of(key)?).cloned().map(Ok),
        }
    }

    /// The value of a string key.
    pub(crate) fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let (map, decl) = match self {
            Self::Values(values) => return values.get(&MapKey::Str(name.into())).cloned().map(Ok),
            Self::Tree { map, decl: None } => return map.get(name).map(|value| Value::of(value, None)),
            Self::Tree { map, decl: Some(decl) } => (map, decl),
        };
        match &decl.shape {
            Shape::Map { values } => map.get(name).map(|value| Value::of(value, Some(values))),
            Shape::Object { fields } => {
                let real;
                let name = if name.contains("__") {
                    real = unescape(name)?;
                    real.as_str()
                } else {
                    name
                };
                // A null of an object counts as absent.
                let value = map.get(name).filter(|value| !value.is_null())?;
                Some(Value::of(value, Some(&fields.get(name)?.ty)))
            }
            _ => None,
        }
    }

    /// The keys, as expressions see them.
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Values(values) => values.keys().map(MapKey::value).collect(),
            Self::Tree { map, decl } => {
                let object = decl.and_then(|decl| match &decl.shape {
                    Shape::Object { fields } => Some(fields),
                    _ => None,
                });
                let mut keys = Vec::with_capacity(map.len());
                for key in map.keys() {
                    match object {
                        None => keys.push(Value::str(key.as_str())),
                        Some(fields) if fields.contains_key(key.as_str()) => match escape(key.as_str()) {
                            Some(escaped) if escaped != key.as_str() => keys.push(Value::text(escaped)),
                            _ => keys.push(Value::str(key.as_str())),
                        },
                        Some(_) => {}
                    }
                }
                keys
            }
        }
    }
}

impl<'a> Value<'a> {
    /// A borrowed string.
    pub const fn str(text: &'a str) -> Self {
        Self::Str(Text::Borrowed(text))
    }

    /// A string of its own.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Str(Text::Shared(text.into()))
    }

    /// A list of its own.
    pub fn list(values: Vec<Self>) -> Self {
        Self::List(List::Values(Arc::new(values)))
    }

    /// A filled optional.
    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// A tree as it is.
    pub fn dynamic(tree: &'a Tree) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Bool(value) => Self::Bool(*value),
            Tree::Int(number) => Self::Int(*number),
            Tree::Float(number) => Self::Double(*number),
            Tree::Str(text) => Self::str(text),
            Tree::List(list) => Self::List(List::Tree { list, decl: None }),
            Tree::Map(map) => Self::Map(Map::Tree { map, decl: None }),
        }
    }

    /// A tree as its schema describes it.
    ///
    /// # Errors
    /// When it is not what the schema says.
    pub fn typed(tree: &'a Tree, decl: &'a DeclType) -> Result<Self, EvalError> {
        let wrong = |expected: &str| {
            Err(EvalError::failed(format!("invalid data, expected {expected}, got {}", go_type(tree))))
        };
        if tree.is_null() {
            return if decl.nullable {
                Ok(Self::Null)
            } else {
                Err(EvalError::failed("invalid data, got null for schema with nullable=false"))
            };
        }
        match (&decl.shape, tree) {
            (Shape::Unknown, tree) => Ok(Self::Unknown(tree)),
            (Shape::IntOrString, Tree::Str(text)) | (Shape::Str, Tree::Str(text)) => Ok(Self::str(text)),
            (Shape::IntOrString | Shape::Int, Tree::Int(number)) => Ok(Self::Int(*number)),
            (Shape::IntOrString, _) => {
                Err(EvalError::failed("invalid data, expected XIntOrString value to be either a string or integer"))
            }
            (Shape::Bool, Tree::Bool(value)) => Ok(Self::Bool(*value)),
            (Shape::Double, Tree::Float(number)) => Ok(Self::Double(*number)),
            #[expect(clippy::cast_precision_loss, reason = "what upstream does with a whole number of type number")]
            (Shape::Double, Tree::Int(number)) => Ok(Self::Double(*number as f64)),
            (Shape::Bytes | Shape::Duration | Shape::Date | Shape::DateTime, Tree::Str(text)) => {
                formatted(text, &decl.shape)
            }
            (Shape::List { .. }, Tree::List(list)) => Ok(Self::List(List::Tree { list, decl: Some(decl) })),
            (Shape::Map { .. } | Shape::Object { .. }, Tree::Map(map)) => {
                Ok(Self::Map(Map::Tree { map, decl: Some(decl) }))
            }
            (Shape::List { .. }, _) => {
                Err(EvalError::failed("invalid data, expected an array for the provided schema with type=array"))
            }
            (Shape::Map { .. } | Shape::Object { .. }, _) => {
                Err(EvalError::failed("invalid data, expected a map for the provided schema with type=object"))
            }
            (Shape::Bool, _) => wrong("bool"),
            (Shape::Int, _) => wrong("int"),
            (Shape::Double, _) => wrong("float"),
            _ => wrong("string"),
        }
    }

    pub(crate) fn of(tree: &'a Tree, decl: Option<&'a DeclType>) -> Result<Self, EvalError> {
        match decl {
            Some(decl) => Self::typed(tree, decl),
            None => Ok(Self::dynamic(tree)),
        }
    }

    /// The truth value, if this is one.
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type at run time.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::Str(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Object(object) => Type::Object(Arc::clone(&object.name)),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Type(_) => Type::Type(None),
            Self::Opaque(opaque) => opaque.type_of(),
            Self::Unknown(_) => Type::object("unknown"),
        }
    }

    /// What `size()` counts, 1 for what has no size.
    pub(crate) fn cost_size(&self) -> u64 {
        match self {
            Self::Str(text) => text.chars().count() as u64,
            Self::Bytes(octets) => octets.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(inner)) => inner.cost_size(),
            Self::Opaque(opaque) => opaque.cost_size(),
            _ => 1,
        }
    }

    /// The value as JSON: what a messageExpression, a patch or a log takes.
    ///
    /// # Errors
    /// For a value JSON has no form for.
    pub fn to_tree(&self) -> Result<Tree, EvalError> {
        Ok(match self {
            Self::Null => Tree::Null,
            Self::Bool(value) => Tree::Bool(*value),
            Self::Int(number) => Tree::Int(*number),
            Self::Uint(number) => match i64::try_from(*number) {
                Ok(number) => Tree::Int(number),
                #[expect(clippy::cast_precision_loss, reason = "JSON numbers above an int64 are doubles")]
                Err(_) => Tree::Float(*number as f64),
            },
            Self::Double(number) => Tree::Float(*number),
            Self::Str(text) => Tree::from(&**text),
            Self::Bytes(octets) => Tree::from(base64::engine::general_purpose::STANDARD.encode(octets)),
            Self::Timestamp(time) => Tree::from(time.to_string()),
            Self::Duration(nanos) => Tree::from(time::duration_text(*nanos)),
            Self::List(List::Tree { list, .. }) => Tree::List(list.to_vec()),
            Self::Map(Map::Tree { map, .. }) => Tree::Map((*map).clone()),
            Self::List(list) => Tree::List(list.iter().map(|item| item?.to_tree()).collect::<Result<_, _>>()?),
            Self::Map(Map::Values(values)) => {
                let mut map = TreeMap::with_capacity(values.len());
                for (key, value) in values.iter() {
                    let MapKey::Str(key) = key else {
                        return Err(EvalError::failed(format!("map key {} is not a string", key.value())));
                    };
                    map.push_unchecked(Key::from(key.to_string()), value.to_tree()?);
                }
                Tree::Map(map)
            }
            Self::Object(object) => {
                let mut map = TreeMap::with_capacity(object.fields.len());
                for (name, value) in &object.fields {
                    map.push_unchecked(Key::from(name.to_string()), value.to_tree()?);
                }
                Tree::Map(map)
            }
            Self::Unknown(tree) => (*tree).clone(),
            Self::Optional(_) | Self::Type(_) | Self::Opaque(_) => {
                let name = self.type_of();
                return Err(EvalError::failed(format!("type conversion error from '{name}' to JSON")));
            }
        })
    }
}

fn formatted<'a>(text: &'a str, shape: &Shape) -> Result<Value<'a>, EvalError> {
    match shape {
        Shape::Bytes => {
            let octets = base64::engine::general_purpose::STANDARD.decode(text);
            let octets = octets.map_err(|_| EvalError::failed(format!("Invalid byte formatted string {text}")))?;
            Ok(Value::Bytes(octets.into()))
        }
        Shape::Duration => match time::parse_schema_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => Err(EvalError::failed(format!("Invalid duration {text}: unable to parse {text} as duration"))),
        },
        Shape::Date => match Timestamp::parse(&format!("{text}T00:00:00Z")) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => Err(EvalError::failed(format!("Invalid date formatted string {text}"))),
        },
        _ => match Timestamp::parse(text) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => Err(EvalError::failed(format!("Invalid date-time formatted string {text}"))),
        },
    }
}

/// The name Go's `%T` has for a JSON value.
fn go_type(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "<nil>",
        Tree::Bool(_) => "bool",
        Tree::Int(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::Str(_) => "string",
        Tree::List(_) => "[]interface {}",
        Tree::Map(_) => "map[string]interface {}",
    }
}

/// As it stands in error messages: `no such key: x`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Uint(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "{number}"),
            Self::Str(text) => f.write_str(text),
            Self::Timestamp(time) => write!(f, "{time}"),
            Self::Duration(nanos) => f.write_str(&time::duration_text(*nanos)),
            other => f.write_str(other.type_of().runtime_name()),
        }
    }
}
