//! `matchConditions`: expressions that must all hold for a webhook to be called.

use std::sync::Arc;

use skiff_kinds::Kind;
use skiff_object::Tree;

use super::configuration::FailurePolicy;
use crate::admission::Attributes;
use crate::admission::policy::compiled::Policy;
use crate::admission::policy::evaluation::{self, Asker, Inputs, Variables};
use crate::server::ApiServer;

pub use crate::admission::policy::evaluation::Verdict;

/// The conditions of one webhook, compiled: those of a policy that has nothing else.
pub struct Conditions {
    policy: Option<Policy>,
}

impl Conditions {
    /// The conditions of a webhook that fails by `failure_policy`.
    pub fn new(conditions: &[Tree], failure_policy: FailurePolicy) -> Self {
        if conditions.is_empty() {
            return Self { policy: None };
        }
        let mut policy = Tree::map();
        policy.set(&["spec", "matchConditions"], conditions.to_vec());
        let word = if failure_policy == FailurePolicy::Ignore { "Ignore" } else { "Fail" };
        policy.set(&["spec", "failurePolicy"], word);
        Self { policy: Some(Policy::read(&policy)) }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.policy.is_none()
    }

    /// What they say about a write as the webhook sees it.
    pub async fn verdict(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        kind: &Arc<dyn Kind>,
        object: &Tree,
        old: &Tree,
    ) -> Verdict {
        let Some(policy) = &self.policy else { return Verdict::Ask };
        let (request, resource) = (evaluation::request(attributes, kind), evaluation::request_resource(attributes));
        let (params, namespace) = (Tree::Null, Tree::Null);
        let inputs =
            Inputs { object, old, request: &request, params: &params, namespace: &namespace, resource: &resource };
        let asker = Asker::new(server, attributes.user);
        asker.settled(|| evaluation::conditions(&Variables::new(&inputs, policy, &asker), policy)).await
    }
}
