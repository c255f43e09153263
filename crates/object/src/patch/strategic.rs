//! Strategic merge patch: a merge patch that knows from the schema which lists merge, and by which
//! key, and that carries directives.
//!
//! | directive | where | meaning |
//! | --- | --- | --- |
//! | `$patch: replace` | map, item of a merging list | the patch takes the place of the value |
//! | `$patch: delete` | map, item of a merging list | the value or the item goes |
//! | `$retainKeys: […]` | map | keys that are not listed go |
//! | `$setElementOrder/x: […]` | map | the order of the merged list `x` |
//! | `$deleteFromPrimitiveList/x: […]` | map | values that leave the list of scalars `x` |
//!
//! Directives never reach the result.

use std::collections::{HashMap, HashSet};

use super::{TooDeep, check_depth};
use crate::errors::{go, go_list};
use crate::schema::{PatchStrategy, Schema, Shape, TypeId};
use crate::tree::{Key, Map, Tree};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder";
const DELETE_SCALARS: &str = "$deleteFromPrimitiveList";

/// Why a strategic merge patch was refused, in upstream's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StrategicError {
    /// The patch is malformed: 400.
    #[error("{0}")]
    Malformed(&'static str),
    /// The patch does not fit the type: 422.
    #[error("{0}")]
    Unprocessable(&'static str),
    /// What upstream answers with 500: a missing merge key, mixed lists, unknown directives.
    #[error("{0}")]
    DoesNotApply(String),
    /// Too many levels: 400.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

const BAD_RETAIN_KEYS: StrategicError = StrategicError::Malformed("invalid patch format of retainKeys");
const BAD_SCALARS: StrategicError = StrategicError::Malformed("invalid patch format of primitive list");
const BAD_ORDER: StrategicError = StrategicError::Malformed("invalid patch format of setElementOrder list");

type Merged<T> = Result<T, StrategicError>;

/// Applies `patch` to `original`, both of the type `ty`.
///
/// # Errors
/// When the patch is malformed or does not fit.
pub fn apply(original: Tree, patch: Tree, schema: &Schema, ty: TypeId) -> Merged<Tree> {
    check_depth(&original)?;
    check_depth(&patch)?;
    let (Tree::Map(original), Tree::Map(patch)) = (original, patch) else {
        return Err(StrategicError::Malformed("invalid JSON document"));
    };
    Merger { schema }.map(original, patch, Some(ty)).map(Tree::Map)
}

/// What the schema says about a field.
struct Field {
    ty: Option<TypeId>,
    strategy: PatchStrategy,
    merge_key: Option<Key>,
}

impl Field {
    const fn merges(&self) -> bool {
        matches!(self.strategy, PatchStrategy::Merge | PatchStrategy::MergeRetainKeys)
    }
}

struct Merger<'s> {
    schema: &'s Schema,
}

impl Merger<'_> {
    fn field(&self, ty: Option<TypeId>, name: &str) -> Field {
        let plain = |ty| Field { ty, strategy: PatchStrategy::Default, merge_key: None };
        let Some(ty) = ty else { return plain(None) };
        match &self.schema.get(ty).shape {
            Shape::Map { value, .. } => plain(Some(*value)),
            Shape::Struct(_) | Shape::Either(_) => self.schema.field(ty, name).map_or_else(
                || plain(None),
                |field| Field { ty: Some(field.ty), strategy: field.patch, merge_key: field.patch_merge_key.clone() },
            ),
            _ => plain(None),
        }
    }

    fn item(&self, ty: Option<TypeId>) -> Option<TypeId> {
        match &self.schema.get(ty?).shape {
            Shape::List(list) => Some(list.item),
            _ => None,
        }
    }

    fn map(&self, mut original: Map, mut patch: Map, ty: Option<TypeId>) -> Merged<Map> {
        if let Some(directive) = patch.remove(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => Ok(clean_map(patch)),
                Some("delete") => Ok(Map::new()),
                _ => Err(unknown_directive(&directive, patch)),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.ordered_lists(&mut original, &mut patch, ty)?;
        let mut deletions = Vec::new();
        for (key, value) in patch {
            if key.as_str().starts_with(DELETE_SCALARS) {
                deletions.push((bare(key.as_str(), DELETE_SCALARS).ok_or(BAD_SCALARS)?.to_owned(), value));
                continue;
            }
            self.entry(&mut original, key, value, ty)?;
        }
        for (key, value) in deletions {
            delete_scalars(&mut original, &key, &value)?;
        }
        Ok(original)
    }

    fn entry(&self, original: &mut Map, key: Key, value: Tree, ty: Option<TypeId>) -> Merged<()> {
        if value.is_null() {
            original.remove(key.as_str());
            return Ok(());
        }
        let Some(slot) = original.get_mut(key.as_str()) else {
            if let Some(value) = clean(value) {
                original.push_unchecked(key, value);
            }
            return Ok(());
        };
        let field = self.field(ty, key.as_str());
        *slot = match (std::mem::take(slot), value) {
            (Tree::Map(have), Tree::Map(patch)) if field.strategy != PatchStrategy::Replace => {
                self.map(have, patch, field.ty)?.into()
            }
            (Tree::List(have), Tree::List(patch)) if field.merges() => self.list(have, patch, &field)?.into(),
            (_, value) => clean(value).unwrap_or_default(),
        };
        Ok(())
    }

    /// Merges two lists; the order is that of the patch, with the rest where it stood before.
    fn list(&self, original: Vec<Tree>, patch: Vec<Tree>, field: &Field) -> Merged<Vec<Tree>> {
        if original.is_empty() && patch.is_empty() {
            return Ok(original);
        }
        let kind = element_kind(&[&original, &patch])?;
        if kind != Kind::Map {
            let order = Positions::of_scalars(&patch);
            let before = Positions::of_scalars(&original);
            let mut seen = HashSet::new();
            let mut merged = original;
            merged.extend(patch);
            merged.retain(|item| ident(item).is_none_or(|ident| seen.insert(ident)));
            return Ok(arrange(merged, &order, &before, ident));
        }
        let Some(merge_key) = field.merge_key.as_ref().map(Key::as_str) else {
            return Err(StrategicError::DoesNotApply(
                "cannot merge lists without merge key for type struct".to_owned(),
            ));
        };
        let (original, patch) = special_items(original, patch, merge_key)?;
        let before = Positions::of_maps(&original, merge_key)?;
        let order = Positions::of_maps(&patch, merge_key)?;
        let merged = self.items(original, patch, merge_key, self.item(field.ty))?;
        require_key(&merged, merge_key)?;
        Ok(arrange(merged, &order, &before, |item| item.get(merge_key).and_then(ident)))
    }

    fn items(&self, original: Vec<Tree>, patch: Vec<Tree>, merge_key: &str, ty: Option<TypeId>) -> Merged<Vec<Tree>> {
        let mut merged = original;
        let mut places: HashMap<Ident, usize> = HashMap::new();
        for (index, item) in merged.iter().enumerate() {
            if let Some(ident) = item.get(merge_key).and_then(ident) {
                places.entry(ident).or_insert(index);
            }
        }
        for item in patch {
            let Tree::Map(item) = item else { continue };
            let ident = item.get(merge_key).and_then(ident);
            match ident.as_ref().and_then(|ident| places.get(ident)) {
                Some(index) => {
                    let slot = &mut merged[*index];
                    let Tree::Map(have) = std::mem::take(slot) else { continue };
                    *slot = self.map(have, item, ty)?.into();
                }
                None => {
                    if let Some(ident) = ident {
                        places.insert(ident, merged.len());
                    }
                    merged.push(Tree::Map(clean_map(item)));
                }
            }
        }
        Ok(merged)
    }

    /// Merges the lists that come with `$setElementOrder/…` and takes both out of the patch.
    fn ordered_lists(&self, original: &mut Map, patch: &mut Map, ty: Option<TypeId>) -> Merged<()> {
        let keys: Vec<String> =
            patch.keys().map(Key::as_str).filter(|key| key.starts_with(ORDER)).map(str::to_owned).collect();
        for key in keys {
            let Some(order) = patch.remove(&key) else { continue };
            let Tree::List(order) = order else { return Err(bad_type("[]interface {}", &order)) };
            let name = bare(&key, ORDER).ok_or(BAD_ORDER)?;
            for side in [original.get(name), patch.get(name)].into_iter().flatten() {
                if side.as_list().is_none() {
                    return Err(bad_type("[]interface {}", side));
                }
            }
            let field = self.field(ty, name);
            let merge_key = field.merge_key.as_ref().map(Key::as_str);
            let added = match patch.remove(name) {
                Some(Tree::List(items)) => Some(items),
                _ => None,
            };
            check_order(added.as_deref().unwrap_or(&[]), &order, merge_key)?;
            let had = match original.get_mut(name).map(std::mem::take) {
                Some(Tree::List(items)) => Some(items),
                _ => None,
            };
            let empty = Vec::new();
            if had.as_ref().unwrap_or(&empty).is_empty() && added.as_ref().unwrap_or(&empty).is_empty() {
                if had.is_some() || added.is_some() {
                    return Err(StrategicError::DoesNotApply("no elements in any of the given slices".to_owned()));
                }
                continue;
            }
            element_kind(&[had.as_ref().unwrap_or(&empty), added.as_ref().unwrap_or(&empty)])?;
            let before = Positions::of(had.as_deref().unwrap_or(&[]), merge_key)?;
            let merged = match (had, added) {
                (Some(had), None) => had,
                (None, Some(added)) => special_free(added),
                (Some(had), Some(added)) if field.merges() => self.list(had, added, &field)?,
                (_, added) => special_free(added.unwrap_or_default()),
            };
            let order = Positions::of(&order, merge_key)?;
            let merged = match merge_key {
                Some(merge_key) => {
                    require_key(&merged, merge_key)?;
                    arrange(merged, &order, &before, |item| item.get(merge_key).and_then(ident))
                }
                None => arrange(merged, &order, &before, ident),
            };
            original.insert(Key::from(name.to_owned()), merged);
        }
        Ok(())
    }
}

fn unknown_directive(directive: &Tree, patch: Map) -> StrategicError {
    let mut whole = patch;
    whole.insert(DIRECTIVE, directive.clone());
    let (directive, whole) = (go(directive), go(&Tree::Map(whole)));
    StrategicError::DoesNotApply(format!("unknown patch type: {directive} in map: {whole}"))
}

/// The name after `prefix/`.
fn bare<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

fn retain_keys(original: &mut Map, patch: &mut Map) -> Merged<()> {
    let Some(keep) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Tree::List(keep) = keep else { return Err(BAD_RETAIN_KEYS) };
    let keep: HashSet<&str> = keep.iter().filter_map(Tree::as_str).collect();
    for (key, value) in patch.iter() {
        let key = key.as_str();
        let directive = key.starts_with(DELETE_SCALARS) || key.starts_with(ORDER);
        if !value.is_null() && !directive && !keep.contains(key) {
            return Err(BAD_RETAIN_KEYS);
        }
    }
    original.retain(|key, _| keep.contains(key.as_str()));
    Ok(())
}

fn delete_scalars(original: &mut Map, key: &str, gone: &Tree) -> Merged<()> {
    if gone.is_null() {
        original.remove(key);
        return Ok(());
    }
    let Some(slot) = original.get_mut(key) else { return Ok(()) };
    let (Tree::List(items), Tree::List(gone)) = (slot, gone) else { return Err(BAD_SCALARS) };
    let gone: HashSet<Ident> = gone.iter().filter_map(ident).collect();
    items.retain(|item| ident(item).is_none_or(|ident| !gone.contains(&ident)));
    Ok(())
}

/// Carries out the `$patch` items of a merging list; gives the list and the items that are left.
fn special_items(original: Vec<Tree>, patch: Vec<Tree>, merge_key: &str) -> Merged<(Vec<Tree>, Vec<Tree>)> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut gone = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE) {
            None => rest.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = item.get(merge_key).ok_or_else(|| no_merge_key(&item, merge_key))?;
                    gone.extend(ident(value));
                }
                Some("replace") => replace = true,
                Some("merge") => {
                    let text = "merging lists cannot yet be specified in the patch".to_owned();
                    return Err(StrategicError::DoesNotApply(text));
                }
                _ => {
                    let text = format!("unknown patch type: {} in map: {}", go(directive), go(&item));
                    return Err(StrategicError::DoesNotApply(text));
                }
            },
        }
    }
    if replace {
        return Ok((special_free(rest), Vec::new()));
    }
    require_key(&rest, merge_key)?;
    let mut original = original;
    original.retain(|item| item.get(merge_key).and_then(ident).is_none_or(|ident| !gone.contains(&ident)));
    Ok((original, rest))
}

fn special_free(items: Vec<Tree>) -> Vec<Tree> {
    items.into_iter().filter_map(clean).collect()
}

/// The items of the patch must stand in the order that `$setElementOrder` gives.
fn check_order(patch: &[Tree], order: &[Tree], merge_key: Option<&str>) -> Merged<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let name = |item: &Tree| -> Merged<Option<Ident>> {
        let Some(merge_key) = merge_key else { return Ok(ident(item)) };
        let Tree::Map(map) = item else { return Err(bad_type("map[string]interface {}", item)) };
        map.get(merge_key).map(ident).ok_or_else(|| no_merge_key(item, merge_key))
    };
    let mut order_rest = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let wanted = name(item)?;
        let mut found = false;
        for listed in order_rest.by_ref() {
            if wanted.is_some() && name(listed)? == wanted {
                found = true;
                break;
            }
        }
        if !found {
            let (patch, order) = (go_list(patch), go_list(order));
            return Err(StrategicError::DoesNotApply(format!(
                "The order in patch list:\n{patch}\n doesn't match {ORDER} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn require_key(items: &[Tree], merge_key: &str) -> Merged<()> {
    for item in items {
        let Tree::Map(map) = item else { return Err(bad_type("map[string]interface {}", item)) };
        if !map.contains_key(merge_key) {
            return Err(no_merge_key(item, merge_key));
        }
    }
    Ok(())
}

/// A scalar as something to look up.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Ident {
    Bool(bool),
    Int(i64),
    Float(u64),
    Text(Box<str>),
}

fn ident(tree: &Tree) -> Option<Ident> {
    match tree {
        Tree::Bool(value) => Some(Ident::Bool(*value)),
        Tree::Int(number) => Some(Ident::Int(*number)),
        Tree::Float(number) => Some(Ident::Float(number.to_bits())),
        Tree::Str(text) => Some(Ident::Text(text.clone())),
        _ => None,
    }
}

/// Where each item of a list first stands.
struct Positions(HashMap<Ident, usize>);

impl Positions {
    fn of(items: &[Tree], merge_key: Option<&str>) -> Merged<Self> {
        match merge_key {
            Some(merge_key) => Self::of_maps(items, merge_key),
            None => Ok(Self::of_scalars(items)),
        }
    }

    fn of_scalars(items: &[Tree]) -> Self {
        Self::new(items.iter().map(ident))
    }

    fn of_maps(items: &[Tree], merge_key: &str) -> Merged<Self> {
        require_key(items, merge_key)?;
        Ok(Self::new(items.iter().map(|item| item.get(merge_key).and_then(ident))))
    }

    fn new(idents: impl Iterator<Item = Option<Ident>>) -> Self {
        let mut places = HashMap::new();
        for (index, ident) in idents.enumerate() {
            if let Some(ident) = ident {
                places.entry(ident).or_insert(index);
            }
        }
        Self(places)
    }

    fn get(&self, ident: Option<&Ident>) -> Option<usize> {
        ident.and_then(|ident| self.0.get(ident)).copied()
    }
}

/// Orders merged items: those in `order` as it says, the others put between them by where they
/// stood `before`.
fn arrange(
    merged: Vec<Tree>,
    order: &Positions,
    before: &Positions,
    name: impl Fn(&Tree) -> Option<Ident>,
) -> Vec<Tree> {
    let mut listed = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        let ident = name(&item);
        let was = before.get(ident.as_ref());
        match order.get(ident.as_ref()) {
            Some(place) => listed.push((place, was, item)),
            None => others.push((was.unwrap_or(usize::MAX), was, item)),
        }
    }
    listed.sort_by_key(|(place, ..)| *place);
    others.sort_by_key(|(place, ..)| *place);
    let mut out = Vec::with_capacity(listed.len() + others.len());
    let mut listed = listed.into_iter().peekable();
    for (_, was, item) in others {
        while let Some((_, listed_was, _)) = listed.peek() {
            if was.zip(*listed_was).is_some_and(|(other, listed)| other < listed) {
                break;
            }
            out.extend(listed.next().map(|(.., item)| item));
        }
        out.push(item);
    }
    out.extend(listed.map(|(.., item)| item));
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Map,
    Bool,
    Int,
    Float,
    Text,
}

/// The kind that all items share.
fn element_kind(lists: &[&Vec<Tree>]) -> Merged<Kind> {
    let mut shared = None;
    for item in lists.iter().flat_map(|list| list.iter()) {
        let kind = match item {
            Tree::Map(_) => Kind::Map,
            Tree::Bool(_) => Kind::Bool,
            Tree::Int(_) => Kind::Int,
            Tree::Float(_) => Kind::Float,
            Tree::Str(_) => Kind::Text,
            Tree::List(_) => return Err(StrategicError::Unprocessable("lists of lists are not supported")),
            Tree::Null => return Err(mixed(lists)),
        };
        if *shared.get_or_insert(kind) != kind {
            return Err(mixed(lists));
        }
    }
    shared.ok_or_else(|| StrategicError::DoesNotApply("no elements in any of the given slices".to_owned()))
}

fn mixed(lists: &[&Vec<Tree>]) -> StrategicError {
    let lists: Vec<String> = lists.iter().map(|list| go_list(list)).collect();
    StrategicError::DoesNotApply(format!("list element types are not identical: [{}]", lists.join(" ")))
}

fn no_merge_key(item: &Tree, merge_key: &str) -> StrategicError {
    StrategicError::DoesNotApply(format!("map: {} does not contain declared merge key: {merge_key}", go(item)))
}

fn bad_type(expected: &str, actual: &Tree) -> StrategicError {
    let actual = match actual {
        Tree::Null => "%!s(<nil>)",
        Tree::Bool(_) => "bool",
        Tree::Int(_) => "int64",
        Tree::Float(_) => "float64",
        Tree::Str(_) => "string",
        Tree::List(_) => "[]interface {}",
        Tree::Map(_) => "map[string]interface {}",
    };
    StrategicError::DoesNotApply(format!("expected a {expected}, but received a {actual}"))
}

/// A new value without directives and nulls; `None` when a directive says that it goes.
fn clean(value: Tree) -> Option<Tree> {
    match value {
        Tree::Map(map) if map.get(DIRECTIVE).and_then(Tree::as_str) == Some("delete") => None,
        Tree::Map(map) => Some(Tree::Map(clean_map(map))),
        Tree::List(items) => Some(Tree::List(items.into_iter().filter_map(clean).collect())),
        other => Some(other),
    }
}

fn clean_map(map: Map) -> Map {
    let directive = |key: &str| {
        key == DIRECTIVE || key == RETAIN_KEYS || bare(key, ORDER).is_some() || bare(key, DELETE_SCALARS).is_some()
    };
    let mut out = Map::new();
    for (key, value) in map {
        if value.is_null() || directive(key.as_str()) {
            continue;
        }
        if let Some(value) = clean(value) {
            out.push_unchecked(key, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::testing::{json, schema, tree};
    use proptest::prelude::*;

    fn check(original: &str, patch: &str, want: Result<&str, &str>) {
        let schema = schema();
        let ty = schema.find("Thing").unwrap();
        let got = apply(json(original), json(patch), &schema, ty);
        match want {
            Ok(want) => {
                let (got, want) = (got.unwrap(), json(want));
                // Lists compare in order, maps without.
                assert_eq!(got, want, "{original} + {patch}");
            }
            Err(want) => assert_eq!(got.unwrap_err().to_string(), want, "{original} + {patch}"),
        }
    }

    #[test]
    fn lists_merge_by_their_key_and_keep_their_order() {
        check(
            r#"{"items":[{"name":"a","n":1},{"name":"b","n":2}]}"#,
            r#"{"items":[{"name":"b","n":3},{"name":"c"}]}"#,
            Ok(r#"{"items":[{"name":"a","n":1},{"name":"b","n":3},{"name":"c"}]}"#),
        );
        check(
            r#"{"items":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#,
            r#"{"$setElementOrder/items":[{"name":"c"},{"name":"a"}],"items":[{"name":"a","n":1}]}"#,
            Ok(r#"{"items":[{"name":"b"},{"name":"c"},{"name":"a","n":1}]}"#),
        );
        check(r#"{"plain":[{"name":"a","n":1}]}"#, r#"{"plain":[{"name":"b"}]}"#, Ok(r#"{"plain":[{"name":"b"}]}"#));
        check(r#"{"finalizers":["a","b"]}"#, r#"{"finalizers":["c"]}"#, Ok(r#"{"finalizers":["c","a","b"]}"#));
    }

    #[test]
    fn directives_are_obeyed_and_do_not_stay() {
        check(
            r#"{"items":[{"name":"a"},{"name":"b"}]}"#,
            r#"{"items":[{"name":"a","$patch":"delete"}]}"#,
            Ok(r#"{"items":[{"name":"b"}]}"#),
        );
        check(
            r#"{"items":[{"name":"a"},{"name":"b"}]}"#,
            r#"{"items":[{"name":"z"},{"$patch":"replace"}]}"#,
            Ok(r#"{"items":[{"name":"z"}]}"#),
        );
        check(
            r#"{"labels":{"a":"1","b":"2"}}"#,
            r#"{"labels":{"c":"3","$patch":"replace"}}"#,
            Ok(r#"{"labels":{"c":"3"}}"#),
        );
        check(r#"{"labels":{"a":"1"}}"#, r#"{"labels":{"$patch":"delete"}}"#, Ok(r#"{"labels":{}}"#));
        check(
            r#"{"strategy":{"type":"Rolling","rolling":{"x":1}}}"#,
            r#"{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}"#,
            Ok(r#"{"strategy":{"type":"Recreate"}}"#),
        );
        check(
            r#"{"finalizers":["a","b","c"]}"#,
            r#"{"$deleteFromPrimitiveList/finalizers":["b"],"$setElementOrder/finalizers":["c","a"]}"#,
            Ok(r#"{"finalizers":["c","a"]}"#),
        );
        check(
            r#"{}"#,
            r#"{"labels":{"a":"1","b":null},"items":[{"name":"a","$patch":"delete"},{"name":"b","n":null}]}"#,
            Ok(r#"{"labels":{"a":"1"},"items":[{"name":"b"}]}"#),
        );
    }

    #[test]
    fn what_does_not_apply_says_why() {
        check(
            r#"{"items":[{"name":"a"}]}"#,
            r#"{"items":[{"n":1}]}"#,
            Err("map: map[n:1] does not contain declared merge key: name"),
        );
        check(r#"{"labels":{}}"#, r#"{"labels":{"$patch":"x"}}"#, Err("unknown patch type: x in map: map[$patch:x]"));
        check(
            r#"{"strategy":{}}"#,
            r#"{"strategy":{"$retainKeys":["a"],"type":"x"}}"#,
            Err("invalid patch format of retainKeys"),
        );
        check(
            r#"{"finalizers":["a"]}"#,
            r#"{"finalizers":[1]}"#,
            Err("list element types are not identical: [[a] [1]]"),
        );
        check(
            r#"{"items":[{"name":"a"}]}"#,
            r#"{"$setElementOrder/items":[{"name":"b"}],"items":[{"name":"a"}]}"#,
            Err("The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n"),
        );
    }

    proptest! {
        #[test]
        fn no_patch_panics(original in tree(), patch in tree()) {
            let schema = schema();
            let ty = schema.find("Thing").unwrap();
            let wrap = |inner: Tree, key: &'static str| Tree::Map([(Key::from(key), inner)].into_iter().collect());
            for key in ["items", "finalizers", "labels", "$setElementOrder/items", "$deleteFromPrimitiveList/finalizers"] {
                let _ = apply(wrap(original.clone(), key), wrap(patch.clone(), key), &schema, ty);
            }
        }

        #[test]
        fn applying_twice_changes_nothing(names in prop::collection::btree_set("[a-e]", 0..5), patched in prop::collection::btree_set("[a-e]", 0..5)) {
            let schema = schema();
            let ty = schema.find("Thing").unwrap();
            let list = |names: &std::collections::BTreeSet<String>, n: i64| {
                let items = names.iter().map(|name| {
                    let mut item = Map::new();
                    item.insert("name", name.as_str());
                    item.insert("n", n);
                    Tree::Map(item)
                });
                Tree::Map([(Key::from("items"), Tree::List(items.collect()))].into_iter().collect())
            };
            let once = apply(list(&names, 1), list(&patched, 2), &schema, ty).unwrap();
            prop_assert_eq!(apply(once.clone(), list(&patched, 2), &schema, ty).unwrap(), once);
        }
    }
}
