//! Certificate requests: those of kubelets for their own client certificates are approved, what is
//! approved for a built-in signer is signed, and what is old is removed.
//!
//! The authority's key is not here: whoever starts the controllers hands in a
//! [`CertificateSigner`](crate::CertificateSigner).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use skiff_base::Timestamp;
use skiff_client::time::{from_time, to_time};
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::Meta;
use crate::shared::certificates::{self, Asked, KUBELET_CLIENT};

pub(crate) const NAME: &str = "certificate-controller";

/// Requests that are decided are kept for so long, those that wait for a day; upstream's.
const DECIDED_FOR: Duration = Duration::from_secs(3_600);
const PENDING_FOR: Duration = Duration::from_secs(24 * 3_600);

struct Driver {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let requests = ctx.informers.of::<CertificateSigningRequest>();
    let added = queue.clone();
    requests.subscribe(move |change| {
        if change.new.is_some() {
            added.add(change.key());
        }
    });
    let ready = requests.clone();
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, requests }), async move { ready.synced().await });
}

/// What a request needs now.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing, or nothing before then.
    Wait(Option<Timestamp>),
    /// It is old.
    Delete,
    /// Ask for each of these whether its sender may have it approved, and approve it.
    Approve(Vec<Recognized>),
    /// Its signer refuses it.
    Fail(String),
    /// Sign it.
    Sign,
}

/// A kind of request that is approved without anybody looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recognized {
    /// A kubelet's next certificate.
    SelfNodeClient,
    /// The first certificate of a node.
    NodeClient,
}

impl Recognized {
    /// The subresource that the sender must be allowed to create.
    const fn subresource(self) -> &'static str {
        match self {
            Self::SelfNodeClient => "selfnodeclient",
            Self::NodeClient => "nodeclient",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::SelfNodeClient => "Auto approving self kubelet client certificate after SubjectAccessReview.",
            Self::NodeClient => "Auto approving kubelet client certificate after SubjectAccessReview.",
        }
    }
}

fn plan(now: Timestamp, request: &CertificateSigningRequest, asked: &std::result::Result<Asked, String>) -> Step {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let since = |ty: &str| {
        let condition = conditions.iter().find(|one| one.type_ == ty && one.status != "False")?;
        Some(condition.last_update_time.as_ref().map_or(now, from_time))
    };
    let is_issued = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
        .is_some_and(|certificate| !certificate.0.is_empty());
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, from_time);
    let (approved, denied, failed) = (since("Approved"), since("Denied"), since("Failed"));
    let end = match (approved, denied, failed) {
        (_, Some(at), _) | (_, None, Some(at)) => Some(at.plus(DECIDED_FOR)),
        (Some(at), None, None) if is_issued => Some(at.plus(DECIDED_FOR)),
        // What is approved and never signed belongs to a signer that is not here.
        (Some(_), None, None) => None,
        (None, None, None) => Some(created.plus(PENDING_FOR)),
    };
    if end.is_some_and(|end| end <= now) {
        return Step::Delete;
    }
    let (signer, usages) = (&request.spec.signer_name, request.spec.usages.as_deref().unwrap_or_default());
    match asked {
        _ if is_issued || denied.is_some() || failed.is_some() => Step::Wait(end),
        Err(_) => Step::Wait(end),
        Ok(asked) if approved.is_some() => match certificates::check(signer, asked, usages) {
            None => Step::Wait(end),
            Some(Err(why)) => Step::Fail(why),
            Some(Ok(())) => Step::Sign,
        },
        Ok(asked) if signer == KUBELET_CLIENT && certificates::check(signer, asked, usages) == Some(Ok(())) => {
            let own = request.spec.username.as_deref() == Some(&asked.common_name);
            let recognized = own.then_some(Recognized::SelfNodeClient).into_iter();
            Step::Approve(recognized.chain([Recognized::NodeClient]).collect())
        }
        Ok(_) => Step::Wait(end),
    }
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(request) = self.requests.get("", &key.name) else { return Ok(Next::Event) };
        if request.metadata.is_deleting() {
            return Ok(Next::Event);
        }
        let now = self.ctx.clock.now();
        let asked = certificates::read(&request.spec.request.0);
        match plan(now, &request, &asked) {
            Step::Wait(at) => Ok(at.map_or(Next::Event, |at| Next::After(at.since(now)))),
            Step::Delete => self.delete(&request).await,
            Step::Approve(recognized) => self.approve(&request, &recognized).await,
            Step::Fail(why) => {
                let mut request = CertificateSigningRequest::clone(&request);
                self.add_condition(&mut request, "Failed", "SignerValidationFailure", &why);
                settled(self.ctx.client.replace_status(&request).await)
            }
            Step::Sign => self.sign(&request).await,
        }
    }
}

/// A conflict or an object that is gone comes back as an event.
fn settled<T>(outcome: Result<T>) -> Result<Next> {
    match outcome {
        Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error),
        _ => Ok(Next::Event),
    }
}

impl Driver {
    fn add_condition(&self, request: &mut CertificateSigningRequest, ty: &str, reason: &str, message: &str) {
        let now = to_time(self.ctx.clock.now());
        let status = request.status.get_or_insert_with(CertificateSigningRequestStatus::default);
        status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
            type_: ty.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        });
    }

    async fn delete(&self, request: &CertificateSigningRequest) -> Result<Next> {
        let options = DeleteOptions::uid(request.metadata.uid());
        settled(self.ctx.client.delete::<CertificateSigningRequest>("", request.metadata.id(), &options).await)
    }

    async fn approve(&self, request: &CertificateSigningRequest, recognized: &[Recognized]) -> Result<Next> {
        for one in recognized {
            if !self.may(request, one.subresource()).await? {
                continue;
            }
            let mut request = request.clone();
            self.add_condition(&mut request, "Approved", "AutoApproved", one.message());
            return settled(self.ctx.client.replace_subresource(&request, "approval").await);
        }
        // Somebody may approve it by hand, or be given the right.
        tracing::debug!(name = request.metadata.id(), "recognized, but its sender may not have it approved");
        Ok(Next::Backoff)
    }

    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    verb: Some("create".into()),
                    subresource: Some(subresource.into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.ctx.client.create(&review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn sign(&self, request: &CertificateSigningRequest) -> Result<Next> {
        let Some(signer) = &self.ctx.config.certificate_signer else { return Ok(Next::Event) };
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        let mut request = request.clone();
        match signer.sign(&request.spec.request.0, usages, request.spec.expiration_seconds) {
            Ok(certificate) => {
                let status = request.status.get_or_insert_with(CertificateSigningRequestStatus::default);
                status.certificate = Some(ByteString(certificate.into_bytes()));
            }
            Err(why) => self.add_condition(&mut request, "Failed", "SigningError", &why),
        }
        settled(self.ctx.client.replace_status(&request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(signer: &str, conditions: &[&str], certificate: &str) -> CertificateSigningRequest {
        let mut request = CertificateSigningRequest::default();
        request.metadata.creation_timestamp = Some(to_time(Timestamp::from_secs(1_000)));
        request.spec.signer_name = signer.into();
        request.spec.usages = Some(vec!["digital signature".into(), "client auth".into()]);
        request.spec.username = Some("system:node:n1".into());
        let conditions = conditions.iter().map(|ty| CertificateSigningRequestCondition {
            type_: (*ty).into(),
            status: "True".into(),
            last_update_time: Some(to_time(Timestamp::from_secs(2_000))),
            ..CertificateSigningRequestCondition::default()
        });
        request.status = Some(CertificateSigningRequestStatus {
            conditions: Some(conditions.collect()),
            certificate: (!certificate.is_empty()).then(|| ByteString(certificate.into())),
        });
        request
    }

    fn node() -> Asked {
        Asked { common_name: "system:node:n1".into(), organizations: vec!["system:nodes".into()], ..Asked::default() }
    }

    #[track_caller]
    fn check(now: i64, request: &CertificateSigningRequest, expected: Step) {
        assert_eq!(plan(Timestamp::from_secs(now), request, &Ok(node())), expected);
    }

    #[test]
    fn kubelets_are_approved_and_the_approved_are_signed() {
        let both = vec![Recognized::SelfNodeClient, Recognized::NodeClient];
        check(2_000, &request(KUBELET_CLIENT, &[], ""), Step::Approve(both));
        let mut other = request(KUBELET_CLIENT, &[], "");
        other.spec.username = Some("system:bootstrap:abcdef".into());
        check(2_000, &other, Step::Approve(vec![Recognized::NodeClient]));
        check(2_000, &request(KUBELET_CLIENT, &["Approved"], ""), Step::Sign);
        check(2_000, &request(certificates::CLIENT, &["Approved"], ""), Step::Sign);
        let pending = Step::Wait(Some(Timestamp::from_secs(1_000 + 86_400)));
        check(2_000, &request(certificates::CLIENT, &[], ""), pending);
        let serving = request(certificates::KUBELET_SERVING, &["Approved"], "");
        check(2_000, &serving, Step::Fail("DNS or IP subjectAltName is required".into()));
        check(2_000, &request("example.com/x", &["Approved"], ""), Step::Wait(None));
    }

    #[test]
    fn what_is_decided_goes_after_an_hour_and_what_waits_after_a_day() {
        let at = |secs| Some(Timestamp::from_secs(secs));
        check(2_001, &request(KUBELET_CLIENT, &["Approved"], "C"), Step::Wait(at(5_600)));
        check(5_600, &request(KUBELET_CLIENT, &["Approved"], "C"), Step::Delete);
        check(5_600, &request(KUBELET_CLIENT, &["Denied"], ""), Step::Delete);
        check(5_600, &request(KUBELET_CLIENT, &["Approved", "Failed"], ""), Step::Delete);
        check(87_400, &request(KUBELET_CLIENT, &[], ""), Step::Delete);
    }
}
