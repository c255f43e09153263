//! The cluster's certificate authority, certificates and service-account key.
//!
//! File names are kubeadm's, so that tools which look into a PKI folder find their way. Keys are
//! ECDSA P-256. Everything is made on first use and kept; leaf certificates are issued again when
//! fewer than [`RENEW_BEFORE_DAYS`] remain or the names they must carry have changed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use skiff_base::{Clock, Timestamp};

use crate::files;

const CA_DAYS: i64 = 3_650;
const LEAF_DAYS: i64 = 365;
const RENEW_BEFORE_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;

/// A certificate with its private key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS #8).
    pub key: String,
}

/// What a leaf certificate says.
#[derive(Clone, Debug, Default)]
pub struct Leaf {
    /// Common name: the user name in Kubernetes.
    pub common_name: String,
    /// Organizations: the groups in Kubernetes.
    pub organizations: Vec<String>,
    /// DNS names it serves.
    pub dns_names: Vec<String>,
    /// Addresses it serves.
    pub addresses: Vec<IpAddr>,
}

/// The PKI folder of a cluster.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
    clock: Clock,
}

impl Pki {
    /// The PKI in `folder`, made when it is not there.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self> {
        files::create_private_dir(folder)?;
        Ok(Self { folder: folder.to_owned(), clock })
    }

    /// The authority `name` (`ca`, `front-proxy-ca`), made on first use.
    pub fn authority(&self, name: &str, common_name: &str) -> Result<Authority> {
        if let Some(identity) = self.load(name)? {
            return Ok(Authority { identity });
        }
        let key = KeyPair::generate().context("generate a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        self.set_validity(&mut params, CA_DAYS)?;
        let certificate = params.self_signed(&key).with_context(|| format!("sign the authority {name}"))?;
        let identity = Identity { certificate: certificate.pem(), key: key.serialize_pem() };
        self.store(name, &identity)?;
        Ok(Authority { identity })
    }

    /// The certificate `name` signed by `authority`, issued (again) when it is missing, close to
    /// its end, from another authority, or says something else than `leaf`.
    pub fn leaf(&self, authority: &Authority, name: &str, leaf: &Leaf) -> Result<Identity> {
        if let Some(identity) = self.load(name)?
            && self.still_good(authority, &identity, leaf)
        {
            return Ok(identity);
        }
        let identity = self.issue(authority, leaf).with_context(|| format!("issue the certificate {name}"))?;
        self.store(name, &identity)?;
        Ok(identity)
    }

    /// The ECDSA key that signs service-account tokens, as PKCS #8 PEM; `sa.pub` lies beside it.
    pub fn service_account_key(&self) -> Result<String> {
        let path = self.folder.join("sa.key");
        if let Some(key) = files::read_optional(&path)? {
            return Ok(key);
        }
        let key = KeyPair::generate().context("generate a key")?;
        files::write_atomic(&self.folder.join("sa.pub"), key.public_key_pem().as_bytes(), 0o644)?;
        files::write_atomic(&path, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(key.serialize_pem())
    }

    fn issue(&self, authority: &Authority, leaf: &Leaf) -> Result<Identity> {
        let issuer_key = KeyPair::from_pem(&authority.identity.key).context("read the authority's key")?;
        let issuer =
            Issuer::from_ca_cert_pem(&authority.identity.certificate, issuer_key).context("read the authority")?;
        let key = KeyPair::generate().context("generate a key")?;
        let mut params = CertificateParams::new(leaf.dns_names.clone()).context("check the DNS names")?;
        params.subject_alt_names.extend(leaf.addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
        for organization in &leaf.organizations {
            params.distinguished_name.push(DnType::OrganizationName, DnValue::Utf8String(organization.clone()));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !leaf.dns_names.is_empty() || !leaf.addresses.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        self.set_validity(&mut params, LEAF_DAYS)?;
        let certificate = params.signed_by(&key, &issuer).context("sign")?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn set_validity(&self, params: &mut CertificateParams, days: i64) -> Result<()> {
        let now = self.clock.now().as_secs();
        // An hour back: a client whose clock is a little behind must not refuse a new cluster.
        params.not_before =
            time::OffsetDateTime::from_unix_timestamp(now - 3_600).context("the clock is out of range")?;
        params.not_after =
            time::OffsetDateTime::from_unix_timestamp(now + days * DAY_SECONDS).context("the clock is out of range")?;
        Ok(())
    }

    fn still_good(&self, authority: &Authority, identity: &Identity, leaf: &Leaf) -> bool {
        fn parse(pem: &str) -> Option<Vec<u8>> {
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
            Some(pem.contents)
        }
        let (Some(der), Some(authority_der)) = (parse(&identity.certificate), parse(&authority.identity.certificate))
        else {
            return false;
        };
        let (Ok((_, certificate)), Ok((_, issuer))) =
            (x509_parser::parse_x509_certificate(&der), x509_parser::parse_x509_certificate(&authority_der))
        else {
            return false;
        };
        let ends = Timestamp::from_secs(certificate.validity().not_after.timestamp());
        let renew_at = self.clock.now().plus(std::time::Duration::from_secs((RENEW_BEFORE_DAYS * DAY_SECONDS) as u64));
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let mut dns_names = Vec::new();
        let mut addresses = Vec::new();
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    x509_parser::extensions::GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                    x509_parser::extensions::GeneralName::IPAddress(bytes) => addresses.push(bytes.to_vec()),
                    _ => {}
                }
            }
        }
        let wanted_addresses: Vec<Vec<u8>> = leaf
            .addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            })
            .collect();
        ends > renew_at
            && common_name == Some(leaf.common_name.as_str())
            && leaf.dns_names == dns_names
            && wanted_addresses == addresses
            && certificate.verify_signature(Some(issuer.public_key())).is_ok()
    }

    fn load(&self, name: &str) -> Result<Option<Identity>> {
        let certificate = files::read_optional(&self.folder.join(format!("{name}.crt")))?;
        let key = files::read_optional(&self.folder.join(format!("{name}.key")))?;
        Ok(certificate.zip(key).map(|(certificate, key)| Identity { certificate, key }))
    }

    fn store(&self, name: &str, identity: &Identity) -> Result<()> {
        files::write_atomic(&self.folder.join(format!("{name}.key")), identity.key.as_bytes(), 0o600)?;
        files::write_atomic(&self.folder.join(format!("{name}.crt")), identity.certificate.as_bytes(), 0o644)
    }
}

/// A certificate authority of the cluster.
#[derive(Clone, Debug)]
pub struct Authority {
    identity: Identity,
}

impl Authority {
    /// The authority with its key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.identity.certificate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        Leaf {
            common_name: "kube-apiserver".into(),
            organizations: vec![],
            dns_names: vec!["kubernetes".into()],
            addresses: vec![[127, 0, 0, 1].into()],
        }
    }

    #[test]
    fn certificates_are_kept_until_their_names_change() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), Clock::system()).unwrap();
        let authority = pki.authority("ca", "kubernetes").unwrap();
        let first = pki.leaf(&authority, "apiserver", &leaf()).unwrap();
        assert_eq!(first.certificate, pki.leaf(&authority, "apiserver", &leaf()).unwrap().certificate);
        let moved = Leaf { addresses: vec![[10, 89, 0, 1].into()], ..leaf() };
        assert_ne!(first.certificate, pki.leaf(&authority, "apiserver", &moved).unwrap().certificate);
        assert_eq!(authority.certificate(), pki.authority("ca", "kubernetes").unwrap().certificate());
    }

    #[tokio::test(start_paused = true)]
    async fn certificates_near_their_end_are_issued_again() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(Timestamp::from_secs(1_800_000_000));
        let pki = Pki::open(folder.path(), clock).unwrap();
        let authority = pki.authority("ca", "kubernetes").unwrap();
        let first = pki.leaf(&authority, "apiserver", &leaf()).unwrap();
        tokio::time::advance(std::time::Duration::from_secs(340 * 86_400)).await;
        assert_ne!(first.certificate, pki.leaf(&authority, "apiserver", &leaf()).unwrap().certificate);
    }

    #[test]
    fn a_leaf_of_another_authority_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), Clock::system()).unwrap();
        let one = pki.authority("ca", "kubernetes").unwrap();
        let first = pki.leaf(&one, "admin", &leaf()).unwrap();
        let two = pki.authority("other", "kubernetes").unwrap();
        assert_ne!(first.certificate, pki.leaf(&two, "admin", &leaf()).unwrap().certificate);
    }
}
