//! `matchConditions`: expressions that must all hold for a webhook to be called.

use skiff_object::Tree;

use super::configuration::FailurePolicy;

/// The conditions of one webhook.
pub struct Conditions {
    expressions: Vec<String>,
    failure_policy: FailurePolicy,
}

/// What the conditions say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Call the webhook.
    Call,
    /// Do not.
    Skip,
    /// They cannot be told, and the webhook must not be passed by.
    Error(String),
}

impl Conditions {
    /// The conditions of a webhook that fails by `failure_policy`.
    pub fn new(conditions: &[Tree], failure_policy: FailurePolicy) -> Self {
        let expressions = conditions.iter().map(|one| one.str_at(&["expression"]).to_owned()).collect();
        Self { expressions, failure_policy }
    }

    /// What they say.
    pub fn verdict(&self) -> Verdict {
        match (self.expressions.is_empty(), self.failure_policy) {
            (true, _) => Verdict::Call,
            (false, FailurePolicy::Ignore) => Verdict::Skip,
            (false, FailurePolicy::Fail) => Verdict::Error("matchConditions cannot be evaluated yet".into()),
        }
    }
}
