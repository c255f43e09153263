//! What is wrong with a definition (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).
//!
//! Paths are upstream's: it judges the internal form, in which what all versions have in common stands once
//! (`spec.validation`, `spec.subresources`, …) and not with each version.
//!
//! Map: `spec` (names, versions, conversion, columns), `structural` and `schema` (schemas), `defaulted` (defaults), `expressions`,
//! `status` (conditions), `approval`.

mod approval;
mod defaulted;
mod expressions;
mod schema;
mod spec;
pub mod status;
mod structural;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::{Map, Tree};

/// Where in a schema a part of it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The schema of every item, when it is one.
fn items_of(schema: &Tree) -> Option<&Tree> {
    schema.get("items").filter(|items| items.as_map().is_some())
}

fn properties_of(schema: &Tree) -> impl Iterator<Item = (&str, &Tree)> {
    let map = schema.get("properties").and_then(Tree::as_map);
    map.into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}

/// Everything wrong with a definition; `old` is what it was before an update.
pub fn validate(new: &Tree, old: Option<&Tree>) -> Vec<FieldError> {
    let mut found = Vec::new();
    let spec_of = |definition: &Tree| definition.get("spec").cloned().unwrap_or_else(Tree::map);
    let (spec, old_spec) = (spec_of(new), old.map(spec_of));
    if old.is_none() {
        let wanted = format!("{}.{}", spec.str_at(&["names", "plural"]), spec.str_at(&["group"]));
        let name = new.str_at(&["metadata", "name"]);
        if name != wanted {
            found.push(FieldError::invalid("metadata.name", name, r#"must be spec.names.plural+"."+spec.group"#));
        }
    }
    spec::validate(&spec, old_spec.as_ref(), old, &mut found);
    validate_status(new, &mut found);
    stored_versions(new, &mut found);
    found.extend(approval::validate(new, old));
    if spec.bool_at(&["preserveUnknownFields"]) == Some(true)
        && old_spec.is_none_or(|old| old.bool_at(&["preserveUnknownFields"]) != Some(true))
    {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        found.push(FieldError::invalid("spec.preserveUnknownFields", true, why));
    }
    found
}

/// Everything wrong with the status of a definition.
pub fn validate_status(definition: &Tree, found: &mut Vec<FieldError>) {
    if let Some(names) = definition.at(&["status", "acceptedNames"]) {
        spec::names(names, "status.acceptedNames", found);
    }
}

fn stored_versions(definition: &Tree, found: &mut Vec<FieldError>) {
    const FIELD: &str = "status.storedVersions";
    let stored = definition.list_at(&["status", "storedVersions"]);
    let shown = || BadValue::from(definition.at(&["status", "storedVersions"]));
    if stored.is_empty() {
        found.push(FieldError::invalid(FIELD, BadValue::Bare("[]".into()), "must have at least one stored version"));
        return;
    }
    let versions = definition.list_at(&["spec", "versions"]);
    for version in versions {
        let name = version.str_at(&["name"]);
        if version.bool_at(&["storage"]) == Some(true) && !stored.iter().any(|one| one.as_str() == Some(name)) {
            found.push(FieldError::invalid(FIELD, shown(), format!("must have the storage version {name}")));
        }
    }
    for (index, one) in stored.iter().enumerate() {
        let name = one.as_str().unwrap_or("");
        if !versions.iter().any(|version| version.str_at(&["name"]) == name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            found.push(FieldError::invalid(format!("{FIELD}[{index}]"), name, why));
        }
    }
}

/// What a client should know about a definition that is accepted: formats that nobody checks, sets of what is no
/// scalar.
pub fn warnings(new: &Tree, old: Option<&Tree>) -> Vec<String> {
    let all = |definition: &Tree| {
        let mut texts = Vec::new();
        for version in definition.list_at(&["spec", "versions"]) {
            if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) {
                schema::warnings(schema, &mut texts, 0);
            }
        }
        texts
    };
    let known = old.map(all).unwrap_or_default();
    let mut fresh: Vec<String> = Vec::new();
    for text in all(new) {
        if !known.contains(&text) && !fresh.contains(&text) {
            fresh.push(text);
        }
    }
    fresh
}

#[cfg(test)]
mod tests;
