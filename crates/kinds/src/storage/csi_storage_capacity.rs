//! `csistoragecapacities` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::selector::label;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, resources};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// How much storage there is to hand out.
pub(crate) struct CSIStorageCapacity(pub(crate) Facts);

impl Kind for CSIStorageCapacity {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, _now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["storageClassName"]),
            cells::text_or(object, &["capacity"], "<unset>"),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = label::validate(object.get("nodeTopology"), Path::new("nodeTopology"));
        checks::shaped(&mut found, object, "storageClassName", Path::root(), name::dns1123_subdomain);
        for field in ["capacity", "maximumVolumeSize"] {
            if let Some(amount) = resources::quantity(object.get(field)) {
                resources::not_negative(&mut found, amount, Path::new(field));
            }
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["nodeTopology"]);
        checks::immutable(&mut found, new, old, &["storageClassName"]);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("StorageClassName", "string", "Which class it is about."),
    Column::new("Capacity", "string", "How much fits."),
];
