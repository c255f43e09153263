//! `storageclasses` in `storage.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::rules;
use crate::table::Column;

/// How storage is made.
pub(crate) struct StorageClass(pub(crate) Facts);

impl Kind for StorageClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        fill::absent(object, "reclaimPolicy", "Delete");
        fill::absent(object, "volumeBindingMode", "Immediate");
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let annotation = |key: &'static str| object.str_at(&["metadata", "annotations", key]) == "true";
        let is_default = annotation("storageclass.kubernetes.io/is-default-class")
            || annotation("storageclass.beta.kubernetes.io/is-default-class");
        let suffix = if is_default { " (default)" } else { "" };
        let expands = object.bool_at(&["allowVolumeExpansion"]) == Some(true);
        vec![
            format!("{}{suffix}", object.str_at(&["metadata", "name"])).into(),
            cells::text(object, &["provisioner"]),
            cells::text_or(object, &["reclaimPolicy"], "Delete"),
            cells::text_or(object, &["volumeBindingMode"], "Immediate"),
            expands.into(),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        checks::required(&mut found, object, "provisioner", Path::root());
        checks::maybe_one_of(&mut found, object, "reclaimPolicy", Path::root(), &["Delete", "Retain"]);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        checks::one_of(&mut found, object, "volumeBindingMode", Path::root(), &modes);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            if !rules::same(new.get(field), old.get(field)) {
                let why = format!("updates to {field} are forbidden.");
                found.push(FieldError::forbidden(field, why));
            }
        }
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Provisioner", "string", "Who makes volumes."),
    Column::new("ReclaimPolicy", "string", "What becomes of volumes after their claim."),
    Column::new("VolumeBindingMode", "string", "When volumes are made."),
    Column::new("AllowVolumeExpansion", "string", "Whether claims can grow."),
    cells::AGE,
];
