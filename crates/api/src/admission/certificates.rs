//! `CertificateApproval`, `CertificateSigning`, `CertificateSubjectRestriction`: who may say yes to a
//! certificate, who may issue it, and the one group no client certificate may name.

use async_trait::async_trait;
use base64::Engine;
use skiff_object::Tree;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::{Attributes, Operation, Plugin};
use crate::authn::MASTERS;
use crate::authz::{self, Target};
use crate::errors::ApiResult;
use crate::registry;
use crate::server::ApiServer;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// See the [module](self).
pub struct CertificateApproval;
/// See the [module](self).
pub struct CertificateSigning;
/// See the [module](self).
pub struct CertificateSubjectRestriction;

fn is_request(attributes: &Attributes<'_>, subresource: &str) -> bool {
    attributes.subject.subresource == subresource
        && registry::is(attributes.subject.kind.as_ref(), GROUP, "certificatesigningrequests")
}

/// `verb` on the signer of a request, or on all signers of its domain.
///
/// # Errors
/// 403 when the user may not.
async fn permit(server: &ApiServer, attributes: &Attributes<'_>, verb: &str, request: &Tree) -> ApiResult<()> {
    let signer = request.str_at(&["spec", "signerName"]);
    let domain = signer.split('/').next().unwrap_or(signer);
    for name in [signer, &format!("{domain}/*")] {
        let target =
            Target::Resource { group: GROUP, version: "*", resource: "signers", subresource: "", namespace: "", name };
        let asked = authz::Attributes::new(attributes.user, verb, target);
        if authz::decide(server.config.authorizer.as_ref(), &asked).await.is_allowed() {
            return Ok(());
        }
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(attributes.forbidden(request, &why))
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && is_request(attributes, "approval")
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        // The signer as stored: an update cannot choose whose permission it needs.
        permit(server, attributes, "approve", old.unwrap_or(object)).await
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && is_request(attributes, "status")
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let Some(old) = old else { return Ok(()) };
        let is_same = |field: &str| object.at(&["status", field]) == old.at(&["status", field]);
        if is_same("certificate") && is_same("conditions") {
            return Ok(());
        }
        permit(server, attributes, "sign", old).await
    }
}

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && is_request(attributes, "")
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        if object.str_at(&["spec", "signerName"]) != CLIENT_SIGNER {
            return Ok(());
        }
        // A request that cannot be read names nobody: its signer has nothing to sign.
        if organizations(object.str_at(&["spec", "request"])).iter().any(|group| group == MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(attributes.forbidden(object, &why));
        }
        Ok(())
    }
}

/// The organizations that a certificate request (base64 of PEM) names.
fn organizations(request: &str) -> Vec<String> {
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(request) else { return Vec::new() };
    let Ok((_, block)) = parse_x509_pem(&pem) else { return Vec::new() };
    let Ok((_, request)) = X509CertificationRequest::from_der(&block.contents) else { return Vec::new() };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().filter_map(|one| one.as_str().ok()).map(str::to_owned).collect()
}
