//! What a kind can do: the hooks of the request pipeline.
//!
//! Built-in or custom, every resource is an implementation of [`Kind`]; the server has one function
//! per verb and never one per resource. Every hook is pure: names, times and addresses that come
//! from outside are put in by the server before or after.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Key, Schema, Tree};

use crate::custom::CustomKind;
use crate::facts::Facts;
use crate::rules;
use crate::table::{self, Column};

/// When `metadata.generation` grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Generation {
    /// It is not kept.
    #[default]
    None,
    /// With every change of `spec`.
    Spec,
    /// With every change outside `metadata` and `status`.
    Body,
}

/// Where a resource keeps what the `scale` subresource shows.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// The wanted count.
    pub spec_replicas: Vec<Key>,
    /// The observed count.
    pub status_replicas: Vec<Key>,
    /// The selector: a `LabelSelector`, a plain map of labels, or the text of one. Empty when there is none.
    pub selector: Vec<Key>,
}

impl ScalePaths {
    /// Paths known at build time.
    pub fn new(spec: &[&'static str], status: &[&'static str], selector: &[&'static str]) -> Self {
        let keys = |path: &[&'static str]| path.iter().map(|name| Key::Static(name)).collect();
        Self { spec_replicas: keys(spec), status_replicas: keys(status), selector: keys(selector) }
    }
}

/// What deleting an object does to its dependents when the request does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DefaultPropagation {
    /// The garbage collector follows.
    #[default]
    Background,
    /// Dependents stay and lose their owner.
    Orphan,
}

/// A resource, in one served version.
pub trait Kind: Send + Sync {
    /// Names, verbs, subresources, types.
    fn facts(&self) -> &Facts;

    /// The custom kind that this is, if it is one.
    fn custom(&self) -> Option<&CustomKind> {
        None
    }

    /// The schema that [`Facts::ty`] points into.
    fn schema(&self) -> &Schema {
        crate::schema()
    }

    /// From the served form to the stored form. `apiVersion` is changed too.
    fn to_stored(&self, object: &mut Tree) {
        let _ = object;
    }

    /// From the stored form to the served form, as it was read. `apiVersion` is changed too.
    fn to_served(&self, object: &mut Tree) {
        let _ = object;
    }

    /// Fills in what the client left out. Runs after decoding and again after mutating admission;
    /// a second run changes nothing.
    fn default(&self, object: &mut Tree) {
        let _ = object;
    }

    /// Makes a new object ready to be stored: drops what clients may not set (`status`), sets
    /// `metadata.generation`.
    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
    }

    /// Makes a changed object ready to be stored: what this path may not change comes from `old`,
    /// `metadata.generation` grows when it has to.
    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        rules::prepare_update(self.facts(), self.generation(), new, old);
    }

    /// As [`Kind::prepare_update`] for a write through a subresource that exchanges the object
    /// itself (`status`, `resize`, `approval`, …): only its part of `new` counts.
    fn prepare_subresource(&self, subresource: &str, new: &mut Tree, old: &Tree) {
        rules::prepare_subresource(subresource, new, old);
    }

    /// Everything wrong with a new object beyond its metadata, which the server judges.
    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let _ = object;
        Vec::new()
    }

    /// Everything wrong with a changed object, immutable fields included.
    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let _ = (new, old);
        Vec::new()
    }

    /// As [`Kind::validate_update`] for a write through a subresource.
    fn validate_subresource(&self, subresource: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let _ = (subresource, new, old);
        Vec::new()
    }

    /// What clients should know about an object that is accepted: deprecated fields and the like.
    fn warnings(&self, new: &Tree, old: Option<&Tree>) -> Vec<String> {
        let _ = (new, old);
        Vec::new()
    }

    /// What clients of this kind are told with every answer: that it is deprecated, and what to use.
    fn deprecation(&self) -> Option<&str> {
        None
    }

    /// The columns of its table.
    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(table::DEFAULT_COLUMNS)
    }

    /// The cells of an object's row, one per column. `now` is for ages.
    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let _ = now;
        table::default_row(object)
    }

    /// When `metadata.generation` grows.
    fn generation(&self) -> Generation {
        Generation::None
    }

    /// Where `scale` reads and writes; `None` when there is no such subresource.
    fn scale(&self) -> Option<ScalePaths> {
        None
    }

    /// Whether an update of an absent object creates it.
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `metadata.resourceVersion` is taken as is.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// What deletion does to dependents when the request does not say.
    fn default_propagation(&self) -> DefaultPropagation {
        DefaultPropagation::Background
    }

    /// How many seconds an object may linger after a delete that does not say; `None` when it goes
    /// at once.
    fn grace_period_seconds(&self, object: &Tree) -> Option<i64> {
        let _ = object;
        None
    }

    /// Whether a field selector may name `label`. `metadata.name` and, in namespaces,
    /// `metadata.namespace` always may.
    fn accepts_field(&self, label: &str) -> bool {
        label == "metadata.name"
            || (label == "metadata.namespace" && self.facts().namespaced)
            || self.selectable_fields().contains(&label)
    }

    /// The labels a field selector may name beyond those of every kind.
    fn selectable_fields(&self) -> Cow<'_, [&str]> {
        Cow::Borrowed(rules::selectable_fields(self.facts().group.as_str(), self.facts().plural.as_str()))
    }

    /// The value that a field selector compares; `""` when there is none. Some labels are accepted
    /// and never match.
    fn field_value(&self, object: &Tree, label: &str) -> String {
        rules::field_value(object, label)
    }
}
