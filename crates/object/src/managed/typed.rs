//! Objects as apply sees them: which paths an object has, how two objects differ, how a
//! configuration is merged in and how paths are taken out.
//!
//! The semantics are those of structured-merge-diff over our schema: struct fields and map entries
//! are owned one by one, lists by their kind, atomic values as a whole.

use std::collections::BTreeMap;

use super::items::{grouped, scalar_error, step_of};
use super::set::{FieldSet, Step};
use crate::errors::go;
use crate::patch::{DEPTH_MAX, depth};
use crate::schema::{ListKind, Scalar, Schema, Shape, StructType, TypeId};
use crate::tree::{Key, Map, Tree};

/// What differs between two objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Only in the first.
    pub removed: FieldSet,
    /// In both, with other values.
    pub modified: FieldSet,
    /// Only in the second.
    pub added: FieldSet,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// What the second has of its own.
    pub fn touched(&self) -> FieldSet {
        self.modified.union(&self.added)
    }

    /// Without these fields and all below them.
    pub fn without(mut self, fields: &FieldSet) -> Self {
        for set in [&mut self.removed, &mut self.modified, &mut self.added] {
            set.subtract_recursively(fields);
        }
        self
    }
}

/// A type as apply sees it.
#[derive(Clone, Copy)]
enum Ty {
    Known(TypeId),
    /// Follows from the value; maps entry by entry, lists as a whole.
    Deduced,
    /// Follows from the value; everything as a whole.
    Atomic,
}

/// How a value of a type is walked.
#[derive(Clone, Copy)]
enum Form<'s> {
    Scalar(Option<Scalar>),
    Map { fields: Option<&'s StructType>, value: Option<Ty>, atomic: bool },
    List { item: Ty, kind: &'s ListKind },
}

impl Form<'_> {
    const fn is_like(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::Scalar(_), Self::Scalar(_))
                | (Self::Map { .. }, Self::Map { .. })
                | (Self::List { .. }, Self::List { .. })
        )
    }
}

/// The schema and the type of the objects.
#[derive(Clone, Copy)]
pub struct Typed<'s> {
    schema: &'s Schema,
    ty: TypeId,
}

const ATOMIC: ListKind = ListKind::Atomic;

impl<'s> Typed<'s> {
    /// Objects of the type `ty`.
    pub const fn new(schema: &'s Schema, ty: TypeId) -> Self {
        Self { schema, ty }
    }

    fn form(&self, ty: Ty, value: Option<&Tree>) -> Form<'s> {
        let deduced = |inner: Ty, atomic| match value {
            Some(Tree::List(_)) => Form::List { item: Ty::Atomic, kind: &ATOMIC },
            Some(Tree::Map(_) | Tree::Null) | None => Form::Map { fields: None, value: Some(inner), atomic },
            Some(_) => Form::Scalar(None),
        };
        let id = match ty {
            Ty::Deduced => return deduced(Ty::Deduced, false),
            Ty::Atomic => return deduced(Ty::Atomic, true),
            Ty::Known(id) => id,
        };
        match &self.schema.get(id).shape {
            Shape::Struct(fields) => Form::Map {
                fields: Some(fields),
                value: fields.preserve_unknown.then_some(Ty::Deduced),
                atomic: fields.atomic,
            },
            Shape::Map { value, atomic } => Form::Map { fields: None, value: Some(Ty::Known(*value)), atomic: *atomic },
            Shape::List(list) => Form::List { item: Ty::Known(list.item), kind: &list.kind },
            Shape::Scalar(Scalar::FieldsV1) | Shape::Any | Shape::Either(_) => deduced(Ty::Deduced, false),
            Shape::Scalar(scalar) => Form::Scalar(Some(*scalar)),
        }
    }

    /// The type of an entry; `None` for a field that the struct does not have.
    fn entry(fields: Option<&StructType>, value: Option<Ty>, name: &str) -> Option<Ty> {
        fields.and_then(|fields| fields.field(name)).map(|field| Ty::Known(field.ty)).or(value)
    }

    /// Checks that a configuration fits its type, as far as apply needs it to. Gives every problem.
    pub fn validate(&self, object: &Tree) -> Vec<String> {
        let mut errors = Vec::new();
        if depth(object) > DEPTH_MAX {
            errors.push("exceeded max depth".to_owned());
        } else {
            self.validate_value(Ty::Known(self.ty), object, "", &mut errors);
        }
        errors
    }

    /// The paths of `object` whose values are replaced as a whole: `.spec.args`.
    pub fn atomics(&self, object: &Tree) -> Vec<String> {
        let mut paths = Vec::new();
        if depth(object) <= DEPTH_MAX {
            self.collect_atomics(Ty::Known(self.ty), object, "", &mut paths);
        }
        paths
    }

    fn collect_atomics(&self, ty: Ty, value: &Tree, path: &str, paths: &mut Vec<String>) {
        match (self.form(ty, Some(value)), value) {
            (Form::Map { fields, value: entry, atomic }, Tree::Map(map)) => {
                if atomic {
                    paths.push(path.to_owned());
                }
                for (key, value) in map.iter() {
                    if let Some(ty) = Self::entry(fields, entry, key.as_str()) {
                        self.collect_atomics(ty, value, &format!("{path}.{}", key.as_str()), paths);
                    }
                }
            }
            (Form::List { item, kind }, Tree::List(items)) => {
                if matches!(kind, ListKind::Atomic) {
                    paths.push(path.to_owned());
                }
                for (index, value) in items.iter().enumerate() {
                    self.collect_atomics(item, value, &format!("{path}[{index}]"), paths);
                }
            }
            _ => {}
        }
    }

    fn validate_value(&self, ty: Ty, value: &Tree, path: &str, errors: &mut Vec<String>) {
        let mut wrong = |text: String| errors.push(if path.is_empty() { text } else { format!("{path}: {text}") });
        match (self.form(ty, Some(value)), value) {
            (_, Tree::Null) => {}
            (Form::Scalar(scalar), value) => {
                if let Some(text) = scalar_error(scalar, value) {
                    wrong(text);
                }
            }
            (Form::Map { fields, value: inner, .. }, Tree::Map(map)) => {
                for (key, value) in map.iter() {
                    let path = format!("{path}.{}", key.as_str());
                    match Self::entry(fields, inner, key.as_str()) {
                        Some(ty) => self.validate_value(ty, value, &path, errors),
                        None => errors.push(format!("{path}: field not declared in schema")),
                    }
                }
            }
            (Form::List { item, kind }, Tree::List(items)) => {
                let mut seen = std::collections::BTreeSet::new();
                for (index, value) in items.iter().enumerate() {
                    let step = match kind {
                        ListKind::Atomic => Step::Index(index as i64),
                        _ => match step_of(kind, value) {
                            Ok(step) => step,
                            Err(text) => {
                                errors.push(prefixed(path, &format!("element {index}: {text}")));
                                continue;
                            }
                        },
                    };
                    let here = format!("{path}{step}");
                    if !seen.insert(step.clone()) {
                        errors.push(prefixed(path, &format!("duplicate entries for key {step}")));
                    }
                    self.validate_value(item, value, &here, errors);
                }
            }
            (Form::Map { .. }, value) => wrong(format!("expected map, got &{{{}}}", go(value))),
            (Form::List { .. }, value) => wrong(format!("expected list, got &{{{}}}", go(value))),
        }
    }

    /// The paths of everything that an object has.
    pub fn field_set(&self, object: &Tree) -> FieldSet {
        let mut set = FieldSet::new();
        self.collect(Ty::Known(self.ty), object, &mut Vec::new(), &mut set);
        set
    }

    fn collect(&self, ty: Ty, value: &Tree, path: &mut Vec<Step>, set: &mut FieldSet) {
        match self.form(ty, Some(value)) {
            Form::Scalar(_) | Form::Map { atomic: true, .. } | Form::List { kind: ListKind::Atomic, .. } => {
                set.insert(path);
            }
            Form::Map { fields, value: inner, .. } => {
                for (key, value) in value.as_map().into_iter().flat_map(Map::iter) {
                    let Some(ty) = Self::entry(fields, inner, key.as_str()) else { continue };
                    let declared = fields.is_some_and(|fields| fields.field(key.as_str()).is_some());
                    path.push(Step::Field(key.clone()));
                    self.collect(ty, value, path, set);
                    if !declared || value.is_null() || value.as_map().is_some_and(Map::is_empty) {
                        set.insert(path);
                    }
                    path.pop();
                }
            }
            Form::List { item, kind } => {
                for (step, values) in grouped(kind, value.as_list().unwrap_or(&[])) {
                    path.push(step);
                    // What is there twice is owned as a whole.
                    if let [value] = values.as_slice() {
                        self.collect(item, value, path, set);
                    }
                    set.insert(path);
                    path.pop();
                }
            }
        }
    }

    /// How `new` differs from `old`.
    pub fn compare(&self, old: &Tree, new: &Tree) -> Comparison {
        let mut out = Comparison::default();
        self.compare_values(Ty::Known(self.ty), Some(old), Some(new), &mut Vec::new(), &mut out);
        out
    }

    fn compare_values(
        &self,
        ty: Ty,
        old: Option<&Tree>,
        new: Option<&Tree>,
        path: &mut Vec<Step>,
        out: &mut Comparison,
    ) {
        let (old_form, new_form) = (self.form(ty, old), self.form(ty, new));
        let leaf = match (old, new) {
            (_, None) => self.compare_as(old_form, old, new, path, out),
            (None, _) => self.compare_as(new_form, old, new, path, out),
            _ if old_form.is_like(&new_form) => self.compare_as(new_form, old, new, path, out),
            _ => {
                self.compare_as(old_form, old, new, path, out);
                self.compare_as(new_form, old, new, path, out)
            }
        };
        if !leaf {
            match (old, new) {
                (None, _) => out.added.insert(path),
                (_, None) => out.removed.insert(path),
                _ => {}
            }
        }
    }

    /// Compares two values as values of one form; says whether they were compared as a whole.
    fn compare_as(
        &self,
        form: Form<'s>,
        old: Option<&Tree>,
        new: Option<&Tree>,
        path: &mut Vec<Step>,
        out: &mut Comparison,
    ) -> bool {
        match form {
            Form::Map { fields, value, atomic: false } => {
                let (old_map, new_map) = (old.and_then(Tree::as_map), new.and_then(Tree::as_map));
                if old_map.is_none_or(Map::is_empty) && new_map.is_none_or(Map::is_empty) {
                    compare_leaf(old, new, path, out);
                    return true;
                }
                for (key, old, new) in zip(old_map, new_map) {
                    let Some(ty) = Self::entry(fields, value, key.as_str()) else { continue };
                    path.push(Step::Field(key.clone()));
                    self.compare_values(ty, old, new, path, out);
                    path.pop();
                }
                false
            }
            Form::List { item, kind } if *kind != ListKind::Atomic => {
                let items = |tree: Option<&'_ Tree>| tree.and_then(Tree::as_list).map_or(0, <[Tree]>::len);
                if items(old) == 0 && items(new) == 0 {
                    compare_leaf(old, new, path, out);
                    return true;
                }
                self.compare_items(item, kind, old, new, path, out);
                false
            }
            _ => {
                compare_leaf(old, new, path, out);
                true
            }
        }
    }

    fn compare_items(
        &self,
        item: Ty,
        kind: &ListKind,
        old: Option<&Tree>,
        new: Option<&Tree>,
        path: &mut Vec<Step>,
        out: &mut Comparison,
    ) {
        let old = grouped(kind, old.and_then(Tree::as_list).unwrap_or(&[]));
        let mut new = grouped(kind, new.and_then(Tree::as_list).unwrap_or(&[]));
        let mut pairs: Vec<(Step, Vec<&Tree>, Vec<&Tree>)> = Vec::with_capacity(old.len().max(new.len()));
        for (step, values) in old {
            let others = new.remove(&step).unwrap_or_default();
            pairs.push((step, values, others));
        }
        pairs.extend(new.into_iter().map(|(step, values)| (step, Vec::new(), values)));
        for (step, old, new) in pairs {
            path.push(step);
            match (old.as_slice(), new.as_slice()) {
                ([] | [_], [] | [_]) => {
                    self.compare_values(item, old.first().copied(), new.first().copied(), path, out);
                }
                ([_, _, ..], [_, _, ..]) => {
                    if old != new {
                        out.modified.insert(path);
                    }
                }
                ([_, _, ..], rest) => {
                    if let Some(one) = rest.first() {
                        self.compare_values(item, None, Some(one), path, out);
                    }
                    out.removed.insert(path);
                }
                (rest, _) => {
                    if let Some(one) = rest.first() {
                        self.compare_values(item, Some(one), None, path, out);
                    }
                    out.added.insert(path);
                }
            }
            path.pop();
        }
    }

    /// `live` with `config` merged in.
    ///
    /// # Errors
    /// What keeps the two from being merged: items without a key, or twice in `config`.
    pub fn merge(&self, live: &Tree, config: &Tree) -> Result<Tree, String> {
        let merged = self.merge_values(Ty::Known(self.ty), Some(live), Some(config))?;
        Ok(merged.unwrap_or_else(Tree::map))
    }

    fn merge_values(&self, ty: Ty, live: Option<&Tree>, config: Option<&Tree>) -> Result<Option<Tree>, String> {
        let form = match config {
            None => self.form(ty, live),
            Some(Tree::Null) if live.is_some() => self.form(ty, live),
            Some(_) => self.form(ty, config),
        };
        match form {
            Form::Map { fields, value, atomic: false } => {
                let (live_map, config_map) = (live.and_then(Tree::as_map), config.and_then(Tree::as_map));
                if live_map.is_none_or(Map::is_empty) && config_map.is_none_or(Map::is_empty) {
                    return Ok(config.or(live).cloned());
                }
                let mut out = Map::new();
                for (key, live, config) in zip(live_map, config_map) {
                    let merged = match Self::entry(fields, value, key.as_str()) {
                        Some(ty) => self
                            .merge_values(ty, live, config)
                            .map_err(|error| prefixed(&format!(".{}", key.as_str()), &error))?,
                        None => config.or(live).cloned(),
                    };
                    if let Some(merged) = merged {
                        out.push_unchecked(key.clone(), merged);
                    }
                }
                Ok((!out.is_empty()).then_some(Tree::Map(out)))
            }
            Form::List { item, kind } if *kind != ListKind::Atomic => {
                let (live_list, config_list) =
                    (live.and_then(Tree::as_list).unwrap_or(&[]), config.and_then(Tree::as_list).unwrap_or(&[]));
                if live_list.is_empty() && config_list.is_empty() {
                    return Ok(config.or(live).cloned());
                }
                let out = self.merge_items(item, kind, live_list, config_list)?;
                Ok((!out.is_empty()).then_some(Tree::List(out)))
            }
            _ => Ok(config.or(live).cloned()),
        }
    }

    /// Merges two lists, keeping the order of both as far as they agree.
    fn merge_items(&self, item: Ty, kind: &ListKind, live: &[Tree], config: &[Tree]) -> Result<Vec<Tree>, String> {
        let mut config_items: Vec<Step> = Vec::with_capacity(config.len());
        let mut config_by: BTreeMap<Step, &Tree> = BTreeMap::new();
        for (index, value) in config.iter().enumerate() {
            let step = step_of(kind, value).map_err(|error| format!("element {index}: {error}"))?;
            if config_by.insert(step.clone(), value).is_some() {
                return Err(format!("duplicate entries for key {step}"));
            }
            config_items.push(step);
        }
        let mut live_items: Vec<Step> = Vec::with_capacity(live.len());
        // What live has twice is not merged but replaced.
        let mut live_by: BTreeMap<Step, Option<&Tree>> = BTreeMap::new();
        for (index, value) in live.iter().enumerate() {
            let step = step_of(kind, value).map_err(|error| format!("element {index}: {error}"))?;
            live_by.entry(step.clone()).and_modify(|value| *value = None).or_insert(Some(value));
            live_items.push(step);
        }
        let mut shared = config_items.iter().filter(|step| live_by.contains_key(*step));
        let mut next_shared = shared.next();
        let mut out = Vec::with_capacity(live.len().max(config.len()));
        let mut done: std::collections::BTreeSet<&Step> = std::collections::BTreeSet::new();
        let mut take = |step: &Step, live: Option<&Tree>| -> Result<(), String> {
            let merged = self.merge_values(item, live, config_by.get(step).copied());
            out.extend(merged.map_err(|error| prefixed(&step.to_string(), &error))?);
            Ok(())
        };
        let of_live = |step: &Step| live_by.get(step).copied().flatten();
        let (mut l, mut r) = (0, 0);
        while l < live_items.len() || r < config_items.len() {
            if let (Some(left), Some(right)) = (live_items.get(l), config_items.get(r)) {
                if left == right {
                    done.insert(right);
                    take(right, of_live(right))?;
                    (l, r) = (l + 1, r + 1);
                    next_shared = shared.next();
                    continue;
                }
                if config_by.contains_key(left) && next_shared.is_some_and(|next| next != left) {
                    l += 1;
                    continue;
                }
            }
            if let Some(left) = live_items.get(l) {
                if !config_by.contains_key(left) {
                    take(left, Some(&live[l]))?;
                    l += 1;
                    continue;
                }
                if done.contains(left) {
                    l += 1;
                }
            }
            if let Some(right) = config_items.get(r) {
                done.insert(right);
                take(right, of_live(right))?;
                r += 1;
                if next_shared == Some(right) {
                    next_shared = shared.next();
                }
            }
        }
        Ok(out)
    }

    /// The object without the paths of `gone`. Containers that lose everything become null, which
    /// tells them from those that were never there.
    pub fn remove(&self, object: &Tree, gone: &FieldSet) -> Tree {
        self.remove_values(Ty::Known(self.ty), object, gone)
    }

    fn remove_values(&self, ty: Ty, value: &Tree, gone: &FieldSet) -> Tree {
        match (self.form(ty, Some(value)), value) {
            (Form::Map { fields, value: inner, atomic: false }, Tree::Map(map)) => {
                let mut out = Map::new();
                for (key, value) in map.iter() {
                    let step = Step::Field(key.clone());
                    if gone.has_member(&step) {
                        continue;
                    }
                    let ty = Self::entry(fields, inner, key.as_str());
                    let value = match gone.below(&step).zip(ty) {
                        Some((gone, ty)) => self.remove_values(ty, value, gone),
                        None => value.clone(),
                    };
                    out.push_unchecked(key.clone(), value);
                }
                if out.is_empty() { Tree::Null } else { Tree::Map(out) }
            }
            (Form::List { item, kind }, Tree::List(items)) if *kind != ListKind::Atomic => {
                let mut out = Vec::with_capacity(items.len());
                for value in items {
                    let Ok(step) = step_of(kind, value) else {
                        out.push(value.clone());
                        continue;
                    };
                    if gone.has_member(&step) {
                        continue;
                    }
                    out.push(match gone.below(&step) {
                        Some(gone) => self.remove_values(item, value, gone),
                        None => value.clone(),
                    });
                }
                if out.is_empty() { Tree::Null } else { Tree::List(out) }
            }
            (Form::Scalar(_), value) => value.clone(),
            _ => Tree::Null,
        }
    }

    /// The set with every declared field on the way to a member added: owning `a.b` owns the field
    /// `a`, but not the map entry `b` that `b.c` is in.
    pub fn with_named_fields(&self, set: &FieldSet) -> FieldSet {
        self.named(Some(Ty::Known(self.ty)), set)
    }

    fn named(&self, ty: Option<Ty>, set: &FieldSet) -> FieldSet {
        let form = ty.map(|ty| match ty {
            // Without a value, what could be a map is one.
            Ty::Known(_) => self.form(ty, None),
            _ => Form::Map { fields: None, value: Some(ty), atomic: false },
        });
        let mut out = set.members_only();
        for (step, below) in set.children() {
            let inner = match (form, step) {
                (Some(Form::Map { fields, value, .. }), Step::Field(name)) => {
                    if fields.is_some_and(|fields| fields.field(name.as_str()).is_some()) {
                        out.insert_member(step.clone());
                    }
                    Self::entry(fields, value, name.as_str())
                }
                (Some(Form::List { item, .. }), Step::Key(_)) => Some(item),
                _ => None,
            };
            out.insert_child(step.clone(), self.named(inner, below));
        }
        out
    }

    /// A set read from storage, fitted to the schema as it is now: what became atomic is owned as a
    /// whole.
    pub fn reconcile(&self, set: &FieldSet, live: &Tree) -> FieldSet {
        self.reconcile_values(Ty::Known(self.ty), Some(live), set)
    }

    fn reconcile_values(&self, ty: Ty, value: Option<&Tree>, set: &FieldSet) -> FieldSet {
        let mut out = set.members_only();
        for (step, below) in set.children() {
            let (inner, child) = match (self.form(ty, value), step) {
                (Form::Map { fields, value: inner, .. }, Step::Field(name)) => {
                    (Self::entry(fields, inner, name.as_str()), value.and_then(|value| value.get(name.as_str())))
                }
                (Form::List { item, kind }, Step::Key(_)) => {
                    let items = value.and_then(Tree::as_list).unwrap_or(&[]);
                    (Some(item), items.iter().find(|item| step_of(kind, item).as_ref() == Ok(step)))
                }
                _ => (None, None),
            };
            let whole = inner.filter(|_| child.is_some()).is_some_and(|inner| {
                matches!(
                    self.form(inner, child),
                    Form::Map { atomic: true, .. } | Form::List { kind: ListKind::Atomic, .. }
                )
            });
            match inner {
                _ if whole => out.insert_member(step.clone()),
                Some(inner) => out.insert_child(step.clone(), self.reconcile_values(inner, child, below)),
                None => out.insert_child(step.clone(), below.clone()),
            }
        }
        out
    }
}

fn prefixed(path: &str, text: &str) -> String {
    match text.chars().next() {
        _ if path.is_empty() => text.to_owned(),
        Some('.' | '[') => format!("{path}{text}"),
        _ => format!("{path}: {text}"),
    }
}

fn compare_leaf(old: Option<&Tree>, new: Option<&Tree>, path: &[Step], out: &mut Comparison) {
    match (old, new) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        (Some(old), Some(new)) if old != new => out.modified.insert(path),
        _ => {}
    }
}

/// The keys of two maps, each once: those of the first in its order, then the rest.
fn zip<'a>(
    old: Option<&'a Map>,
    new: Option<&'a Map>,
) -> impl Iterator<Item = (&'a Key, Option<&'a Tree>, Option<&'a Tree>)> {
    let both = old
        .into_iter()
        .flat_map(Map::iter)
        .map(move |(key, value)| (key, Some(value), new.and_then(|new| new.get(key.as_str()))));
    let rest = new.into_iter().flat_map(Map::iter).filter_map(move |(key, value)| {
        let known = old.is_some_and(|old| old.contains_key(key.as_str()));
        (!known).then_some((key, None, Some(value)))
    });
    both.chain(rest)
}
