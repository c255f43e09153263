//! `runtimeclasses` in `node.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks;
use crate::facts::Facts;
use crate::kind::Kind;
use crate::table::Column;

/// How containers are run.
pub(crate) struct RuntimeClass(pub(crate) Facts);

impl Kind for RuntimeClass {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::text(object, &["handler"]), cells::age(object, now)]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let handler = object.str_at(&["handler"]);
        checks::invalid(&mut found, Path::new("handler"), handler, name::dns1123_label(handler));
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        let mut found = self.validate_create(new);
        checks::immutable(&mut found, new, old, &["handler"]);
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("Handler", "string", "What runs its containers."), cells::AGE];
