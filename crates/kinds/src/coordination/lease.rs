//! `leases` in `coordination.k8s.io/v1`.

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

/// Who leads, and until when.
pub(crate) struct Lease(pub(crate) Facts);

impl Kind for Lease {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![cells::name(object), cells::text(object, &["spec", "holderIdentity"]), cells::age(object, now)]
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        checks::positive(&mut found, spec, "leaseDurationSeconds", SPEC);
        checks::not_negative(&mut found, spec, "leaseTransitions", SPEC);
        checks::formed(&mut found, spec, "strategy", SPEC, name::qualified_name);
        let preferred = spec.str_at(&["preferredHolder"]);
        if !preferred.is_empty() && spec.str_at(&["strategy"]).is_empty() {
            let why = "may only be specified if `strategy` is defined";
            found.push(FieldError::forbidden(SPEC.child("preferredHolder"), why));
        }
        found
    }
}

const COLUMNS: &[Column] = &[Column::name(), Column::new("Holder", "string", "Who holds it."), cells::AGE];
