//! The cluster's authority as a signer of certificate requests.
//!
//! The certificate says exactly what upstream's signer makes it say: subject, key and alternative
//! names of the request, the usages asked of the API, no authority over others. It is put together
//! here because rcgen keeps one organization of a subject and drops the others.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rcgen::{KeyPair, SigningKey};
use skiff_base::{Clock, Random, Timestamp};
use skiff_controllers::CertificateSigner;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::Identity;

/// The longest and usual life of a certificate (`--cluster-signing-duration`).
const LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);
/// No certificate lives shorter.
const LIFE_MIN: Duration = Duration::from_secs(600);
/// Certificates begin so much in the past: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);
/// Those that live shorter are not shortened by that.
const SHORT: Duration = Duration::from_secs(8 * 3_600);

/// Signs with the cluster's authority.
pub struct ClusterSigner {
    certificate: Vec<u8>,
    key: KeyPair,
    clock: Clock,
    random: Random,
}

impl std::fmt::Debug for ClusterSigner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ClusterSigner(…)")
    }
}

impl ClusterSigner {
    /// A signer with the key of an authority.
    ///
    /// # Errors
    /// When certificate or key cannot be read.
    pub fn new(authority: &Identity, clock: Clock, random: Random) -> Result<Self> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(authority.certificate.as_bytes())
            .map_err(|error| anyhow!("read the authority: {error}"))?;
        let key = KeyPair::from_pem(&authority.key).context("read the authority's key")?;
        Ok(Self { certificate: pem.contents, key, clock, random })
    }

    fn issue(&self, request: &[u8], usages: &[String], seconds: Option<i32>) -> Result<Vec<u8>> {
        let block = x509_parser::pem::Pem::iter_from_buffer(request).next().context("no PEM block")??;
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|error| anyhow!("{error}"))?;
        request.verify_signature().map_err(|error| anyhow!("the request's signature: {error}"))?;
        let (_, authority) = X509Certificate::from_der(&self.certificate).map_err(|error| anyhow!("{error}"))?;
        let asked = &request.certification_request_info;
        let mut serial = [0; 16];
        self.random.fill(&mut serial);
        serial[0] = serial[0] & 0x7f | 0x40; // positive and of full length
        let parts = [
            der(0xa0, &der(0x02, &[2])),
            der(0x02, &serial),
            ECDSA_WITH_SHA256.to_vec(),
            authority.subject().as_raw().to_vec(),
            self.validity(seconds, &authority)?,
            asked.subject.as_raw().to_vec(),
            asked.subject_pki.raw.to_vec(),
            der(0xa3, &der(0x30, &extensions(&request, &authority, usages)?)),
        ];
        let signed = der(0x30, &parts.concat());
        let signature = self.key.sign(&signed).context("sign")?;
        let bits = [&[0][..], &signature].concat();
        Ok(der(0x30, &[signed, ECDSA_WITH_SHA256.to_vec(), der(0x03, &bits)].concat()))
    }

    fn validity(&self, seconds: Option<i32>, authority: &X509Certificate<'_>) -> Result<Vec<u8>> {
        let wanted = seconds.map_or(LIFE, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let life = wanted.clamp(LIFE_MIN, LIFE);
        let now = self.clock.now();
        let end = now.plus(if life < SHORT { life } else { life - BACKDATE });
        let end = end.as_secs().min(authority.validity().not_after.timestamp());
        Ok(der(0x30, &[time(now.minus(BACKDATE))?, time(Timestamp::from_secs(end))?].concat()))
    }
}

impl CertificateSigner for ClusterSigner {
    fn sign(&self, request: &[u8], usages: &[String], seconds: Option<i32>) -> Result<String, String> {
        let certificate = self.issue(request, usages, seconds).map_err(|error| format!("{error:#}"))?;
        Ok(pem(&certificate))
    }
}

/// The algorithm of every authority of [`crate::pki`].
const ECDSA_WITH_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// Usages of keys, each at its bit.
const KEY_USAGES: [&str; 9] = [
    "digital signature",
    "content commitment",
    "key encipherment",
    "data encipherment",
    "key agreement",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
];

/// Extended usages in the order in which they are written, with the bytes of their identifiers.
const EXTENDED_USAGES: [(&str, &[u8]); 13] = [
    ("any", &[0x55, 0x1d, 0x25, 0x00]),
    ("server auth", &[0x2b, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[0x2b, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[0x2b, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[0x2b, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[0x2b, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[0x2b, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[0x2b, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[0x2b, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[0x2b, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3]),
    ("netscape sgc", &[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1]),
];

fn extensions(
    request: &X509CertificationRequest<'_>,
    authority: &X509Certificate<'_>,
    usages: &[String],
) -> Result<Vec<u8>> {
    let has =
        |name: &str| usages.iter().any(|usage| usage == name || (name == "digital signature" && usage == "signing"));
    let known = |usage: &String| {
        usage == "signing"
            || KEY_USAGES.contains(&usage.as_str())
            || EXTENDED_USAGES.iter().any(|(name, _)| name == usage)
    };
    let unknown: Vec<&String> = usages.iter().filter(|usage| !known(usage)).collect();
    if !unknown.is_empty() {
        return Err(anyhow!("unrecognized usage values: {unknown:?}"));
    }
    let mut out = Vec::new();
    let bits = KEY_USAGES.iter().enumerate().filter(|(_, name)| has(name));
    let bits = bits.fold(0_u16, |bits, (at, _)| bits | 0x8000 >> at);
    if bits != 0 {
        let bytes = bits.to_be_bytes();
        let bytes = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
        let unused = bytes.last().map_or(0, |last| last.trailing_zeros() as u8);
        out.extend(extension(&[0x55, 0x1d, 0x0f], true, &der(0x03, &[&[unused][..], bytes].concat())));
    }
    let mut extended: Vec<&[u8]> = EXTENDED_USAGES.iter().filter(|(name, _)| has(name)).map(|(_, id)| *id).collect();
    extended.dedup();
    if !extended.is_empty() {
        let ids: Vec<u8> = extended.into_iter().flat_map(|id| der(0x06, id)).collect();
        out.extend(extension(&[0x55, 0x1d, 0x25], false, &der(0x30, &ids)));
    }
    out.extend(extension(&[0x55, 0x1d, 0x13], true, &der(0x30, &[])));
    for one in authority.extensions() {
        if let ParsedExtension::SubjectKeyIdentifier(id) = one.parsed_extension() {
            out.extend(extension(&[0x55, 0x1d, 0x23], false, &der(0x30, &der(0x80, id.0))));
        }
    }
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else { continue };
        for one in wanted.extensions.iter().filter(|one| one.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
            out.extend(extension(&[0x55, 0x1d, 0x11], false, one.value));
        }
    }
    Ok(out)
}

fn extension(id: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if is_critical { der(0x01, &[0xff]) } else { Vec::new() };
    der(0x30, &[der(0x06, id), critical, der(0x04, value)].concat())
}

/// A time: in two digits of the year until 2049, as RFC 5280 has it.
fn time(at: Timestamp) -> Result<Vec<u8>> {
    let at = time::OffsetDateTime::from_unix_timestamp(at.as_secs()).context("the clock is out of range")?;
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    Ok(match at.year() {
        year @ 1950..2050 => der(0x17, format!("{:02}{rest}", year % 100).as_bytes()),
        year => der(0x18, format!("{year:04}{rest}").as_bytes()),
    })
}

/// One DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..128 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(0)..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Pki;

    #[test]
    fn a_certificate_says_what_was_asked_and_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), Clock::system()).unwrap();
        let authority = pki.authority("ca", "kubernetes").unwrap();
        let signer = ClusterSigner::new(authority.identity(), Clock::system(), Random::system()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["node.example".into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "devs");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let usages = ["digital signature".to_owned(), "key encipherment".to_owned(), "client auth".to_owned()];
        let made = signer.sign(request.as_bytes(), &usages, Some(3_600)).unwrap();
        let (_, block) = x509_parser::pem::parse_x509_pem(made.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&block.contents).unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(authority.certificate().as_bytes()).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca.contents).unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(certificate.issuer(), ca.subject());
        assert_eq!(certificate.subject().to_string(), "CN=jane, O=devs");
        let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert_eq!(life, 3_600 + 300);
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let extended = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
        assert!(!certificate.is_ca());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        assert!(signer.sign(request.as_bytes(), &["nonsense".to_owned()], None).is_err());
        assert!(signer.sign(b"nonsense", &usages, None).is_err());
    }
}
