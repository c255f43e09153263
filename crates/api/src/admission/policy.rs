//! Admission policies: `ValidatingAdmissionPolicy` and `MutatingAdmissionPolicy` with their bindings.
//!
//! Map: [`environment`] (what expressions may speak of), [`compiled`] (a policy made ready), [`source`] (policies and
//! bindings as of now, from the watch cache; each is compiled once), [`constraints`] (which writes one is for),
//! [`params`], [`evaluation`] (expressions over one write, with their budget), [`validating`] and [`mutating`] (what
//! becomes of the values), [`check`] (expressions that do not compile are refused when a policy is written),
//! [`type_check`] (what the types of the matched resources say about expressions goes into the status).
//!
//! Evaluation is synchronous. Where the authorizer has to ask somebody else, an evaluation stops at the first answer
//! it lacks, the answer is fetched, and it runs again.
//!
//! Texts and codes are those of `k8s.io/apiserver/pkg/admission/plugin/policy`.

use async_trait::async_trait;
use skiff_object::Tree;

use self::source::Source;
use super::webhook::is_exempt;
use super::{Attributes, Operation, Plugin};
use crate::errors::ApiResult;
use crate::registry;
use crate::server::ApiServer;

pub mod check;
pub mod compiled;
pub mod constraints;
pub mod environment;
pub mod evaluation;
pub mod mutating;
pub mod params;
pub mod source;
pub mod type_check;
pub mod validating;

/// `ValidatingAdmissionPolicy`
pub struct ValidatingPolicies {
    source: Source,
}

/// `MutatingAdmissionPolicy`
pub struct MutatingPolicies {
    source: Source,
}

impl Default for ValidatingPolicies {
    fn default() -> Self {
        Self { source: Source::new("validatingadmissionpolicies", "validatingadmissionpolicybindings") }
    }
}

impl Default for MutatingPolicies {
    fn default() -> Self {
        Self { source: Source::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings") }
    }
}

/// Reviews are answered, not stored: policies are not asked about them.
fn is_review(attributes: &Attributes<'_>) -> bool {
    let kind = attributes.subject.kind.as_ref();
    registry::is(kind, "authentication.k8s.io", "tokenreviews")
        || registry::is(kind, "authentication.k8s.io", "selfsubjectreviews")
        || kind.facts().group == *"authorization.k8s.io"
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !is_review(attributes) && (!is_exempt(attributes) || check::is_checked(attributes))
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        if is_exempt(attributes) {
            return check::check(attributes, object, old);
        }
        let hooks = self.source.hooks(server).await?;
        if hooks.is_empty() {
            return Ok(());
        }
        validating::dispatch(server, attributes, &hooks, object, old).await
    }
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // A delete has no object to change.
        attributes.operation != Operation::Delete && !is_exempt(attributes) && !is_review(attributes)
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let hooks = self.source.hooks(server).await?;
        if hooks.is_empty() {
            return Ok(());
        }
        mutating::dispatch(server, attributes, &hooks, object, old).await
    }
}
