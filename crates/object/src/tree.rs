//! The compact tree: one API object, alive for one request.
//!
//! Maps are small ordered vectors: objects have few keys, order is the order in which they are
//! written, and keys that a schema knows cost no allocation.

use std::borrow::Borrow;
use std::fmt;

/// A JSON-shaped value.
///
/// Integers and floats are kept apart because the API does: `replicas: 1.5` is an error and an
/// `int64` must survive a round trip exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Tree {
    /// An explicit `null`. Absent and null differ in patches and in apply.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A string. Bytes are kept as their base64 text, times and quantities as written.
    Str(Box<str>),
    /// An ordered list.
    List(Vec<Tree>),
    /// An ordered map with unique keys.
    Map(Map),
}

/// A map key: a name from a schema (free to clone) or one the object brought along.
#[derive(Clone)]
pub enum Key {
    /// A name known at build time.
    Static(&'static str),
    /// A name from outside: label keys, fields of custom resources.
    Owned(Box<str>),
}

impl Key {
    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Static(name) => name,
            Self::Owned(name) => name,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Bytewise, as Go orders map keys.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialEq<str> for Key {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&'static str> for Key {
    fn from(name: &'static str) -> Self {
        Self::Static(name)
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Self::Owned(name.into_boxed_str())
    }
}

/// An ordered map with unique keys, found by linear search.
#[derive(Clone, Debug, Default)]
pub struct Map(Vec<(Key, Tree)>);

impl Map {
    /// An empty map.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty map with room for `keys`.
    pub fn with_capacity(keys: usize) -> Self {
        Self(Vec::with_capacity(keys))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of `key`, to be changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether `key` is present (its value may be null).
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets `key`, keeping its place when it was there; gives the value it had.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Tree>) -> Option<Tree> {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(key.as_str()) {
            Some(slot) => Some(std::mem::replace(slot, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// Appends `key` without looking for it. Only for decoders that have already ruled out a
    /// duplicate.
    pub fn push_unchecked(&mut self, key: Key, value: Tree) {
        debug_assert!(self.len() > 64 || !self.contains_key(key.as_str()));
        self.0.push((key, value));
    }

    /// Where `key` is.
    pub(crate) fn position(&self, key: &str) -> Option<usize> {
        self.0.iter().position(|(name, _)| name == key)
    }

    /// Whether the key at `place` is `key`.
    pub(crate) fn is_at(&self, place: usize, key: &str) -> bool {
        self.0.get(place).is_some_and(|(name, _)| name == key)
    }

    /// Replaces the value at a place of [`Map::position`].
    pub(crate) fn set_at(&mut self, place: usize, value: Tree) {
        self.0[place].1 = value;
    }

    /// The value of `key`, put there as `default` first when it was absent.
    pub fn entry_or(&mut self, key: impl Into<Key>, default: impl FnOnce() -> Tree) -> &mut Tree {
        let key = key.into();
        let index = match self.0.iter().position(|(name, _)| *name == key) {
            Some(index) => index,
            None => {
                self.0.push((key, default()));
                self.0.len() - 1
            }
        };
        &mut self.0[index].1
    }

    /// Removes `key`, keeping the order of the others.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Key, &Tree)> + ExactSizeIterator {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Keys and values in order, values to be changed in place.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut Tree)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Values in order.
    pub fn values(&self) -> impl Iterator<Item = &Tree> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Keeps only what `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(&Key, &mut Tree) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// Orders the keys as Go's encoder orders map keys: bytewise.
    pub fn sort_keys(&mut self) {
        self.0.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    }
}

/// Maps are equal when they hold the same keys and values, in whatever order.
impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        // Mostly the order is the same.
        let same_place =
            |place: usize, key: &Key| other.0.get(place).filter(|(name, _)| name == key).map(|(_, value)| value);
        self.len() == other.len()
            && self
                .iter()
                .enumerate()
                .all(|(place, (key, value))| same_place(place, key).or_else(|| other.get(key.as_str())) == Some(value))
    }
}

impl FromIterator<(Key, Tree)> for Map {
    fn from_iter<I: IntoIterator<Item = (Key, Tree)>>(entries: I) -> Self {
        let mut map = Self::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl IntoIterator for Map {
    type Item = (Key, Tree);
    type IntoIter = std::vec::IntoIter<(Key, Tree)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Tree {
    /// An empty map.
    pub const fn map() -> Self {
        Self::Map(Map::new())
    }

    /// An empty list.
    pub const fn list() -> Self {
        Self::List(Vec::new())
    }

    /// Whether this is an explicit null.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// How many values this is, itself included.
    pub fn size(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Self::Map(map) => 1 + map.values().map(Self::size).sum::<usize>(),
            _ => 1,
        }
    }

    /// How many lists and maps nest, itself included.
    pub fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            Self::Map(map) => 1 + map.values().map(Self::depth).max().unwrap_or_default(),
            _ => 0,
        }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if this is one.
    pub const fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The list, if this is one.
    pub fn as_list(&self) -> Option<&[Tree]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The list to be changed, if this is one.
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Tree>> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The map, if this is one.
    pub const fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The map to be changed, if this is one.
    pub const fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The field `key` of a map; `None` for any other value.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.as_map()?.get(key)
    }

    /// The field `key` of a map, to be changed in place.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        self.as_map_mut()?.get_mut(key)
    }

    /// The value below a path of field names: `at(&["spec", "template", "spec"])`.
    pub fn at(&self, path: &[&str]) -> Option<&Tree> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }

    /// As [`Tree::at`], to be changed in place.
    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Tree> {
        path.iter().try_fold(self, |tree, key| tree.get_mut(key))
    }

    /// The string below a path, `""` when there is none: the API treats both alike.
    pub fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Self::as_str).unwrap_or("")
    }

    /// The whole number below a path.
    pub fn int_at(&self, path: &[&str]) -> Option<i64> {
        self.at(path)?.as_int()
    }

    /// The truth value below a path.
    pub fn bool_at(&self, path: &[&str]) -> Option<bool> {
        self.at(path)?.as_bool()
    }

    /// The items of the list below a path, none when there is no list.
    pub fn list_at(&self, path: &[&str]) -> &[Tree] {
        self.at(path).and_then(Self::as_list).unwrap_or(&[])
    }

    /// Makes this a map (replacing anything else) and gives it.
    pub fn ensure_map(&mut self) -> &mut Map {
        if !matches!(self, Self::Map(_)) {
            *self = Self::map();
        }
        match self {
            Self::Map(map) => map,
            _ => unreachable!("made a map above"),
        }
    }

    /// Sets the value below a path, making maps on the way.
    pub fn set(&mut self, path: &[&'static str], value: impl Into<Tree>) {
        let mut tree = self;
        for key in path {
            tree = tree.ensure_map().entry_or(*key, Tree::map);
        }
        *tree = value.into();
    }

    /// Removes what is below a path and gives it.
    pub fn unset(&mut self, path: &[&str]) -> Option<Tree> {
        let (last, parents) = path.split_last()?;
        self.at_mut(parents)?.as_map_mut()?.remove(last)
    }
}

impl From<bool> for Tree {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Tree {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Tree {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<&str> for Tree {
    fn from(value: &str) -> Self {
        Self::Str(value.into())
    }
}

impl From<String> for Tree {
    fn from(value: String) -> Self {
        Self::Str(value.into_boxed_str())
    }
}

impl From<Vec<Tree>> for Tree {
    fn from(value: Vec<Tree>) -> Self {
        Self::List(value)
    }
}

impl From<Map> for Tree {
    fn from(value: Map) -> Self {
        Self::Map(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_makes_maps_on_the_way_and_unset_takes_away() {
        let mut tree = Tree::map();
        tree.set(&["metadata", "name"], "web");
        assert_eq!(tree.str_at(&["metadata", "name"]), "web");
        assert_eq!(tree.unset(&["metadata", "name"]), Some("web".into()));
        assert_eq!(tree.str_at(&["metadata", "name"]), "");
    }

    #[test]
    fn maps_compare_without_order_and_keep_it() {
        let one: Map = [("a".into(), Tree::Int(1)), ("b".into(), Tree::Int(2))].into_iter().collect();
        let two: Map = [("b".into(), Tree::Int(2)), ("a".into(), Tree::Int(1))].into_iter().collect();
        assert_eq!(one, two);
        assert_eq!(two.keys().map(Key::as_str).collect::<Vec<_>>(), ["b", "a"]);
    }
}
