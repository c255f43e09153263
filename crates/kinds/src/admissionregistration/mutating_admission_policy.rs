//! `mutatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, Found, SPEC, admission};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Changes requests by expressions.
pub(crate) struct MutatingAdmissionPolicy(pub(crate) Facts);

impl Kind for MutatingAdmissionPolicy {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "failurePolicy", "Fail");
        fill::text(spec, "reinvocationPolicy", "Never");
        fill::each(spec, &["matchConstraints"], fill::match_resources);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::size(object, &["spec", "mutations"]),
            cells::param_kind(object),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        admission::policy(&mut found, spec, SPEC);
        if spec.list_at(&["mutations"]).is_empty() {
            found.push(FieldError::required(SPEC.child("mutations"), "mutations must contain at least one item"));
        }
        checks::each(spec, "mutations", SPEC, |mutation, path| self::mutation(&mut found, mutation, path));
        checks::one_of(&mut found, spec, "reinvocationPolicy", SPEC, &["IfNeeded", "Never"]);
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Mutations", "integer", "How many there are."),
    Column::new("ParamKind", "string", "What its parameters are."),
    cells::AGE,
];

/// The ways to say what changes, with the field that each of them needs.
const PATCHES: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];

fn mutation(found: &mut Found, mutation: &Tree, path: Path<'_>) {
    let ty = mutation.str_at(&["patchType"]);
    checks::one_of(found, mutation, "patchType", path, &PATCHES.map(|(ty, _)| ty));
    for (other, field) in PATCHES {
        match checks::given(mutation, field) {
            None if other == ty => {
                let why = format!("must be specified when patchType is {ty}");
                found.push(FieldError::required(path.child(field), why));
            }
            Some(_) if other != ty => {
                let why = format!("must not be specified when patchType is {ty}");
                found.push(FieldError::forbidden(path.child(field), why));
            }
            Some(patch) => admission::expression(found, patch, "expression", path.child(field)),
            None => {}
        }
    }
}
