//! Custom kinds: a CustomResourceDefinition compiled into the same shape as a built-in kind.
//!
//! Its structural schema becomes a [`Schema`] (so unknown fields are pruned and reported while an
//! object is read, and apply knows lists and keys), its defaults and rules become the hooks.
//! Expressions (`x-kubernetes-validations`) and conversion webhooks are not evaluated here.

mod columns;
mod compile;
mod validate;

use std::borrow::Cow;
use std::sync::Arc;

use columns::PrinterColumn;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;
use skiff_object::{Schema, Tree};

use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::{self, Column};

pub use compile::{CompileError, compile};
use validate::Rules;

/// One served version of a custom resource.
pub struct CustomKind {
    facts: Facts,
    schema: Schema,
    /// `openAPIV3Schema` as the definition has it.
    structure: Tree,
    rules: Rules,
    printer_columns: Vec<PrinterColumn>,
    /// `selectableFields`, as labels of field selectors.
    selectable: Vec<String>,
    /// The `apiVersion` of stored objects.
    stored_api_version: String,
}

/// Every served version of a definition as a kind that a registry takes.
///
/// # Errors
/// When the definition cannot be served.
pub fn kinds(definition: &Tree) -> Result<Vec<Arc<dyn Kind>>, CompileError> {
    let kinds = compile(definition)?;
    Ok(kinds.into_iter().map(|kind| Arc::new(kind) as Arc<dyn Kind>).collect())
}

impl Kind for CustomKind {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn to_stored(&self, object: &mut Tree) {
        object.set(&["apiVersion"], self.stored_api_version.as_str());
    }

    fn to_served(&self, object: &mut Tree) {
        object.set(&["apiVersion"], self.facts.api_version.as_str());
    }

    fn default(&self, object: &mut Tree) {
        validate::default(object, &self.structure);
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.rules.check(object, &self.structure, Path::root(), &mut errors);
        errors
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _subresource: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        let own = self.printer_columns.iter().map(|column| column.column.clone());
        Cow::Owned(std::iter::once(Column::name()).chain(own).collect())
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let cells = self.printer_columns.iter().map(|column| column.cell(object, now));
        let name = table::default_row(object).swap_remove(0);
        std::iter::once(name).chain(cells).collect()
    }

    fn accepts_field(&self, label: &str) -> bool {
        label == "metadata.name"
            || (label == "metadata.namespace" && self.facts.namespaced)
            || self.selectable.iter().any(|field| field == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skiff_object::{errors, json};

    fn widget() -> Arc<dyn Kind> {
        let definition = json::decode_untyped(
            br#"{"metadata":{"name":"widgets.example.com"},"spec":{"group":"example.com","scope":"Namespaced",
            "names":{"plural":"widgets","kind":"Widget","shortNames":["wd"]},
            "versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},
              "selectableFields":[{"jsonPath":".spec.color"}],
              "additionalPrinterColumns":[{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}],
              "schema":{"openAPIV3Schema":{"type":"object","required":["spec"],"properties":{
                "spec":{"type":"object","required":["size"],"properties":{
                  "size":{"type":"integer","minimum":1},
                  "color":{"type":"string","default":"blue","enum":["blue","red"]},
                  "name":{"type":"string","pattern":"^[a-z]+$","maxLength":4},
                  "ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["port"],
                    "items":{"type":"object","properties":{"port":{"type":"integer"}}}},
                  "target":{"x-kubernetes-int-or-string":true},
                  "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}},
                "status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}"#,
        )
        .unwrap();
        kinds(&definition).unwrap().remove(0)
    }

    fn read(text: &str) -> (Tree, String) {
        let kind = widget();
        let (mut tree, issues) = json::decode(text.as_bytes(), kind.schema(), kind.facts().ty).unwrap();
        kind.default(&mut tree);
        (tree, issues.to_string())
    }

    #[test]
    fn unknown_fields_are_pruned_and_defaults_filled_in() {
        let kind = widget();
        let (tree, issues) = read(
            r#"{"kind":"Widget","apiVersion":"example.com/v1","metadata":{"name":"w","foo":1},"spec":{"size":1,"bad":2,"free":{"any":[1]}}}"#,
        );
        assert_eq!(issues, r#"unknown field "metadata.foo", unknown field "spec.bad""#);
        assert_eq!(
            String::from_utf8(json::encode(&tree, kind.schema(), kind.facts().ty)).unwrap(),
            r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"color":"blue","free":{"any":[1]},"size":1}}"#
        );
    }

    #[test]
    fn rules_of_the_schema_are_checked_in_upstream_s_words() {
        let kind = widget();
        let check = |text: &str| errors::message(&kind.validate_create(&read(text).0));
        assert_eq!(kind.validate_create(&read(r#"{"spec":{"size":2}}"#).0), []);
        assert_eq!(check("{}"), "spec: Required value");
        assert_eq!(check(r#"{"spec":{}}"#), "spec.size: Required value");
        assert_eq!(
            check(r#"{"spec":{"size":"x"}}"#),
            r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#
        );
        assert_eq!(
            check(r#"{"spec":{"size":0}}"#),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
        );
        assert_eq!(
            check(r#"{"spec":{"size":1,"color":"green"}}"#),
            r#"spec.color: Unsupported value: "green": supported values: "blue", "red""#
        );
        assert_eq!(
            check(r#"{"spec":{"size":1,"name":"A"}}"#),
            r#"spec.name: Invalid value: "A": spec.name in body should match '^[a-z]+$'"#
        );
        assert!(check(r#"{"spec":{"size":1,"ports":[{"port":1},{"port":1}]}}"#).contains("Duplicate value"));
        assert!(check(r#"{"spec":{"size":1,"target":true}}"#).contains("must be of type"));
    }

    #[test]
    fn tables_and_selectors_follow_the_definition() {
        let kind = widget();
        let (tree, _) = read(
            r#"{"metadata":{"name":"w"},"spec":{"size":1},"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
        );
        assert_eq!(kind.row(&tree, Time::default()), vec![Tree::from("w"), Tree::from("True")]);
        assert!(kind.accepts_field("spec.color") && !kind.accepts_field("spec.size"));
        assert_eq!(kind.field_value(&tree, "spec.color"), "blue");
    }
}
