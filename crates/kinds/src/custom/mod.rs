//! Custom kinds: a CustomResourceDefinition as a kind like any other.
//!
//! What discovery says is read at once; the rest is compiled from the stored definition when the first object comes
//! along, so that a definition nobody uses costs little more than its bytes. The structural schema becomes a
//! [`Schema`] (so unknown fields are pruned and reported while an object is read, and apply knows lists and keys)
//! and a tree of nodes for defaults, values and expressions.
//!
//! Map: `compile` (facts and types), `node` (the schema), `defaults`, `validate`, `pattern`, `formats`, `jsonpath`,
//! `columns`, `rules` (expressions), [`definition`] (what is wrong with a definition).

mod columns;
mod compile;
pub(crate) mod defaults;
pub mod definition;
pub(crate) mod formats;
pub(crate) mod jsonpath;
pub(crate) mod node;
pub(crate) mod pattern;
pub(crate) mod rules;
pub(crate) mod validate;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use columns::PrinterColumn;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Key, Schema, Tree, json, name};

use crate::facts::Facts;
use crate::kind::{Generation, Kind, ScalePaths};
use crate::rules as common;
use crate::table::{self, Column};

pub use compile::compare_versions;
use node::Node;
use rules::Rules;

/// The stored bytes of a definition, shared with whoever else holds them.
pub type Source = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// How objects change versions.
#[derive(Clone, Debug)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// A webhook does it; `spec.conversion.webhook` of the definition.
    Webhook(Tree),
}

/// One served version of a custom resource.
pub struct CustomKind {
    facts: Facts,
    source: Source,
    revision: Arc<str>,
    conversion: Arc<Conversion>,
    terminating: bool,
    /// What clients of a deprecated version are told.
    deprecation: Option<Box<str>>,
    /// `selectableFields`, as labels of field selectors.
    selectable: Vec<Box<str>>,
    scale: Option<ScalePaths>,
    /// The `apiVersion` that objects are stored in.
    stored_api_version: Box<str>,
    compiled: OnceLock<Compiled>,
    stored_schema: OnceLock<Schema>,
    /// The expressions of the schema, compiled when the first object is judged.
    rules: OnceLock<Option<Box<Rules>>>,
}

/// What is made from the schema when an object comes along.
struct Compiled {
    schema: Schema,
    node: Node,
    printer_columns: Vec<PrinterColumn>,
}

/// Every served version of a definition as a kind. `hash` gives the storage version hash of a version.
pub fn kinds(source: &Source, definition: &Tree, hash: impl Fn(&str) -> String) -> Vec<Arc<dyn Kind>> {
    let versions = definition.list_at(&["spec", "versions"]);
    let stored = versions.iter().find(|version| version.bool_at(&["storage"]) == Some(true));
    let Some(stored) = stored.map(|version| version.str_at(&["name"])) else { return Vec::new() };
    let conversion = Arc::new(match definition.str_at(&["spec", "conversion", "strategy"]) {
        "Webhook" => {
            Conversion::Webhook(definition.at(&["spec", "conversion", "webhook"]).cloned().unwrap_or_else(Tree::map))
        }
        _ => Conversion::None,
    });
    let metadata = |field: &str| definition.at(&["metadata", field]);
    let revision: Arc<str> = format!(
        "{}/{}",
        definition.str_at(&["metadata", "uid"]),
        metadata("generation").and_then(Tree::as_int).unwrap_or_default()
    )
    .into();
    let served = versions.iter().filter(|version| version.bool_at(&["served"]) == Some(true));
    served
        .map(|version| {
            let group = definition.str_at(&["spec", "group"]);
            let selectable = version.list_at(&["selectableFields"]).iter();
            Arc::new(CustomKind {
                facts: compile::facts(definition, version, stored, Key::from(hash(stored))),
                source: Arc::clone(source),
                revision: Arc::clone(&revision),
                conversion: Arc::clone(&conversion),
                terminating: metadata("deletionTimestamp").is_some_and(|time| !time.is_null()),
                deprecation: deprecation(definition, version),
                selectable: selectable
                    .map(|field| field.str_at(&["jsonPath"]).trim_start_matches('.').into())
                    .collect(),
                scale: scale(version),
                stored_api_version: format!("{group}/{stored}").into(),
                compiled: OnceLock::new(),
                stored_schema: OnceLock::new(),
                rules: OnceLock::new(),
            }) as Arc<dyn Kind>
        })
        .collect()
}

fn deprecation(definition: &Tree, version: &Tree) -> Option<Box<str>> {
    if version.bool_at(&["deprecated"]) != Some(true) {
        return None;
    }
    if let Some(text) = version.get("deprecationWarning").and_then(Tree::as_str) {
        return Some(text.into());
    }
    let (group, kind) = (definition.str_at(&["spec", "group"]), definition.str_at(&["spec", "names", "kind"]));
    let name = version.str_at(&["name"]);
    let newer = definition.list_at(&["spec", "versions"]).iter().filter(|other| {
        other.bool_at(&["served"]) == Some(true)
            && other.bool_at(&["deprecated"]) != Some(true)
            && compare_versions(other.str_at(&["name"]), name).is_lt()
    });
    let newest = newer.map(|other| other.str_at(&["name"])).min_by(|one, other| compare_versions(one, other));
    let instead = newest.map_or_else(String::new, |newest| format!("; use {group}/{newest} {kind}"));
    Some(format!("{group}/{name} {kind} is deprecated{instead}").into())
}

fn scale(version: &Tree) -> Option<ScalePaths> {
    let scale = version.at(&["subresources", "scale"]).filter(|scale| !scale.is_null())?;
    let path = |field: &str| {
        let parts = scale.str_at(&[field]).split('.').filter(|part| !part.is_empty());
        parts.map(|part| Key::from(part.to_owned())).collect()
    };
    Some(ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

impl CustomKind {
    /// Changes whenever the definition does: its uid and generation.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// How objects change versions.
    pub fn conversion(&self) -> &Conversion {
        &self.conversion
    }

    /// The `apiVersion` that objects are stored in.
    pub fn stored_api_version(&self) -> &str {
        &self.stored_api_version
    }

    /// Whether the definition is on its way out: nothing new may be created.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// `openAPIV3Schema` as the definition has it.
    pub fn structure(&self) -> Tree {
        let version = self.version(self.facts.version.as_str());
        version.at(&["schema", "openAPIV3Schema"]).cloned().unwrap_or_else(Tree::map)
    }

    /// The schema that stored objects are of: that of the storage version, whichever is served here.
    pub fn stored_schema(&self) -> &Schema {
        if self.is_stored_version() {
            return &self.compiled().schema;
        }
        self.stored_schema.get_or_init(|| {
            let (_, stored) = crate::facts::split_api_version(&self.stored_api_version);
            let version = self.version(stored);
            compile::schema(version.at(&["schema", "openAPIV3Schema"]).unwrap_or(&Tree::map()))
        })
    }

    fn is_stored_version(&self) -> bool {
        self.stored_api_version.as_ref() == self.facts.api_version.as_str()
    }

    /// Whether the schema has been compiled, which keeps memory.
    pub fn is_compiled(&self) -> bool {
        self.compiled.get().is_some()
    }

    /// Whether the definition has a version of this name, served or not.
    pub fn has_version(&self, name: &str) -> bool {
        !self.version(name).is_null()
    }

    fn version(&self, name: &str) -> Tree {
        let definition = json::decode_untyped((*self.source).as_ref()).unwrap_or_default();
        let versions = definition.list_at(&["spec", "versions"]);
        let found = versions.iter().find(|version| version.str_at(&["name"]) == name);
        found.cloned().unwrap_or_default()
    }

    fn compiled(&self) -> &Compiled {
        self.compiled.get_or_init(|| {
            let version = self.version(self.facts.version.as_str());
            let empty = Tree::map();
            let structure = version.at(&["schema", "openAPIV3Schema"]).unwrap_or(&empty);
            Compiled {
                schema: compile::schema(structure),
                node: Node::compile(structure),
                printer_columns: columns::of_version(&version),
            }
        })
    }

    fn validate(&self, new: &Tree, old: Option<&Tree>, subresource: &str) -> Vec<FieldError> {
        let node = &self.compiled().node;
        let mut errors = match (subresource, node.property("status")) {
            ("status", Some(status)) => new.get("status").map_or_else(Vec::new, |value| {
                validate::check(value, old.and_then(|old| old.get("status")), status, "status")
            }),
            ("status", None) => Vec::new(),
            _ => validate::check(new, old, node, ""),
        };
        if subresource != "status" {
            self.validate_count(new, true, &mut errors);
        }
        self.validate_count(new, false, &mut errors);
        validate::embedded(new, node, "", &mut errors);
        let unique = |object: &Tree| {
            let mut errors = Vec::new();
            validate::unique_items(object, node, "", &mut errors);
            errors
        };
        if old.is_none_or(|old| unique(old).is_empty()) {
            errors.extend(unique(new));
        }
        if let Some(rules) = self.rules() {
            if validate::blocks_rules(&errors) {
                errors.push(validate::rules_skipped());
            } else {
                errors.extend(rules.check(new, old, node, ""));
            }
        }
        errors
    }

    fn rules(&self) -> Option<&Rules> {
        let node = &self.compiled().node;
        let compile = || Rules::compile(&self.structure(), node).map(Box::new);
        if node.has_rules() { self.rules.get_or_init(compile).as_deref() } else { None }
    }

    /// What `scale` shows must be countable.
    fn validate_count(&self, object: &Tree, wanted: bool, errors: &mut Vec<FieldError>) {
        let Some(scale) = &self.scale else { return };
        let path = if wanted { &scale.spec_replicas } else { &scale.status_replicas };
        let field: String = path.iter().map(|key| format!(".{}", key.as_str())).collect();
        match path.iter().try_fold(object, |tree, key| tree.get(key.as_str())) {
            Some(Tree::Int(count)) if *count < 0 => {
                errors.push(FieldError::invalid(field, *count, "should be a non-negative integer"));
            }
            Some(Tree::Int(count)) if *count > i64::from(i32::MAX) => {
                let why = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(field, *count, why));
            }
            None | Some(Tree::Int(_)) => {}
            Some(other) => {
                let why = format!("{field} accessor error: {} is not an int64", skiff_object::errors::go(other));
                errors.push(FieldError::invalid(field, 0, why));
            }
        }
    }
}

impl Kind for CustomKind {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn custom(&self) -> Option<&CustomKind> {
        Some(self)
    }

    fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    fn schema(&self) -> &Schema {
        &self.compiled().schema
    }

    fn to_stored(&self, object: &mut Tree) {
        object.set(&["apiVersion"], &*self.stored_api_version);
    }

    fn to_served(&self, object: &mut Tree) {
        object.set(&["apiVersion"], self.facts.api_version.as_str());
        // Objects that were stored before a default was given have it when they are read.
        self.default(object);
    }

    fn default(&self, object: &mut Tree) {
        defaults::default(object, &self.compiled().node);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        common::prepare_update(&self.facts, Generation::Body, new, old);
        // A status without a path of its own is a part of the object like any other.
        if !self.facts.has_status()
            && new.at(&["metadata", "generation"]) == old.at(&["metadata", "generation"])
            && !common::same(new.get("status"), old.get("status"))
        {
            let next = old.int_at(&["metadata", "generation"]).unwrap_or(0).saturating_add(1);
            new.set(&["metadata", "generation"], next);
        }
    }

    fn prepare_subresource(&self, subresource: &str, new: &mut Tree, old: &Tree) {
        if subresource != "status" {
            return common::prepare_subresource(subresource, new, old);
        }
        // Nothing but the status counts, and who owns which fields of it.
        let status = new.as_map_mut().and_then(|map| map.remove("status"));
        let managed = new.unset(&["metadata", "managedFields"]);
        *new = old.clone();
        new.unset(&["status"]);
        new.unset(&["metadata", "managedFields"]);
        if let Some(status) = status {
            new.set(&["status"], status);
        }
        if let Some(managed) = managed {
            new.set(&["metadata", "managedFields"], managed);
        }
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        self.validate(object, None, "")
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        self.validate(new, Some(old), "")
    }

    fn validate_subresource(&self, subresource: &str, new: &Tree, old: &Tree) -> Vec<FieldError> {
        self.validate(new, Some(old), subresource)
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>) -> Vec<String> {
        let finalizers = |object: &Tree| -> Vec<String> {
            let list = object.list_at(&["metadata", "finalizers"]).iter();
            list.filter_map(Tree::as_str).map(str::to_owned).collect()
        };
        let known = old.map(finalizers).unwrap_or_default();
        let mut added: Vec<String> = finalizers(new).into_iter().filter(|one| !known.contains(one)).collect();
        added.sort();
        added.iter().flat_map(|one| finalizer_warnings(one)).collect()
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn scale(&self) -> Option<ScalePaths> {
        self.scale.clone()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        let own = self.compiled().printer_columns.iter().map(|column| column.column.clone());
        Cow::Owned(std::iter::once(Column::name()).chain(own).collect())
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let cells = self.compiled().printer_columns.iter().map(|column| column.cell(object, now));
        let name = table::default_row(object).swap_remove(0);
        std::iter::once(name).chain(cells).collect()
    }

    fn selectable_fields(&self) -> Cow<'_, [&str]> {
        Cow::Owned(self.selectable.iter().map(|field| &**field).collect())
    }
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    const STANDARD: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let about = format!("metadata.finalizers: {}", skiff_object::errors::quote(finalizer));
    let mut warnings: Vec<String> =
        name::qualified_name(finalizer).into_iter().map(|why| format!("{about}: {why}")).collect();
    if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
        warnings.push(format!(
            "{about}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other \
             finalizer writers"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
