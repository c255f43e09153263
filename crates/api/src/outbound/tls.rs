//! Whom a target's certificate has to come from.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use skiff_base::Clock;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Error, Target, Trust};

/// What this machine trusts; nothing when it has no store of roots.
pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read root certificates of this machine");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// The TLS side of a target.
pub(super) fn config(
    target: &Target,
    system: impl FnOnce() -> Arc<RootCertStore>,
    clock: &Clock,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Target(error.to_string()))?;
    let schemes = provider.signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = match &target.trust {
        Trust::Anybody => Arc::new(Anybody { schemes }),
        Trust::System => match WebPkiServerVerifier::builder_with_provider(system(), provider).build() {
            Ok(verifier) => verifier,
            // Without any root nobody is believed; plain HTTP targets still work.
            Err(_) => Arc::new(Nobody { schemes }),
        },
        Trust::Authorities(pem) => {
            let pinned = certificates(pem, "unable to load root certificates")?;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(pinned.iter().cloned());
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|_| Error::Target("unable to load root certificates: no usable certificate".into()))?;
            Arc::new(Bundle { inner, pinned, clock: clock.clone() })
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    match &target.credentials.certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = certificates(chain, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| Error::Target(format!("client certificate key: {error}")))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Error::Target(format!("client certificate: {error}")))
        }
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Target(format!("{what}: {error}")))?;
    if found.is_empty() {
        return Err(Error::Target(format!("{what}: no certificate in it")));
    }
    Ok(found)
}

type Schemes = rustls::crypto::WebPkiSupportedAlgorithms;

/// Signatures count whoever made them: what differs between verifiers is whom they believe.
macro_rules! signatures {
    ($($schemes:tt)+) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.$($schemes)+)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.$($schemes)+)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$($schemes)+.supported_schemes()
        }
    };
}

#[derive(Debug)]
struct Anybody {
    schemes: Schemes,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!(schemes);
}

#[derive(Debug)]
struct Nobody {
    schemes: Schemes,
}

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    signatures!(schemes);
}

/// A bundle of authorities. A certificate that is in the bundle itself is believed, too: many
/// webhooks have one self-signed certificate, marked as an authority, for both; Go takes it.
#[derive(Debug)]
struct Bundle {
    inner: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    clock: Clock,
}

impl Bundle {
    fn is_valid_now(&self, certificate: &CertificateDer<'_>) -> bool {
        let now = self.clock.now().as_secs();
        X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
            let validity = parsed.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
        })
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(error) = verified else { return verified };
        if !self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            return Err(error);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        if !self.is_valid_now(end_entity) {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
