//! Several authorizers in order: the first that says yes or no decides.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::rbac::Rbac;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::UserInfo;

/// See the [module](self).
pub struct Union {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Union {
    /// These, in this order.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self { authorizers }
    }
}

/// Reasons of those without an opinion, as upstream shows them: one per line.
fn undecided(reasons: &[String]) -> Decision {
    Decision::NoOpinion(reasons.join("\n"))
}

impl Authorizer for Union {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        undecided(&reasons)
    }

    fn asks(&self, user: &UserInfo) -> bool {
        self.authorizers.iter().any(|one| one.asks(user))
    }

    fn ask<'a>(&'a self, attributes: Attributes<'a>) -> Option<BoxFuture<'a, Decision>> {
        self.asks(attributes.user).then(|| self.ask_each(attributes).boxed())
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut all = Rules::default();
        let mut errors = Vec::new();
        for authorizer in &self.authorizers {
            let rules = authorizer.rules(user, namespace);
            all.resource.extend(rules.resource);
            all.non_resource.extend(rules.non_resource);
            all.incomplete |= rules.incomplete;
            if !rules.evaluation_error.is_empty() {
                errors.push(rules.evaluation_error);
            }
        }
        all.evaluation_error = match errors.as_slice() {
            [one] => one.clone(),
            [] => String::new(),
            many => format!("[{}]", many.join(", ")),
        };
        all
    }

    fn roles(&self) -> Option<&Rbac> {
        self.authorizers.iter().find_map(|authorizer| authorizer.roles())
    }
}

impl Union {
    async fn ask_each(&self, attributes: Attributes<'_>) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            let decision = match authorizer.ask(attributes) {
                Some(answer) => answer.await,
                None => authorizer.authorize(&attributes),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        undecided(&reasons)
    }
}
