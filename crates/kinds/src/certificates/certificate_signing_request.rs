//! `certificatesigningrequests` in `certificates.k8s.io/v1`.

use crate::facts::Facts;
use crate::kind::Kind;

/// A wish for a certificate.
pub(crate) struct CertificateSigningRequest(pub(crate) Facts);

impl Kind for CertificateSigningRequest {
    fn facts(&self) -> &Facts {
        &self.0
    }
}
