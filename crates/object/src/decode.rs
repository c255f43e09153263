//! What all decoders share: limits, errors, what they report, and the leaves.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::quantity;
use crate::schema::{Absent, Field, Scalar, Schema, Shape, TypeId};
use crate::time::{self, Time};
use crate::tree::{Key, Map, Tree};

/// How deep objects may nest. Go allows 10,000; nothing real comes near this, and every recursion
/// over a decoded tree fits a thread's stack because of it.
pub const DEPTH_MAX: usize = 512;

/// How many keys one object may have. Maps are searched key by key, which nobody notices in real
/// objects; without a bound, merging two maps made for the purpose would cost minutes.
pub const KEYS_MAX: usize = 16_384;

/// As many unknown and duplicate fields are named in an answer as upstream names.
const ISSUES_MAX: usize = 100;

/// Why bytes are no object of the wanted type.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not well-formed.
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, but not of the type the schema asks for.
    #[error("{0}")]
    Type(String),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("exceeded max depth")]
    TooDeep,
    /// An object has more than [`KEYS_MAX`] keys.
    #[error("an object has more than {KEYS_MAX} keys")]
    TooManyKeys,
}

/// Checks that a tree keeps the limits of decoders, so that what is written of it can be read.
///
/// # Errors
/// When it is too deep, or an object has too many keys.
pub fn check(tree: &Tree) -> Result<(), DecodeError> {
    check_below(tree, DEPTH_MAX)
}

fn check_below(tree: &Tree, levels: usize) -> Result<(), DecodeError> {
    let deeper = || levels.checked_sub(1).ok_or(DecodeError::TooDeep);
    match tree {
        Tree::List(items) => {
            let levels = deeper()?;
            items.iter().try_for_each(|item| check_below(item, levels))
        }
        Tree::Map(map) if map.len() > KEYS_MAX => Err(DecodeError::TooManyKeys),
        Tree::Map(map) => {
            let levels = deeper()?;
            map.values().try_for_each(|value| check_below(value, levels))
        }
        _ => Ok(()),
    }
}

/// Puts an entry into a map that is being read; whether the key was there already.
pub(crate) fn put(map: &mut Map, seen: &mut KeySet, key: Key, value: Tree) -> Result<bool, DecodeError> {
    if let Some(place) = seen.place(map, key.as_str()) {
        map.set_at(place, value);
        return Ok(true);
    }
    if map.len() >= KEYS_MAX {
        return Err(DecodeError::TooManyKeys);
    }
    map.push_unchecked(key, value);
    Ok(false)
}

/// Finds repeated keys: by comparing while there are few, by hashing from then on.
#[derive(Default)]
pub(crate) struct KeySet(HashMap<Box<str>, usize>);

impl KeySet {
    /// Above so many keys, hashing is cheaper.
    const LINEAR_MAX: usize = 32;

    /// Where `key` is in `map`, of which every key was asked for here first; one that is new will be put behind the
    /// others. A body of nothing but repetitions must not search the map for each.
    fn place(&mut self, map: &Map, key: &str) -> Option<usize> {
        if map.len() < Self::LINEAR_MAX {
            return map.position(key);
        }
        if self.0.is_empty() {
            self.0 = map.keys().enumerate().map(|(place, key)| (key.as_str().into(), place)).collect();
        }
        let Some(place) = self.0.get(key).copied() else {
            self.0.insert(key.into(), map.len());
            return None;
        };
        // A field that was met twice has been taken out, and others have moved up.
        if map.is_at(place, key) { Some(place) } else { map.position(key) }
    }
}

/// What a decoder noticed and tolerated; `fieldValidation` decides what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Issues {
    found: Vec<Issue>,
}

/// A field that was ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Issue {
    /// A field that the type does not have.
    Unknown(String),
    /// A field that appeared before; the last one counts.
    Duplicate(String),
    /// A YAML key that appeared before in the same map; the last one counts.
    Repeated {
        /// Where, from 1.
        line: usize,
        /// The key.
        key: String,
    },
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field {}", crate::errors::quote(path)),
            Self::Duplicate(path) => write!(f, "duplicate field {}", crate::errors::quote(path)),
            Self::Repeated { line, key } => {
                write!(f, "line {line}: key {} already set in map", crate::errors::quote(key))
            }
        }
    }
}

impl Issues {
    /// Whether there is nothing to report.
    pub const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In the order in which they were met.
    pub fn iter(&self) -> impl Iterator<Item = &Issue> {
        self.found.iter()
    }

    /// One message per issue; what YAML found is one message together. Each is a warning of its own
    /// when `fieldValidation` is `Warn`.
    pub fn messages(&self) -> Vec<String> {
        let repeated = |issue: &&Issue| matches!(issue, Issue::Repeated { .. });
        let lines: String = self.found.iter().filter(repeated).map(|issue| format!("\n  {issue}")).collect();
        let together = (!lines.is_empty()).then(|| format!("yaml: unmarshal errors:{lines}"));
        let others = self.found.iter().filter(|issue| !repeated(issue)).map(ToString::to_string);
        together.into_iter().chain(others).collect()
    }

    /// Notes an issue, once, as long as there is room.
    pub fn push(&mut self, issue: Issue) {
        if self.found.len() < ISSUES_MAX && !self.found.contains(&issue) {
            self.found.push(issue);
        }
    }

    /// Adds what another pass over the same bytes noticed.
    pub fn extend(&mut self, other: Self) {
        for issue in other.found {
            self.push(issue);
        }
    }
}

/// All of them, as upstream's strict decoder joins them: `unknown field "spec.a", duplicate field "b"`.
impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages().join(", "))
    }
}

/// One step from the root to where a decoder is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// A field of a struct, with the type that has it.
    Field(&'a str, TypeId),
    /// A key of a map or of an untyped object, as written.
    Key(&'a str),
    /// An item of a list.
    Index(usize),
}

/// Prints steps as upstream prints paths: `spec.containers[0].image`.
pub(crate) fn path(steps: &[Step<'_>]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Field(name, _) | Step::Key(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Step::Index(index) => {
                out.push_str(&format!("[{index}]"));
            }
        }
    }
    out
}

/// The error of Go's decoder for a value of the wrong type.
pub(crate) fn mismatch(schema: &Schema, steps: &[Step<'_>], value: &str, wanted: &str) -> DecodeError {
    let fields: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Field(name, _) => Some(*name),
            _ => None,
        })
        .collect();
    let owner = steps.iter().rev().find_map(|step| match step {
        Step::Field(_, owner) => Some(short_name(schema.get(*owner).name.as_str())),
        _ => None,
    });
    DecodeError::Type(match owner {
        Some(owner) => {
            format!("json: cannot unmarshal {value} into Go struct field {owner}.{} of type {wanted}", fields.join("."))
        }
        None => format!("json: cannot unmarshal {value} into Go value of type {wanted}"),
    })
}

/// `io.k8s.api.core.v1.Pod` is `Pod`.
fn short_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A type as Go's messages name it: `[]v1.Container`, `map[string]string`, `int32`.
pub(crate) fn go_type(schema: &Schema, ty: TypeId) -> String {
    let ty = schema.get(ty);
    match &ty.shape {
        Shape::Struct(_) | Shape::Either(_) => {
            let mut parts = ty.name.as_str().rsplit('.');
            match (parts.next(), parts.next()) {
                (Some(name), Some(version)) => format!("{version}.{name}"),
                _ => "map[string]interface {}".to_owned(),
            }
        }
        Shape::Map { value, .. } => format!("map[string]{}", go_type(schema, *value)),
        Shape::List(list) => format!("[]{}", go_type(schema, list.item)),
        Shape::Scalar(scalar) => go_scalar(*scalar).to_owned(),
        Shape::Any => "interface {}".to_owned(),
    }
}

const fn go_scalar(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes => "[]uint8",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Duration => "v1.Duration",
        Scalar::FieldsV1 => "v1.FieldsV1",
    }
}

/// Why a leaf does not fit.
pub(crate) enum Unfit {
    /// Of another JSON type; says which, in Go's words.
    Mismatch(String),
    /// Of the right JSON type, but not readable; a whole message.
    Other(String),
}

/// A JSON scalar turned into the canonical form of `scalar`.
pub(crate) fn leaf(scalar: Scalar, value: Tree) -> Result<Tree, Unfit> {
    match (scalar, value) {
        (Scalar::String, value @ Tree::Str(_)) | (Scalar::Bool, value @ Tree::Bool(_)) => Ok(value),
        (Scalar::Int32 | Scalar::IntOrString, Tree::Int(number)) => match i32::try_from(number) {
            Ok(_) => Ok(Tree::Int(number)),
            Err(_) if scalar == Scalar::Int32 => Err(Unfit::Mismatch(format!("number {number}"))),
            Err(_) => Err(Unfit::Other(format!("json: cannot unmarshal number {number} into Go value of type int32"))),
        },
        (Scalar::Int64 | Scalar::Double, value @ Tree::Int(_)) => Ok(value),
        (Scalar::Double, value @ Tree::Float(_)) => Ok(value),
        (Scalar::Int32 | Scalar::Int64, Tree::Float(number)) => Err(Unfit::Mismatch(format!("number {number}"))),
        (Scalar::IntOrString, value @ Tree::Str(_)) => Ok(value),
        (Scalar::Bytes, Tree::Str(text)) => bytes(text),
        (Scalar::Quantity, Tree::Str(text)) => quantity(&text),
        (Scalar::Quantity, Tree::Int(number)) => quantity(&number.to_string()),
        (Scalar::Quantity, Tree::Float(number)) => quantity(&number.to_string()),
        // Go's zero time is no time.
        (Scalar::Time | Scalar::MicroTime, Tree::Str(text)) if Time::parse(&text) == Ok(Time::ZERO) => Ok(Tree::Null),
        (Scalar::Time, Tree::Str(text)) => match Time::parse(&text) {
            Ok(time) if time.nanos == 0 && text.len() == 20 && text.ends_with('Z') => Ok(Tree::Str(text)),
            Ok(time) => Ok(time.rfc3339().into()),
            Err(error) => Err(Unfit::Other(error.to_string())),
        },
        (Scalar::MicroTime, Tree::Str(text)) => match Time::parse(&text) {
            Ok(time) => Ok(time.rfc3339_micro().into()),
            Err(error) => Err(Unfit::Other(error.to_string())),
        },
        (Scalar::Duration, Tree::Str(text)) => match time::parse_duration(&text) {
            Ok(nanos) => Ok(time::format_duration(nanos).into()),
            Err(error) => Err(Unfit::Other(error.to_string())),
        },
        (Scalar::FieldsV1, value) => Ok(value),
        (Scalar::Time | Scalar::MicroTime | Scalar::Duration, value) => {
            Err(Unfit::Other(format!("json: cannot unmarshal {} into Go value of type string", json_type(&value))))
        }
        (_, value) => Err(Unfit::Mismatch(json_type(&value).to_owned())),
    }
}

fn quantity(text: &str) -> Result<Tree, Unfit> {
    match quantity::canonical(text) {
        Ok(canonical) => Ok(canonical.into()),
        Err(error) => Err(Unfit::Other(error.to_string())),
    }
}

/// Go ignores line ends in base64.
fn bytes(text: Box<str>) -> Result<Tree, Unfit> {
    let clean = text.contains(['\r', '\n']).then(|| text.replace(['\r', '\n'], ""));
    let clean = clean.as_deref().unwrap_or(&text);
    match STANDARD.decode(clean) {
        Ok(_) if clean.len() == text.len() => Ok(Tree::Str(text)),
        Ok(_) => Ok(clean.into()),
        Err(error) => {
            use base64::DecodeError::{InvalidByte, InvalidLastSymbol};
            let place = match error {
                InvalidByte(place, _) | InvalidLastSymbol(place, _) => place,
                _ => clean.len(),
            };
            Err(Unfit::Other(format!("illegal base64 data at input byte {place}")))
        }
    }
}

/// What Go's messages call a JSON value.
pub(crate) const fn json_type(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "null",
        Tree::Bool(_) => "bool",
        Tree::Int(_) | Tree::Float(_) => "number",
        Tree::Str(_) => "string",
        Tree::List(_) => "array",
        Tree::Map(_) => "object",
    }
}

/// The zero value of a type, as an item or a map value that is `null` becomes in Go.
pub(crate) fn zero(schema: &Schema, ty: TypeId) -> Tree {
    match &schema.get(ty).shape {
        Shape::Struct(_) => Tree::map(),
        Shape::Scalar(Scalar::String) => "".into(),
        Shape::Scalar(Scalar::Bool) => Tree::Bool(false),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => Tree::Int(0),
        Shape::Scalar(Scalar::Quantity) => "0".into(),
        Shape::Scalar(Scalar::Duration) => "0s".into(),
        _ => Tree::Null,
    }
}

/// Whether Go's `omitempty` leaves this out.
fn is_empty(value: &Tree) -> bool {
    match value {
        Tree::Null | Tree::Bool(false) | Tree::Int(0) => true,
        Tree::Float(number) => *number == 0.0,
        Tree::Str(text) => text.is_empty(),
        Tree::List(items) => items.is_empty(),
        Tree::Map(map) => map.is_empty(),
        Tree::Bool(true) | Tree::Int(_) => false,
    }
}

/// Whether Go would tell `value` from an absent field.
pub(crate) fn keeps(field: &Field, value: &Tree) -> bool {
    match value {
        Tree::Null => false,
        Tree::Map(_) if field.absent == Absent::EmptyStruct => true,
        value => field.pointer || field.absent != Absent::Omitted || !is_empty(value),
    }
}
