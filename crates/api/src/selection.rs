//! Which objects of a collection are wanted: label and field selectors together.

use std::borrow::Cow;
use std::sync::Arc;

use skiff_kinds::custom::CustomKind;
use skiff_kinds::{Kind, rules};
use skiff_object::selector::label::Operator;
use skiff_object::selector::{field, label};
use skiff_object::{Tree, json};
use skiff_store::cache::{Field, Wanted};

use crate::errors::{ApiError, ApiResult};
use crate::respond;
use crate::scan;
use crate::storage::Item;

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
        self.is_everything() || (self.place_matches(item) && self.labels_match(item) && self.fields_match(kind, item))
    }

    fn place_matches(&self, item: &Item) -> bool {
        let (namespace, name) = item.place();
        self.fields.terms().iter().all(|term| match term.field.as_str() {
            "metadata.name" => (name == term.value) != term.negated,
            "metadata.namespace" => (namespace == term.value) != term.negated,
            _ => true,
        })
    }

    fn labels_match(&self, item: &Item) -> bool {
        if self.labels.is_everything() {
            return true;
        }
        let labels = scan::at(&item.stored.value, &["metadata", "labels"]);
        self.labels.matches(|key| labels.and_then(|labels| scan::label(labels, key)))
    }

    fn fields_match(&self, kind: &dyn Kind, item: &Item) -> bool {
        if self.only_by_place() {
            return true;
        }
        let object = Fields::of(kind, item);
        self.own_fields().all(|term| (object.value(kind, &term.field) == term.value) != term.negated)
    }

    /// Whether it looks at fields of the object besides its name and namespace.
    pub fn asks_for_fields(&self) -> bool {
        !self.only_by_place()
    }

    fn only_by_place(&self) -> bool {
        self.own_fields().next().is_none()
    }

    fn own_fields(&self) -> impl Iterator<Item = &field::Term> {
        let by_place = |term: &&field::Term| matches!(term.field.as_str(), "metadata.name" | "metadata.namespace");
        self.fields.terms().iter().filter(move |term| !by_place(term))
    }

    /// The one name that is asked for, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// The one namespace that is asked for, if it is one.
    pub fn namespace(&self) -> Option<&str> {
        self.fields.required("metadata.namespace")
    }

    /// Conditions that every object fulfils that matches, for what is found by an index; those that fewer objects
    /// are likely to fulfil come first.
    pub(crate) fn wanted(&self, kind: &Arc<dyn Kind>) -> Vec<Wanted<Item>> {
        let fields = self.own_fields().filter(|term| !term.negated);
        let fields = fields.map(|term| Wanted::Field { field: indexed(kind, &term.field), value: term.value.clone() });
        let mut wanted: Vec<Wanted<Item>> = fields.collect();
        let mut present = Vec::new();
        for requirement in self.labels.requirements() {
            match requirement.operator {
                Operator::Equals | Operator::DoubleEquals | Operator::In => {
                    wanted.push(Wanted::Label { key: requirement.key.clone(), values: requirement.values.clone() });
                }
                Operator::Exists | Operator::GreaterThan | Operator::LessThan => {
                    present.push(Wanted::HasLabel(requirement.key.clone()));
                }
                Operator::NotEquals | Operator::NotIn | Operator::DoesNotExist => {}
            }
        }
        wanted.append(&mut present);
        wanted
    }
}

/// A field as the watch cache knows it. What a field of a custom kind is, its definition says.
fn indexed(kind: &Arc<dyn Kind>, label: &str) -> Field<Item> {
    let revision = kind.custom().map_or("", CustomKind::revision);
    let name = format!("{} {revision} {label}", kind.facts().api_version.as_str()).into();
    let (kind, label) = (Arc::clone(kind), label.to_owned());
    let value = move |item: &Item| Fields::of(kind.as_ref(), item).value(kind.as_ref(), &label);
    Field { name, value: Arc::new(value) }
}

/// Where the fields of an object are read.
enum Fields<'a> {
    /// In its JSON.
    Stored(&'a [u8]),
    /// In what the kind makes of it.
    Served(Box<Tree>),
}

impl<'a> Fields<'a> {
    fn of(kind: &dyn Kind, item: &'a Item) -> Self {
        if respond::is_stored_form(kind) {
            return Self::Stored(&item.stored.value);
        }
        let mut object = json::decode_untyped(&item.stored.value).unwrap_or_default();
        kind.to_served(&mut object);
        Self::Served(Box::new(object))
    }

    fn value(&self, kind: &dyn Kind, label: &str) -> String {
        let object = match self {
            Self::Stored(json) => Cow::Owned(part(json, label)),
            Self::Served(object) => Cow::Borrowed(&**object),
        };
        kind.field_value(&object, label)
    }
}

/// As much of an object as a field's value is made from.
fn part(json: &[u8], label: &str) -> Tree {
    let mut part = Tree::map();
    for path in rules::field_paths(label) {
        let Some((value, (last, parents))) = scan::at(json, &path).and_then(scan::scalar).zip(path.split_last()) else {
            continue;
        };
        let parent =
            parents.iter().fold(&mut part, |tree, key| tree.ensure_map().entry_or((*key).to_owned(), Tree::map));
        parent.ensure_map().insert((*last).to_owned(), value);
    }
    part
}

impl Item {
    /// Namespace and name.
    pub fn place(&self) -> (&str, &str) {
        let key = std::str::from_utf8(&self.stored.key).unwrap_or("");
        key.split_once('/').unwrap_or(("", key))
    }
}

fn unknown_field(kind: &dyn Kind, label: &str) -> String {
    if kind.selectable_fields().is_empty() {
        format!("{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {label}")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skiff_kinds::Registry;

    use super::*;
    use crate::storage::Stored;

    #[test]
    fn every_selectable_field_has_the_same_value_in_the_json_as_in_the_object() {
        let object = json::decode_untyped(
            br#"{"metadata":{"name":"a","namespace":"b"},"type":"t","reason":"r","reportingComponent":"c",
                "source":{"host":"h"},"involvedObject":{"kind":"Pod","name":"x","uid":"u","fieldPath":"f{\"}"},
                "spec":{"nodeName":"n","hostNetwork":true,"unschedulable":true,"clusterIP":"1.2.3.4","type":"NodePort",
                "signerName":"s","driver":"d","restartPolicy":"Always"},
                "status":{"phase":"Running","podIP":"::1","podIPs":[{"ip":"::1"}],"replicas":3,"succeeded":4}}"#,
        )
        .unwrap();
        let value = Bytes::from(json::encode_untyped(&object));
        let empty = Bytes::from_static(b"{}");
        let mut seen = 0;
        for kind in Registry::builtin().iter() {
            for label in kind.selectable_fields().iter() {
                for (value, object) in [(&value, &object), (&empty, &Tree::map())] {
                    let expected = kind.field_value(object, label);
                    assert_eq!(kind.field_value(&part(value, label), label), expected, "{label}");
                }
                seen += 1;
            }
        }
        assert!(seen > 20);
    }

    #[test]
    fn labels_are_read_from_the_json() {
        let kind = Registry::builtin().resource("", "v1", "pods").unwrap();
        let matches = |json: &'static str, selector: &str| {
            let stored = Stored { key: "ns/a".into(), value: json.into(), revision: 1 };
            Selection::parse(kind.as_ref(), selector, "").unwrap().matches(kind.as_ref(), &Item::of(stored))
        };
        let pod = r#"{"metadata":{"name":"a","labels":{"a/b":"c","n":"5"},"annotations":{"labels":"x"}}}"#;
        for (selector, expected) in [
            ("a/b=c", true),
            ("a/b", true),
            ("!a/b", false),
            ("n>4,n<6", true),
            ("a/b notin (c)", false),
            ("labels", false),
            ("none!=x", true),
        ] {
            assert_eq!(matches(pod, selector), expected, "{selector}");
        }
        assert!(matches(r#"{"metadata":{"name":"a"}}"#, "!a"));
        assert!(!matches(r#"{"metadata":{"name":"a"}}"#, "a"));
    }
}
