//! `configmaps` in `v1`.

use std::borrow::Cow;

use skiff_object::errors::FieldError;
use skiff_object::time::Time;
use skiff_object::{Map, Tree};

use crate::cells;
use crate::checks::data;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// Settings that pods read.
pub(crate) struct ConfigMap(pub(crate) Facts);

impl Kind for ConfigMap {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let entries = |field: &str| object.get(field).and_then(Tree::as_map).map_or(0, Map::len);
        let entries = (entries("data") + entries("binaryData")) as i64;
        vec![cells::name(object), entries.into(), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let bytes = data::keys(&mut found, object, "data", false) + data::keys(&mut found, object, "binaryData", true);
        data::in_both(&mut found, object);
        data::size(&mut found, bytes, "[]");
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        data::kept(&mut found, new, old, &["data", "binaryData"]);
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("Data", "string", "How many entries it has."), cells::AGE];
