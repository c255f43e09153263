//! `validatingadmissionpolicies` in `admissionregistration.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::HashSet;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::name;
use skiff_object::path::Path;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, Found, SPEC, admission};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::table::Column;

/// Refuses requests by expressions.
pub(crate) struct ValidatingAdmissionPolicy(pub(crate) Facts);

impl Kind for ValidatingAdmissionPolicy {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::absent(spec, "failurePolicy", "Fail");
        fill::each(spec, &["matchConstraints"], fill::match_resources);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        vec![
            cells::name(object),
            cells::size(object, &["spec", "validations"]),
            cells::param_kind(object),
            cells::age(object, now),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = checks::spec(object);
        admission::policy(&mut found, spec, SPEC);
        let lists = ["validations", "auditAnnotations"];
        if lists.iter().all(|list| spec.list_at(&[list]).is_empty()) {
            for list in lists {
                let why = "validations or auditAnnotations must be provided";
                found.push(FieldError::required(SPEC.child(list), why));
            }
        }
        checks::each(spec, "validations", SPEC, |one, path| validation(&mut found, one, path));
        audit_annotations(&mut found, spec, object.str_at(&["metadata", "name"]));
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }

    fn validate_subresource(&self, _: &str, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let status = new.get("status").unwrap_or(&Tree::Null);
        let path = Path::new("status");
        checks::within(status, "typeChecking", path, |checking, path| {
            checks::each(checking, "expressionWarnings", path, |warning, path| {
                checks::required(&mut found, warning, "warning", path);
                checks::required(&mut found, warning, "fieldRef", path);
            });
        });
        checks::conditions::conditions(&mut found, status, "conditions", path);
        found
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Validations", "integer", "How many there are."),
    Column::new("ParamKind", "string", "What its parameters are."),
    cells::AGE,
];

/// How many annotations a policy may add to an audit event.
const AUDIT_ANNOTATIONS_MAX: usize = 20;
/// How long the expression of such an annotation may be.
const AUDIT_EXPRESSION_BYTES_MAX: usize = 5 * 1_024;

fn validation(found: &mut Found, validation: &Tree, path: Path<'_>) {
    let expression = validation.str_at(&["expression"]).trim();
    admission::expression(found, validation, "expression", path);
    let message = validation.str_at(&["message"]);
    let breaks = |text: &str| text.contains(['\n', '\r']);
    if !message.is_empty() && message.trim().is_empty() {
        let why = "message must be non-empty if specified";
        found.push(FieldError::invalid(path.child("message"), message, why));
    } else if breaks(message.trim()) {
        let why = "message must not contain line breaks";
        found.push(FieldError::invalid(path.child("message"), message, why));
    } else if breaks(expression) && message.is_empty() {
        let why = "message must be specified if expression contains line breaks";
        found.push(FieldError::required(path.child("message"), why));
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    checks::only_if_given(found, validation, "reason", path, &reasons);
}

fn audit_annotations(found: &mut Found, spec: &Tree, policy: &str) {
    checks::at_most(found, spec, "auditAnnotations", SPEC, AUDIT_ANNOTATIONS_MAX);
    let mut keys = HashSet::new();
    checks::each(spec, "auditAnnotations", SPEC, |annotation, path| {
        if let Some(key) = checks::required(found, annotation, "key", path) {
            checks::invalid(found, path.child("key"), key, name::qualified_name(&format!("{policy}/{key}")));
            if !keys.insert(key) {
                found.push(FieldError::duplicate(path.child("key"), key));
            }
        }
        let expression = annotation.str_at(&["valueExpression"]).trim();
        if expression.is_empty() {
            found.push(FieldError::required(path.child("valueExpression"), "valueExpression is required"));
        } else if expression.len() > AUDIT_EXPRESSION_BYTES_MAX {
            found.push(FieldError::required(path.child("valueExpression"), "must not exceed 5kb in length"));
        }
    });
}
