//! `validatingadmissionpolicybindings` in `admissionregistration.k8s.io/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::{BadValue, FieldError};
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC, admission};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Where a validating policy applies.
pub(crate) struct ValidatingAdmissionPolicyBinding(pub(crate) Facts);

impl Kind for ValidatingAdmissionPolicyBinding {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        fill::each(object, &["spec", "matchResources"], fill::match_resources);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::text(object, &["spec", "policyName"]),
            cells::param_ref(object),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        admission::policy_binding(&mut found, spec, SPEC);
        if spec.list_at(&["validationActions"]).is_empty() {
            found.push(FieldError::required(SPEC.child("validationActions"), ""));
        }
        checks::each_text(spec, "validationActions", SPEC, |action, path| {
            if !ACTIONS.contains(&action) {
                found.push(FieldError::not_supported(path, action, &ACTIONS));
            }
        });
        checks::distinct(&mut found, spec, "validationActions", SPEC);
        let has = |wanted| spec.list_at(&["validationActions"]).iter().any(|action| action.as_str() == Some(wanted));
        if has("Deny") && has("Warn") {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                       API response and headers serves no purpose)";
            let value = BadValue::from(spec.get("validationActions"));
            found.push(FieldError::invalid(SPEC.child("validationActions"), value, why));
        }
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("PolicyName", "string", "The policy that is put to use."),
    Column::new("ParamRef", "string", "Its parameters."),
    cells::AGE,
];

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
