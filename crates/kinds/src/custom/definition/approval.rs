//! Groups of the Kubernetes community need an annotation that says who approved the API.

use skiff_object::Tree;
use skiff_object::errors::{FieldError, quote};

const ANNOTATION: &str = "api-approved.kubernetes.io";
const POLICY: &str = "https://github.com/kubernetes/enhancements/pull/1111";

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

fn annotation(definition: &Tree) -> &str {
    definition.str_at(&["metadata", "annotations", ANNOTATION])
}

fn state(definition: &Tree) -> (State, String) {
    let text = annotation(definition);
    if text.is_empty() {
        let why = format!("protected groups must have approval annotation {}, see {POLICY}", quote(ANNOTATION));
        return (State::Missing, why);
    }
    if text.starts_with("unapproved") {
        return (State::Bypassed, format!("not approved: {}", quote(text)));
    }
    let host = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, rest)| rest);
    if host.is_some_and(|rest| !rest.split('/').next().unwrap_or("").is_empty()) {
        return (State::Approved, format!("approved in {text}"));
    }
    let why = format!(
        "protected groups must have approval annotation {} with either a URL or a reason starting with \"unapproved\", \
         see {POLICY}",
        quote(ANNOTATION)
    );
    (State::Invalid, why)
}

/// Status, reason and message of `KubernetesAPIApprovalPolicyConformant`; nothing for groups that need no approval.
pub(super) fn condition(definition: &Tree) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(definition.str_at(&["spec", "group"])) {
        return None;
    }
    let (state, why) = state(definition);
    let (status, reason) = match state {
        State::Missing => ("False", "MissingAnnotation"),
        State::Bypassed => ("False", "UnapprovedAnnotation"),
        State::Approved => ("True", "ApprovedAnnotation"),
        State::Invalid => ("False", "InvalidAnnotation"),
    };
    Some((status, reason, why))
}

/// What is wrong with the annotation, unless it was so before.
pub(super) fn validate(new: &Tree, old: Option<&Tree>) -> Option<FieldError> {
    if !is_protected(new.str_at(&["spec", "group"])) {
        return None;
    }
    let (found, why) = state(new);
    if old.is_some_and(|old| state(old).0 == found) {
        return None;
    }
    let field = format!("metadata.annotations[{ANNOTATION}]");
    match found {
        State::Missing => Some(FieldError::required(field, why)),
        State::Invalid => Some(FieldError::invalid(field, annotation(new), why)),
        State::Approved | State::Bypassed => None,
    }
}
