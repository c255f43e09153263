//! `volumeattributesclasses` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Map;
use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::rules;
use crate::table::Column;

/// Attributes of a volume that can change.
pub(crate) struct VolumeAttributesClass(pub(crate) Facts);

impl Kind for VolumeAttributesClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::text(object, &["driverName"]), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        super::csi_driver::driver_name(&mut found, object, "driverName", Path::root());
        if object.get("parameters").and_then(Tree::as_map).is_none_or(Map::is_empty) {
            let why = "must contain at least one key/value pair";
            found.push(FieldError::required("parameters", why));
        }
        super::storage_class::parameters(&mut found, object, Path::root());
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        for field in ["driverName", "parameters"] {
            if !rules::same(new.get(field), old.get(field)) {
                found.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
            }
        }
        found
    }
}

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("DriverName", "string", "The driver that knows the attributes."), cells::AGE];
