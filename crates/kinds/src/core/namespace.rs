//! `namespaces` in `v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, Found, SPEC};
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

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        for text in object.list_at(&["spec", "finalizers"]).iter().filter_map(Tree::as_str) {
            finalizer(&mut found, text, SPEC.child("finalizers"));
        }
        found
    }

    fn validate_subresource(&self, subresource: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        if subresource == "finalize" {
            checks::each_text(checks::spec(new), "finalizers", SPEC, |text, path| finalizer(&mut found, text, path));
            return found;
        }
        let phase = new.str_at(&["status", "phase"]);
        let going = !new.str_at(&["metadata", "deletionTimestamp"]).is_empty();
        if going && phase != "Terminating" {
            let why = "may only be 'Terminating' if `deletionTimestamp` is not empty";
            found.push(FieldError::invalid("status.Phase", phase, why));
        }
        if !going && phase != "Active" {
            let why = "may only be 'Active' if `deletionTimestamp` is empty";
            found.push(FieldError::invalid("status.Phase", phase, why));
        }
        found
    }
}

/// Holds a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";

const COLUMNS: &[Column] =
    &[Column::name(), Column::new("Status", "string", "Whether it is active or going."), cells::AGE];

/// A finalizer is a qualified name; without a domain, it is one that Kubernetes knows.
fn finalizer(found: &mut Found, text: &str, path: Path<'_>) {
    let wrong = name::qualified_name(text);
    if wrong.is_empty() && !text.contains('/') && !matches!(text, FINALIZER | "orphan" | "foregroundDeletion") {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        found.push(FieldError::invalid(path, text, why));
    }
    checks::invalid(found, path, text, wrong);
}
