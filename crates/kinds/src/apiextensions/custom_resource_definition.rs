//! `customresourcedefinitions` in `apiextensions.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::custom::definition;
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::rules;
use crate::table::Column;

/// A resource that the cluster's users define.
pub(crate) struct CustomResourceDefinition(pub(crate) Facts);

impl Kind for CustomResourceDefinition {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        let names = fill::within(spec, "names");
        let kind = names.str_at(&["kind"]).to_owned();
        if !kind.is_empty() {
            fill::text(names, "singular", &kind.to_lowercase());
            fill::text(names, "listKind", &format!("{kind}List"));
        }
        let conversion = fill::within(spec, "conversion");
        fill::text(conversion, "strategy", "None");
        fill::each(conversion, &["webhook", "clientConfig", "service"], |service| fill::absent(service, "port", 443));
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(&self.0, Generation::Spec, object);
        remember_storage_version(object);
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        rules::prepare_update(&self.0, Generation::Spec, new, old);
        remember_storage_version(new);
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        definition::validate(object, None)
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        definition::validate(new, Some(old))
    }

    fn validate_subresource(&self, _subresource: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        definition::validate_status(new, &mut found);
        found
    }

    fn warnings(&self, new: &Tree, old: Option<&Tree>) -> Vec<String> {
        definition::warnings(new, old)
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        const CREATED: &str = "When the definition was created.";
        Cow::Owned(vec![Column::name(), Column::new("Created At", "date", CREATED)])
    }

    fn row(&self, object: &Tree, _now: Time) -> Vec<Tree> {
        let text = |field: &str| Tree::from(object.str_at(&["metadata", field]));
        vec![text("name"), text("creationTimestamp")]
    }
}

/// Objects may lie in the store in every version that ever was the storage version.
fn remember_storage_version(object: &mut Tree) {
    let versions = object.list_at(&["spec", "versions"]);
    let storage = versions.iter().find(|version| version.bool_at(&["storage"]) == Some(true));
    let Some(name) = storage.map(|version| version.str_at(&["name"]).to_owned()) else { return };
    let mut stored = object.list_at(&["status", "storedVersions"]).to_vec();
    if !stored.iter().any(|one| one.as_str() == Some(&name)) {
        stored.push(name.into());
        object.set(&["status", "storedVersions"], stored);
    }
}
