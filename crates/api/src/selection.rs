//! Which objects of a collection are wanted: label and field selectors together.

use skiff_kinds::Kind;
use skiff_object::Tree;
use skiff_object::selector::{field, label};

use crate::errors::{ApiError, ApiResult};

/// Label and field selectors of a list, a watch or a deletecollection.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: label::Selector,
    fields: field::Selector,
}

impl Selection {
    /// Parses both selectors; a field that the kind cannot be selected by is an error.
    ///
    /// # Errors
    /// 400 in upstream's words.
    pub fn parse(kind: &dyn Kind, labels: &str, fields: &str) -> ApiResult<Self> {
        let labels = match labels {
            "" => label::Selector::everything(),
            text => label::Selector::parse(text)
                .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?,
        };
        let fields = match fields {
            "" => field::Selector::everything(),
            text => field::Selector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))?,
        };
        if let Some(term) = fields.terms().iter().find(|term| !kind.accepts_field(&term.field)) {
            return Err(ApiError::bad_request(unknown_field(kind, &term.field)));
        }
        Ok(Self { labels, fields })
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether `object` matches.
    pub fn matches(&self, kind: &dyn Kind, object: &Tree) -> bool {
        self.labels.matches_labels(object.at(&["metadata", "labels"]))
            && self
                .fields
                .terms()
                .iter()
                .all(|term| (field_value(kind, object, &term.field) == term.value) != term.negated)
    }

    /// The one name that is asked for, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }
}

fn field_value(kind: &dyn Kind, object: &Tree, label: &str) -> String {
    match label {
        "metadata.name" => object.str_at(&["metadata", "name"]).to_owned(),
        "metadata.namespace" => object.str_at(&["metadata", "namespace"]).to_owned(),
        label => kind.field_value(object, label),
    }
}

fn unknown_field(kind: &dyn Kind, label: &str) -> String {
    if kind.selectable_fields().is_empty() {
        format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {label}")
    }
}
