//! Client certificates: common name and organizations are user and groups.
//!
//! The handshake only proves that the client holds the key. Whether the certificate is of an
//! authority of the cluster, or of the proxies', is found out behind it, because one that is not
//! is a 401 and not a broken connection.

use std::sync::Arc;

use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use skiff_base::{Clock, Timestamp};
use x509_parser::der_parser::oid;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::UserInfo;
use super::chain::Refusal;
use super::settings::Settings;

/// An authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct AuthorityError {
    /// Which one.
    what: &'static str,
    /// What is wrong with it.
    why: String,
}

/// The authorities whose certificates are believed, and for what.
pub struct Authorities {
    clients: Option<Arc<dyn ClientCertVerifier>>,
    proxies: Option<Arc<dyn ClientCertVerifier>>,
    clock: Clock,
}

/// What a connection's certificate is worth.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// Seconds since the epoch after which it is worth nothing.
    not_after: i64,
    /// The user, if it is of an authority of clients; why not.
    user: Option<Result<Arc<UserInfo>, Refusal>>,
    /// The common name, if it is of an authority of proxies; why not.
    proxy: Option<Result<String, Refusal>>,
}

impl Authorities {
    /// Those of `settings`.
    ///
    /// # Errors
    /// When a PEM text holds no usable certificate.
    pub fn new(settings: &Settings, clock: Clock) -> Result<Self, AuthorityError> {
        let proxies = settings.request_header.as_ref().map_or("", |proxies| &proxies.client_ca);
        Ok(Self {
            clients: verifier("client certificate authority", &settings.client_ca)?,
            proxies: verifier("request header client certificate authority", proxies)?,
            clock,
        })
    }

    /// What to ask of clients during the handshake; `None` when no certificate means anything.
    pub fn handshake(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        let hints = [&self.clients, &self.proxies].into_iter().flatten();
        let hints: Vec<DistinguishedName> = hints.flat_map(|verifier| verifier.root_hint_subjects()).cloned().collect();
        (!hints.is_empty())
            .then(|| Arc::new(AnyCertificate { hints, provider: provider() }) as Arc<dyn ClientCertVerifier>)
    }

    /// What the certificates of a connection are worth, the client's own first.
    pub fn inspect(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (own, intermediates) = chain.split_first()?;
        let (_, parsed) = X509Certificate::from_der(own).ok()?;
        let now = UnixTime::since_unix_epoch(self.clock.now().since(Timestamp::EPOCH));
        let verify = |verifier: &Arc<dyn ClientCertVerifier>| match verifier.verify_client_cert(own, intermediates, now)
        {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal(format!("verifying certificate {} failed: {error}", described(&parsed)))),
        };
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("");
        Some(ClientCertificate {
            not_after: parsed.validity().not_after.timestamp(),
            user: self.clients.as_ref().and_then(|verifier| match verify(verifier) {
                Ok(()) => user(own).transpose().map(|user| user.map(Arc::new)),
                Err(refusal) => Some(Err(refusal)),
            }),
            proxy: self.proxies.as_ref().map(|verifier| verify(verifier).map(|()| common_name.to_owned())),
        })
    }
}

impl ClientCertificate {
    /// The user it stands for, if it is meant to stand for one.
    pub(super) fn user(&self, now: Timestamp) -> Result<Option<Arc<UserInfo>>, Refusal> {
        self.still(now, self.user.as_ref())
    }

    /// The common name of the proxy it stands for.
    pub(super) fn proxy(&self, now: Timestamp) -> Result<Option<&String>, Refusal> {
        self.proxy.as_ref().map_or(Ok(None), |name| match name {
            Ok(_) if self.has_ended(now) => Err(ended()),
            Ok(name) => Ok(Some(name)),
            Err(refusal) => Err(refusal.clone()),
        })
    }

    fn still<T: Clone>(&self, now: Timestamp, found: Option<&Result<T, Refusal>>) -> Result<Option<T>, Refusal> {
        match found {
            Some(Ok(_)) if self.has_ended(now) => Err(ended()),
            found => found.cloned().transpose(),
        }
    }

    /// Connections outlive certificates.
    fn has_ended(&self, now: Timestamp) -> bool {
        now.as_secs() > self.not_after
    }
}

fn ended() -> Refusal {
    Refusal("x509: certificate has expired or is not yet valid".into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn verifier(what: &'static str, pem: &str) -> Result<Option<Arc<dyn ClientCertVerifier>>, AuthorityError> {
    if pem.trim().is_empty() {
        return Ok(None);
    }
    let fail = |why: &dyn std::fmt::Display| AuthorityError { what, why: why.to_string() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    built.map(Some).map_err(|error| fail(&error))
}

/// Asks for a certificate and believes nothing but that the client holds its key.
#[derive(Debug)]
struct AnyCertificate {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The user of a certificate whose chain has been verified; `None` without a common name.
fn user(der: &[u8]) -> Result<Option<UserInfo>, Refusal> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| Refusal(format!("unreadable certificate: {error}")))?;
    let subject = certificate.subject();
    let Some(name) = subject.iter_common_name().next().and_then(|name| name.as_str().ok()) else { return Ok(None) };
    if name.is_empty() {
        return Ok(None);
    }
    let groups: Vec<&str> = subject.iter_organization().filter_map(|value| value.as_str().ok()).collect();
    let mut user = UserInfo::new(name, &groups);
    user.uid = uid(&certificate)?;
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![credential_id(der)]);
    Ok(Some(user))
}

/// The uid that the subject may name (upstream's `AllowParsingUserUIDFromCertAuth`).
fn uid(certificate: &X509Certificate<'_>) -> Result<String, Refusal> {
    let uid = oid!(1.3.6.1.4.1.57683.2);
    let mut found = Vec::new();
    for attribute in certificate.subject().iter_by_oid(&uid) {
        let text = attribute.as_str().map_err(|_| Refusal("unable to parse UID into a string".into()))?;
        found.push(text.to_owned());
    }
    match found.as_slice() {
        [] => Ok(String::new()),
        [one] if one.is_empty() => Err(Refusal("UID cannot be an empty string".into())),
        [one] => Ok(one.clone()),
        many => Err(Refusal(format!("expected 1 UID, but found multiple: [{}]", many.join(" ")))),
    }
}

fn described(certificate: &X509Certificate<'_>) -> String {
    let (subject, issuer) = (certificate.subject(), certificate.issuer());
    format!("SN={}, subject={subject:?}, issuer={issuer:?}", certificate.serial)
        .chars()
        .take(DESCRIPTION_CHARS_MAX)
        .collect()
}

/// What the log is told of a certificate that a stranger made.
const DESCRIPTION_CHARS_MAX: usize = 512;

fn credential_id(der: &[u8]) -> String {
    use std::fmt::Write;
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().fold(String::from("X509SHA256="), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[(rcgen::DnType, &str)]) -> rcgen::Certificate {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (ty, value) in names {
            params.distinguished_name.push(ty.clone(), *value);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn the_subject_becomes_user_groups_and_uid() {
        let uid = rcgen::DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
        let certificate = certificate(&[
            (rcgen::DnType::CommonName, "admin"),
            (rcgen::DnType::OrganizationName, "system:masters"),
            (uid, "7"),
        ]);
        let user = user(certificate.der()).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("admin", "7"));
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
        assert!(super::user(b"no certificate").is_err());
    }

    #[test]
    fn without_a_common_name_it_is_nobody() {
        assert_eq!(user(certificate(&[(rcgen::DnType::OrganizationName, "x")]).der()), Ok(None));
    }
}
