//! Admission webhooks: what `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration` say.
//!
//! Map: [`configuration`] (objects become [`configuration::Hook`]s, read from the watch cache, so a
//! configuration counts from the moment its write is answered), [`matching`] (which hooks a write
//! is for, in which version), [`review`] (question and answer), [`call`] (one call and how it may
//! fail), [`mutating`] (one after the other, by name and place) and [`validating`] (all at once).
//! No lock is held while a webhook is waited for, and a write waits for nobody else's webhooks.
//!
//! Texts and codes are those of `k8s.io/apiserver/pkg/admission/plugin/webhook`.

use async_trait::async_trait;
use skiff_object::Tree;

use self::configuration::Source;
use super::{Attributes, Plugin};
use crate::errors::ApiResult;
use crate::server::ApiServer;

pub mod call;
pub mod conditions;
pub mod configuration;
pub mod matching;
pub mod mutating;
pub mod review;
pub mod users;
pub mod validating;

/// `MutatingAdmissionWebhook`
pub struct MutatingWebhooks {
    source: Source,
}

/// `ValidatingAdmissionWebhook`
pub struct ValidatingWebhooks {
    source: Source,
}

impl Default for MutatingWebhooks {
    fn default() -> Self {
        Self { source: Source::new("mutatingwebhookconfigurations") }
    }
}

impl Default for ValidatingWebhooks {
    fn default() -> Self {
        Self { source: Source::new("validatingwebhookconfigurations") }
    }
}

/// The resources of admission itself: what could keep an administrator from putting them right is
/// not asked about them.
const EXEMPT: [&str; 6] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];

pub(in crate::admission) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let facts = attributes.subject.kind.facts();
    facts.group == *configuration::GROUP && EXEMPT.contains(&facts.plural.as_str())
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !is_exempt(attributes)
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

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !is_exempt(attributes)
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let hooks = self.source.hooks(server).await?;
        if hooks.is_empty() {
            return Ok(());
        }
        validating::dispatch(server, attributes, &hooks, object, old).await
    }
}
