//! `resourcequotas` in `v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::quantity::Quantity;
use skiff_object::time::Time;
use skiff_object::{Map, Tree};

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::table::Column;

/// What a namespace may use in total.
pub(crate) struct ResourceQuota(pub(crate) Facts);

impl Kind for ResourceQuota {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        for path in [&["spec", "hard"], &["status", "hard"], &["status", "used"]] {
            fill::round_resources(object, path);
        }
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::quota(object, false), cells::quota(object, true), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let hard = SPEC.child("hard");
        for (key, value) in object.at(&["spec", "hard"]).and_then(Tree::as_map).into_iter().flat_map(Map::iter) {
            let key = key.as_str();
            checks::invalid(&mut found, hard.key(key), key, name::qualified_name(key));
            let amount = value.as_str().and_then(|text| text.parse::<Quantity>().ok());
            if let Some(amount) = amount.filter(|amount| amount.is_negative()) {
                let why = "must be greater than or equal to 0";
                found.push(FieldError::invalid(hard.key(key), amount.to_string(), why));
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec", "scopes"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Request", "string", "What is requested of what may be."),
    Column::new("Limit", "string", "What is limited of what may be."),
    cells::AGE,
];
