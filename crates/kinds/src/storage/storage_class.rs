//! `storageclasses` in `storage.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::checks::Found;
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
        let root = Path::root();
        let lower = |text: &str| name::qualified_name(&text.to_lowercase());
        checks::needed(&mut found, object, "provisioner", root, lower);
        parameters(&mut found, object, root);
        checks::maybe_one_of(&mut found, object, "reclaimPolicy", root, &["Delete", "Retain"]);
        if checks::given(object, "volumeBindingMode").is_none() {
            found.push(FieldError::required("volumeBindingMode", ""));
        } else {
            checks::only(&mut found, object, "volumeBindingMode", root, &["Immediate", "WaitForFirstConsumer"]);
        }
        topologies(&mut found, object);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if !rules::same(new.get(field), old.get(field)) {
                let why = format!("updates to {field} are forbidden.");
                found.push(FieldError::forbidden(field, why));
            }
        }
        checks::immutable(&mut found, new, old, &["volumeBindingMode"]);
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

/// How many parameters a class may have.
const PARAMETERS_MAX: usize = 512;
/// How large they may be together.
const PARAMETERS_BYTES_MAX: usize = 256 * 1_024;

/// What a class tells its driver.
pub(crate) fn parameters(found: &mut Found, object: &Tree, path: Path<'_>) {
    let (mut count, mut bytes) = (0, 0);
    checks::entries(object, "parameters", path, |key, value, _| {
        count += 1;
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if key.is_empty() {
            found.push(FieldError::invalid(path.child("parameters"), key, "field can not be empty."));
        }
    });
    for (amount, max) in [(count, PARAMETERS_MAX), (bytes, PARAMETERS_BYTES_MAX)] {
        if amount > max {
            found.push(FieldError::too_long(path.child("parameters"), max));
        }
    }
}

/// Where volumes of a class may be.
fn topologies(found: &mut Found, object: &Tree) {
    let mut terms: Vec<&Tree> = Vec::new();
    checks::each(object, "allowedTopologies", Path::root(), |term, path| {
        let mut keys = HashSet::new();
        checks::each(term, "matchLabelExpressions", path, |expression, path| {
            checks::shaped(found, expression, "key", path, name::qualified_name);
            if expression.list_at(&["values"]).is_empty() {
                found.push(FieldError::required(path.child("values"), ""));
            }
            checks::distinct(found, expression, "values", path);
            let key = expression.str_at(&["key"]);
            if !keys.insert(key) {
                found.push(FieldError::duplicate(path.child("key"), key));
            }
        });
        let list = term.get("matchLabelExpressions");
        if terms.iter().any(|other| rules::same(other.get("matchLabelExpressions"), list)) {
            found.push(FieldError::duplicate(path.child("matchLabelExpressions"), ""));
        }
        terms.push(term);
    });
}
