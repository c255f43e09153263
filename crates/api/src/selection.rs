//! Which objects of a collection are wanted: label and field selectors together.

use skiff_kinds::Kind;
use skiff_object::selector::{field, label};
use skiff_object::{Map, Tree, json};

use crate::errors::{ApiError, ApiResult};
use crate::respond;
use crate::storage::Item;

/// Label and field selectors of a list, a watch or a deletecollection.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    labels: label::Selector,
    fields: field::Selector,
}

/// What selectors look at, decoded once for each version of an object.
#[derive(Debug)]
pub(crate) struct Header {
    /// The `apiVersion` whose field labels `fields` has.
    api_version: String,
    labels: Vec<(Box<str>, Box<str>)>,
    fields: Vec<(Box<str>, String)>,
}

impl Selection {
    /// Parses both selectors; a field that the kind cannot be selected by is an error.
    ///
    /// # Errors
    /// 400 in upstream's words.
    pub fn parse(kind: &dyn Kind, labels: &str, fields: &str) -> ApiResult<Self> {
        let labels = match labels {
            "" => label::Selector::everything(),
            text => label::Selector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))?,
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

    /// Whether an object matches. What cannot be decoded matches nothing.
    pub fn matches(&self, kind: &dyn Kind, item: &Item) -> bool {
        if self.is_everything() {
            return true;
        }
        let (namespace, name) = item.place();
        let by_place = self.fields.terms().iter().all(|term| match term.field.as_str() {
            "metadata.name" => (name == term.value) != term.negated,
            "metadata.namespace" => (namespace == term.value) != term.negated,
            _ => true,
        });
        if !by_place || (self.labels.is_everything() && self.only_by_place()) {
            return by_place;
        }
        let header = item.header.get_or_init(|| Header::of(kind, item));
        let labels = |key: &str| header.labels.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value);
        self.labels.matches(labels) && self.fields_match(kind, item, header)
    }

    /// Whether it looks at fields of the object besides its name and namespace.
    pub fn asks_for_fields(&self) -> bool {
        !self.only_by_place()
    }

    fn only_by_place(&self) -> bool {
        self.fields.terms().iter().all(|term| matches!(term.field.as_str(), "metadata.name" | "metadata.namespace"))
    }

    fn fields_match(&self, kind: &dyn Kind, item: &Item, header: &Header) -> bool {
        if self.only_by_place() {
            return true;
        }
        let other;
        // The header may be that of another version, or from before the definition had these fields.
        let knows = |label: &str| header.fields.iter().any(|(known, _)| **known == *label);
        let by_place = |label: &str| matches!(label, "metadata.name" | "metadata.namespace");
        let complete = self.fields.terms().iter().all(|term| by_place(&term.field) || knows(&term.field));
        let header = if complete && header.api_version == *kind.facts().api_version.as_str() {
            header
        } else {
            other = Header::of(kind, item);
            &other
        };
        self.fields.terms().iter().all(|term| {
            if matches!(term.field.as_str(), "metadata.name" | "metadata.namespace") {
                return true;
            }
            let found = header.fields.iter().find(|(label, _)| **label == *term.field);
            (found.map_or("", |(_, value)| value) == term.value) != term.negated
        })
    }

    /// The one name that is asked for, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }
}

impl Item {
    /// Namespace and name.
    pub fn place(&self) -> (&str, &str) {
        let key = std::str::from_utf8(&self.stored.key).unwrap_or("");
        key.split_once('/').unwrap_or(("", key))
    }
}

impl Header {
    fn of(kind: &dyn Kind, item: &Item) -> Self {
        let mut object = json::decode_untyped(&item.stored.value).unwrap_or_default();
        if !respond::is_stored_form(kind) {
            kind.to_served(&mut object);
        }
        let labels = object.at(&["metadata", "labels"]).and_then(Tree::as_map);
        let labels = labels.into_iter().flat_map(Map::iter);
        Self {
            api_version: kind.facts().api_version.as_str().to_owned(),
            labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or("").into())).collect(),
            fields: kind
                .selectable_fields()
                .iter()
                .map(|label| ((*label).into(), kind.field_value(&object, label)))
                .collect(),
        }
    }
}

fn unknown_field(kind: &dyn Kind, label: &str) -> String {
    if kind.selectable_fields().is_empty() {
        format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {label}")
    }
}
