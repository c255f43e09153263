//! `ipaddresses` in `networking.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// An address that is taken, and by whom.
pub(crate) struct IPAddress(pub(crate) Facts);

impl Kind for IPAddress {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let parent = match object.at(&["spec", "parentRef"]) {
            Some(parent @ Tree::Map(_)) => {
                let place = ["resource", "group", "namespace", "name"].map(|field| parent.str_at(&[field]));
                let [resource, group, namespace, name] = place;
                let dot = if group.is_empty() { "" } else { "." };
                let slash = if namespace.is_empty() { "" } else { "/" };
                format!("{resource}{dot}{group}/{namespace}{slash}{name}")
            }
            _ => "<none>".to_owned(),
        };
        vec![cells::name(object), parent.into(), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        let path = SPEC.child("parentRef");
        let Some(parent) = checks::given(spec, "parentRef") else {
            return vec![FieldError::required(path, "")];
        };
        checks::formed(&mut found, parent, "group", path, name::dns1123_subdomain);
        checks::needed(&mut found, parent, "resource", path, name::path_segment);
        checks::needed(&mut found, parent, "name", path, name::path_segment);
        checks::formed(&mut found, parent, "namespace", path, name::path_segment);
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["spec", "parentRef"]);
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("ParentRef", "string", "Whose address it is."), cells::AGE];
