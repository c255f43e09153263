//! Sets of field paths, and their `FieldsV1` form.
//!
//! A set is a tree: the members at this level and the sets below them. A path can be a member
//! without its children being members and the other way round.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::errors::quote;
use crate::patch::DEPTH_MAX;
use crate::tree::{Key, Map, Tree};

/// One step of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// A field of a struct or an entry of a map (`f:`).
    Field(Key),
    /// The item of a list whose key fields have these values, ordered by name (`k:`).
    Key(Vec<(Box<str>, Value)>),
    /// The item of a set with this value (`v:`).
    Value(Value),
    /// The item of a list at this place (`i:`).
    Index(i64),
}

/// A scalar inside a path. Ordered as upstream orders them: numbers, strings, truth values, null.
#[derive(Clone, Debug)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Str(Box<str>),
    /// A truth value.
    Bool(bool),
    /// `null`
    Null,
}

/// A set of paths.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldSet {
    members: BTreeSet<Step>,
    children: BTreeMap<Step, FieldSet>,
}

/// A `FieldsV1` value is malformed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct FieldSetError(String);

impl Value {
    /// A scalar tree as a value; `None` for lists and maps.
    pub fn of(tree: &Tree) -> Option<Self> {
        Some(match tree {
            Tree::Int(number) => Self::Int(*number),
            Tree::Float(number) => Self::Float(*number),
            Tree::Str(text) => Self::Str(text.clone()),
            Tree::Bool(value) => Self::Bool(*value),
            Tree::Null => Self::Null,
            _ => return None,
        })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Int(_) | Self::Float(_) => 0,
            Self::Str(_) => 1,
            Self::Bool(_) => 2,
            Self::Null => 3,
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Float(number) => serde_json::to_string(number).unwrap_or_default(),
            Self::Str(text) => json_text(text),
            Self::Bool(value) => value.to_string(),
            Self::Null => "null".to_owned(),
        }
    }

    fn from_json(value: serde_json::Value) -> Option<Self> {
        Some(match value {
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Float(number.as_f64()?),
            },
            serde_json::Value::String(text) => Self::Str(text.into()),
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Null => Self::Null,
            _ => return None,
        })
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Int(a), Self::Float(b)) => (*a as f64).total_cmp(b),
            (Self::Float(a), Self::Int(b)) => a.total_cmp(&(*b as f64)),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Str(text) => f.write_str(&quote(text)),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Null => f.write_str("null"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{}", name.as_str()),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Step {
    /// A field.
    pub fn field(name: &str) -> Self {
        Self::Field(Key::Owned(name.into()))
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name.as_str()].concat(),
            Self::Key(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{}:{}", json_text(name), value.json())).collect();
                format!("k:{{{}}}", fields.join(","))
            }
            Self::Value(value) => format!("v:{}", value.json()),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads one key of a `FieldsV1` map; `None` for kinds of steps that a later version may know.
    fn decode(text: &str) -> Result<Option<Self>, FieldSetError> {
        let wrong = |why: &str| FieldSetError(format!("parsing key as path element: {why}"));
        let (Some(kind), Some(rest)) = (text.as_bytes().first(), text.get(2..)) else {
            return Err(wrong("key must be 2 characters long:"));
        };
        if text.as_bytes().get(1) != Some(&b':') {
            return Err(wrong(&format!("missing colon: {text}")));
        }
        let json = || serde_json::from_str::<serde_json::Value>(rest).map_err(|error| wrong(&error.to_string()));
        let scalar = |value| Value::from_json(value).ok_or_else(|| wrong("not a scalar"));
        Ok(Some(match kind {
            b'f' => Self::field(rest),
            b'v' => Self::Value(scalar(json()?)?),
            b'i' => Self::Index(rest.parse().map_err(|_| wrong(&format!("not an index: {rest}")))?),
            b'k' => {
                let serde_json::Value::Object(map) = json()? else { return Err(wrong("not an object")) };
                let mut fields = Vec::new();
                for (name, value) in map {
                    fields.push((name.into_boxed_str(), scalar(value)?));
                }
                fields.sort();
                Self::Key(fields)
            }
            _ => return Ok(None),
        }))
    }
}

/// A JSON string as Go writes it: `<`, `>`, `&` and two line separators are escaped as well.
pub(super) fn json_text(text: &str) -> String {
    let plain = serde_json::to_string(text).unwrap_or_default();
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    let mut out = String::with_capacity(plain.len() + 8);
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

impl FieldSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { members: BTreeSet::new(), children: BTreeMap::new() }
    }

    /// A set of paths of plain fields: `&[&["status"], &["metadata", "name"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let path: Vec<Step> = path.iter().map(|name| Step::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// Adds a path; the empty path is in no set.
    pub fn insert(&mut self, path: &[Step]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut set = self;
        for step in parents {
            // Looked up first: descending mostly meets what is there, and then clones nothing.
            if !set.children.contains_key(step) {
                set.children.insert(step.clone(), Self::new());
            }
            let Some(next) = set.children.get_mut(step) else { return };
            set = next;
        }
        set.members.insert(last.clone());
    }

    /// Whether the path itself is in the set.
    pub fn contains(&self, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let set = parents.iter().try_fold(self, |set, step| set.children.get(step));
        set.is_some_and(|set| set.members.contains(last))
    }

    /// Whether this step alone is in the set.
    pub(super) fn has_member(&self, step: &Step) -> bool {
        self.members.contains(step)
    }

    /// The set below a step, if it holds anything.
    pub(super) fn below(&self, step: &Step) -> Option<&Self> {
        self.children.get(step).filter(|set| !set.is_empty())
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Step, &Self)> {
        self.children.iter()
    }

    pub(super) fn insert_member(&mut self, step: Step) {
        self.members.insert(step);
    }

    pub(super) fn insert_child(&mut self, step: Step, set: Self) {
        if !set.is_empty() {
            self.children.insert(step, set);
        }
    }

    /// As [`FieldSet::difference`], in place.
    pub(super) fn subtract(&mut self, other: &Self) {
        for step in &other.members {
            self.members.remove(step);
        }
        for (step, theirs) in &other.children {
            let Some(mine) = self.children.get_mut(step) else { continue };
            mine.subtract(theirs);
            if mine.is_empty() {
                self.children.remove(step);
            }
        }
    }

    /// As [`FieldSet::recursive_difference`], in place.
    pub(super) fn subtract_recursively(&mut self, other: &Self) {
        for step in &other.members {
            self.members.remove(step);
            self.children.remove(step);
        }
        for (step, theirs) in &other.children {
            let Some(mine) = self.children.get_mut(step) else { continue };
            mine.subtract_recursively(theirs);
            if mine.is_empty() {
                self.children.remove(step);
            }
        }
    }

    pub(super) fn members_only(&self) -> Self {
        Self { members: self.members.clone(), children: BTreeMap::new() }
    }

    /// The paths in either set.
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.extend(other);
        out
    }

    fn extend(&mut self, other: &Self) {
        self.members.extend(other.members.iter().cloned());
        for (step, set) in &other.children {
            match self.children.get_mut(step) {
                Some(mine) => mine.extend(set),
                None => {
                    self.children.insert(step.clone(), set.clone());
                }
            }
        }
    }

    /// The paths in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self { members: &self.members & &other.members, children: BTreeMap::new() };
        for (step, set) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                out.insert_child(step.clone(), set.intersection(theirs));
            }
        }
        out
    }

    /// The paths in this set that are not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = Self { members: &self.members - &other.members, children: BTreeMap::new() };
        for (step, set) in &self.children {
            match other.children.get(step) {
                Some(theirs) => out.insert_child(step.clone(), set.difference(theirs)),
                None => out.insert_child(step.clone(), set.clone()),
            }
        }
        out
    }

    /// As [`FieldSet::difference`], and everything below the other's members goes, too.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut out = Self { members: &self.members - &other.members, children: BTreeMap::new() };
        for (step, set) in &self.children {
            if other.members.contains(step) {
                continue;
            }
            match other.children.get(step) {
                Some(theirs) => out.insert_child(step.clone(), set.recursive_difference(theirs)),
                None => out.insert_child(step.clone(), set.clone()),
            }
        }
        out
    }

    /// All paths in order, printed: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.paths_below("", &mut out);
        out
    }

    fn paths_below(&self, prefix: &str, out: &mut Vec<String>) {
        out.extend(self.members.iter().map(|step| format!("{prefix}{step}")));
        for (step, set) in &self.children {
            set.paths_below(&format!("{prefix}{step}"), out);
        }
    }

    /// The set as `FieldsV1`.
    pub fn encode(&self) -> Tree {
        Tree::Map(self.encode_map(Map::new()))
    }

    fn encode_map(&self, mut out: Map) -> Map {
        let mut members = self.members.iter().peekable();
        let mut children = self.children.iter().filter(|(_, set)| !set.is_empty()).peekable();
        // Both are ordered; upstream writes them as one order.
        loop {
            let order = match (members.peek(), children.peek()) {
                (Some(member), Some((child, _))) => member.cmp(child),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return out,
            };
            let member = if order.is_le() { members.next() } else { None };
            let child = if order.is_ge() { children.next() } else { None };
            let Some(step) = member.or(child.map(|(step, _)| step)) else { return out };
            let mut inner = Map::new();
            if member.is_some() && child.is_some() {
                inner.insert(".", Tree::map());
            }
            if let Some((_, set)) = child {
                inner = set.encode_map(inner);
            }
            out.push_unchecked(Key::from(step.encode()), Tree::Map(inner));
        }
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// When a key is malformed or the value nests too deep.
    pub fn decode(fields: &Tree) -> Result<Self, FieldSetError> {
        match fields {
            Tree::Map(map) => Ok(Self::decode_map(map, 0)?.0),
            Tree::Null => Ok(Self::new()),
            _ => Err(FieldSetError("expected an object".to_owned())),
        }
    }

    /// The set, and whether the map says that its own path is a member.
    fn decode_map(map: &Map, depth: usize) -> Result<(Self, bool), FieldSetError> {
        if depth > DEPTH_MAX {
            return Err(FieldSetError("exceeded max depth".to_owned()));
        }
        let mut set = Self::new();
        let mut is_member = false;
        for (key, value) in map.iter() {
            if key.as_str() == "." {
                is_member = true;
                continue;
            }
            let Some(step) = Step::decode(key.as_str())? else { continue };
            let Tree::Map(value) = value else { return Err(FieldSetError("expected an object".to_owned())) };
            let (below, member) = Self::decode_map(value, depth + 1)?;
            if member {
                set.members.insert(step.clone());
            }
            set.insert_child(step, below);
        }
        let empty = set.is_empty();
        Ok((set, is_member || empty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::testing::json;
    use proptest::prelude::*;

    #[test]
    fn fields_are_written_in_upstreams_order_and_read_back() {
        let text = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{}}}}},"f:finalizers":{"v:\"a\"":{}},"i:1":{}}}"#;
        let set = FieldSet::decode(&json(text)).unwrap();
        let paths = [
            ".metadata.labels",
            ".metadata.labels.app",
            ".spec[1]",
            r#".spec.containers[name="web"]"#,
            r#".spec.containers[name="web"].image"#,
            r#".spec.containers[name="web"].ports[containerPort=80,protocol="TCP"]"#,
            r#".spec.finalizers[="a"]"#,
        ];
        assert_eq!(set.paths(), paths);
        // A lone member needs no `.` of its own.
        let again = text.replace(r#"TCP\"}":{".":{}}"#, r#"TCP\"}":{}"#);
        assert_eq!(set.encode(), json(&again));
        let keys: Vec<String> =
            set.encode().at(&["f:spec"]).unwrap().as_map().unwrap().keys().map(|key| key.as_str().to_owned()).collect();
        assert_eq!(keys, ["f:containers", "f:finalizers", "i:1"]);
    }

    #[test]
    fn malformed_fields_are_refused() {
        for text in
            [r#"{"x":{}}"#, r#"{"fx":{}}"#, r#"{"k:[]":{}}"#, r#"{"k:{":{}}"#, r#"{"f:a":1}"#, r#"{"i:x":{}}"#, "[]"]
        {
            assert!(FieldSet::decode(&json(text)).is_err(), "{text}");
        }
        assert!(FieldSet::decode(&json(r#"{"z:later":{}}"#)).unwrap().is_empty());
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[a-c]".prop_map(|name| Step::field(&name)),
            ("[a-b]", 0_i64..3).prop_map(|(name, value)| Step::Key(vec![(name.into(), Value::Int(value))])),
            "[a-b<]".prop_map(|value| Step::Value(Value::Str(value.into()))),
            (0_i64..3).prop_map(Step::Index),
        ]
    }

    fn set() -> impl Strategy<Value = FieldSet> {
        prop::collection::vec(prop::collection::vec(step(), 1..4), 0..8).prop_map(|paths| {
            let mut set = FieldSet::new();
            for path in paths {
                set.insert(&path);
            }
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws(a in set(), b in set(), c in set()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.difference(&b.union(&c)), a.difference(&b).difference(&c));
            prop_assert_eq!(a.recursive_difference(&b).difference(&a), FieldSet::new());
            let mut subtracted = a.clone();
            subtracted.subtract(&b);
            prop_assert_eq!(subtracted, a.difference(&b));
            let mut subtracted = a.clone();
            subtracted.subtract_recursively(&b);
            prop_assert_eq!(subtracted, a.recursive_difference(&b));
        }

        #[test]
        fn sets_survive_encoding(a in set()) {
            prop_assert_eq!(FieldSet::decode(&a.encode()).unwrap(), a);
        }
    }
}
