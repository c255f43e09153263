//! What a list, watch or deletecollection is limited to, as authorizers see it.

use skiff_object::selector::{field, label};

/// The selectors of a request. One that cannot be read counts as absent: what is asked for is then
/// everything, which is the more that can be asked (upstream's rule).
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// By fields.
    pub fields: Option<field::Selector>,
    /// By labels.
    pub labels: Option<label::Selector>,
}

impl Selectors {
    /// Those of a query, if there are any.
    pub fn of_query(query: &str) -> Option<Self> {
        if !query.contains("Selector") {
            return None;
        }
        let text = |key: &str| crate::request::options::first(query, key).unwrap_or_default();
        Self::of_texts(&text("fieldSelector"), &text("labelSelector"))
    }

    /// Those of two texts, if they say anything.
    pub fn of_texts(fields: &str, labels: &str) -> Option<Self> {
        let fields = field::Selector::parse(fields).ok().filter(|selector| !selector.is_everything());
        let labels = label::Selector::parse(labels).ok().filter(|selector| !selector.is_everything());
        (fields.is_some() || labels.is_some()).then_some(Self { fields, labels })
    }

    /// Whether only objects whose `field` is `value` are asked for.
    pub fn require(&self, field: &str, value: &str) -> bool {
        self.fields.as_ref().is_some_and(|selector| selector.required(field) == Some(value))
    }
}
