//! What an item can be found by, as numbers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::Change;

/// Tells the labels of an item, one call for each.
pub type Labels<T> = dyn Fn(&T, &mut dyn FnMut(&str, &str)) + Send + Sync;

/// A field that items can be found by once somebody asks for it.
pub struct Field<T> {
    /// What tells it from every other field that is ever asked for.
    pub name: Arc<str>,
    /// Its value in an item: always the same for the same item.
    pub value: Arc<dyn Fn(&T) -> String + Send + Sync>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), value: Arc::clone(&self.value) }
    }
}

/// A condition of which the cache knows which items fulfil it.
pub enum Wanted<T> {
    /// The label has one of the values.
    Label {
        /// The label.
        key: String,
        /// The values.
        values: Vec<String>,
    },
    /// The label is there.
    HasLabel(String),
    /// The field has the value.
    Field {
        /// The field.
        field: Field<T>,
        /// The value.
        value: String,
    },
}

/// A label with its value, the presence of a label, or a field with its value, hashed. Two that
/// meet in one number only cost a needless look at an item.
pub(super) type Term = u64;

/// Makes terms. The hash is keyed, so that no client can make terms meet.
pub(super) struct Attributes<T> {
    hash: RandomState,
    labels: Box<Labels<T>>,
}

impl<T> Attributes<T> {
    pub(super) fn new(labels: Box<Labels<T>>) -> Self {
        Self { hash: RandomState::new(), labels }
    }

    fn label(&self, key: &str, value: &str) -> Term {
        self.hash.hash_one((0_u8, key, value))
    }

    fn presence(&self, key: &str) -> Term {
        self.hash.hash_one((1_u8, key))
    }

    fn field(&self, name: &str, value: &str) -> Term {
        self.hash.hash_one((2_u8, name, value))
    }

    pub(super) fn key(&self, key: &[u8]) -> u64 {
        self.hash.hash_one(key)
    }

    /// The terms of which an item that is wanted has one.
    pub(super) fn any_of(&self, wanted: &Wanted<T>) -> Vec<Term> {
        match wanted {
            Wanted::Label { key, values } => values.iter().map(|value| self.label(key, value)).collect(),
            Wanted::HasLabel(key) => vec![self.presence(key)],
            Wanted::Field { field, value } => vec![self.field(&field.name, value)],
        }
    }

    /// Appends the terms of an item.
    pub(super) fn terms<'a>(&self, item: &T, fields: impl Iterator<Item = &'a Field<T>>, terms: &mut Vec<Term>)
    where
        T: 'a,
    {
        (self.labels)(item, &mut |key, value| terms.extend([self.label(key, value), self.presence(key)]));
        terms.extend(fields.map(|field| self.field(&field.name, &(field.value)(item))));
    }

    /// The terms of an item before and after a change, each once.
    pub(super) fn around<'a>(&self, change: &Change<T>, fields: impl Iterator<Item = &'a Field<T>> + Clone) -> Vec<Term>
    where
        T: 'a,
    {
        let mut terms = Vec::new();
        self.terms(&change.current, fields.clone(), &mut terms);
        if let Some(previous) = &change.previous {
            self.terms(previous, fields, &mut terms);
        }
        terms.sort_unstable();
        terms.dedup();
        terms
    }
}
