//! `namespaces` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
use crate::facts::Facts;
use crate::fill;
use crate::kind::Kind;
use crate::rules;
use crate::table::Column;

/// A scope for names.
pub(crate) struct Namespace(pub(crate) Facts);

impl Kind for Namespace {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn default(&self, object: &mut Tree) {
        // A generated name is not known yet; the server comes back when it is.
        let name = object.str_at(&["metadata", "name"]).to_owned();
        if !name.is_empty() {
            object.set(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
        fill::text(fill::within(object, "status"), "phase", "Active");
    }

    fn prepare_create(&self, object: &mut Tree) {
        rules::prepare_create(self.facts(), self.generation(), object);
        object.set(&["status", "phase"], "Active");
        let mut finalizers = object.list_at(&["spec", "finalizers"]).to_vec();
        if !finalizers.iter().any(|one| one.as_str() == Some(FINALIZER)) {
            finalizers.push(FINALIZER.into());
            object.set(&["spec", "finalizers"], finalizers);
        }
    }

    fn prepare_update(&self, new: &mut Tree, old: &Tree) {
        rules::prepare_update(self.facts(), self.generation(), new, old);
        // Only the subresource `finalize` changes them.
        rules::keep(new, old, &["spec", "finalizers"]);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::text(object, &["status", "phase"]), cells::age(object, now)]
    }
}

/// Holds a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Status", "string", "Whether it is active or going."), cells::AGE];
