//! `mutatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::time::Time;

use crate::cells;
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
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Mutations", "integer", "How many there are."),
    Column::new("ParamKind", "string", "What its parameters are."),
    cells::AGE,
];
