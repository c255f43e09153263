//! Public keys that verify tokens: from PEM, from certificates, from JSON Web Keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::{PublicKey as Parsed, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::jws::JwsError;

/// How a token is signed. `ES512` is known to upstream and not here: no P-521 in ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS #1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS #1 v1.5 with SHA-512.
    Rs512,
}

impl Algorithm {
    /// Every one there is.
    pub const ALL: [Self; 8] =
        [Self::Es256, Self::Es384, Self::Ps256, Self::Ps384, Self::Ps512, Self::Rs256, Self::Rs384, Self::Rs512];

    /// As a token's header says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
        }
    }

    /// The algorithm of a token's header.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// A public key with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The name that tokens use for it; may be empty for keys of others.
    pub id: String,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Modulus and exponent without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// The uncompressed point.
    P256(Vec<u8>),
    /// The uncompressed point.
    P384(Vec<u8>),
}

/// A key as JSON Web Key sets write it (RFC 7517).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Jwk {
    /// `sig`
    #[serde(rename = "use", skip_serializing_if = "String::is_empty")]
    pub usage: String,
    /// `EC` or `RSA`
    pub kty: String,
    /// The key's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kid: String,
    /// `P-256` or `P-384`
    #[serde(skip_serializing_if = "String::is_empty")]
    pub crv: String,
    /// What it signs with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alg: String,
    /// First coordinate of the point.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub x: String,
    /// Second coordinate.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub y: String,
    /// Modulus.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub n: String,
    /// Exponent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub e: String,
}

/// A key set; entries that cannot be understood do not hinder the others.
#[derive(Debug, Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

/// Keys in one set: more than that is no key set but an attack.
const KEYS_MAX: usize = 256;

impl PublicKey {
    /// Every key of a PEM text: public keys and certificates. Private keys give their public half.
    ///
    /// # Errors
    /// [`JwsError::Key`] when there is none, or one that cannot be used.
    pub fn all_of_pem(pem: &str) -> Result<Vec<Self>, JwsError> {
        let mut keys = Vec::new();
        for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
            let block = block.map_err(|_| JwsError::Key)?;
            let der = block.contents.as_slice();
            keys.push(match block.label.as_str() {
                "PUBLIC KEY" => Self::of_spki(der)?,
                "RSA PUBLIC KEY" => Self::of_rsa(&RSAPublicKey::from_der(der).map_err(|_| JwsError::Key)?.1),
                "CERTIFICATE" => {
                    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| JwsError::Key)?;
                    Self::of_parsed(certificate.public_key())?
                }
                _ => super::jws::SigningKey::from_der(der)?.public().clone(),
            });
        }
        if keys.is_empty() { Err(JwsError::Key) } else { Ok(keys) }
    }

    /// From a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`JwsError::Key`] for anything but RSA, P-256 and P-384.
    pub fn of_spki(der: &[u8]) -> Result<Self, JwsError> {
        Self::of_parsed(&SubjectPublicKeyInfo::from_der(der).map_err(|_| JwsError::Key)?.1)
    }

    fn of_parsed(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, JwsError> {
        match info.parsed().map_err(|_| JwsError::Key)? {
            Parsed::RSA(key) => Ok(Self::of_rsa(&key)),
            Parsed::EC(point) => Self::of_point(point.data()),
            _ => Err(JwsError::Key),
        }
    }

    fn of_rsa(key: &RSAPublicKey<'_>) -> Self {
        Self::named(Material::Rsa { modulus: trimmed(key.modulus), exponent: trimmed(key.exponent) })
    }

    /// From an uncompressed point.
    pub(super) fn of_point(point: &[u8]) -> Result<Self, JwsError> {
        match (point.first(), point.len()) {
            (Some(4), 65) => Ok(Self::named(Material::P256(point.to_vec()))),
            (Some(4), 97) => Ok(Self::named(Material::P384(point.to_vec()))),
            _ => Err(JwsError::Key),
        }
    }

    /// From a DER RSAPublicKey.
    pub(super) fn of_pkcs1(der: &[u8]) -> Result<Self, JwsError> {
        RSAPublicKey::from_der(der).map(|(_, key)| Self::of_rsa(&key)).map_err(|_| JwsError::Key)
    }

    /// With the name that upstream gives it: the digest of its DER form.
    fn named(material: Material) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, &material.spki());
        Self { id: URL_SAFE_NO_PAD.encode(digest), material }
    }

    /// The usable signing keys of a key set.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] when the text is no key set.
    pub fn all_of_jwks(json: &[u8]) -> Result<Vec<Self>, JwsError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| JwsError::Malformed)?;
        let keys = set.keys.into_iter().take(KEYS_MAX);
        Ok(keys.filter_map(|key| Self::of_jwk(&serde_json::from_value(key).ok()?)).collect())
    }

    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        if !jwk.usage.is_empty() && jwk.usage != "sig" {
            return None;
        }
        let decode =
            |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty());
        let material = match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("RSA", _) => Material::Rsa { modulus: trimmed(&decode(&jwk.n)?), exponent: trimmed(&decode(&jwk.e)?) },
            ("EC", curve @ ("P-256" | "P-384")) => {
                let size = if curve == "P-256" { 32 } else { 48 };
                let mut point = vec![4];
                for coordinate in [decode(&jwk.x)?, decode(&jwk.y)?] {
                    let coordinate = trimmed(&coordinate);
                    let missing = usize::checked_sub(size, coordinate.len())?;
                    point.resize(point.len() + missing, 0);
                    point.extend(coordinate);
                }
                if size == 32 { Material::P256(point) } else { Material::P384(point) }
            }
            _ => return None,
        };
        Some(Self { id: jwk.kid.clone(), material })
    }

    /// As a key set shows it.
    pub fn jwk(&self) -> Jwk {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let base =
            Jwk { usage: "sig".into(), kid: self.id.clone(), alg: self.algorithm().name().into(), ..Jwk::default() };
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                Jwk { kty: "RSA".into(), n: text(modulus), e: text(exponent), ..base }
            }
            Material::P256(point) | Material::P384(point) => {
                let (x, y) = point[1..].split_at((point.len() - 1) / 2);
                let crv = if point.len() == 65 { "P-256" } else { "P-384" };
                Jwk { kty: "EC".into(), crv: crv.into(), x: text(x), y: text(y), ..base }
            }
        }
    }

    /// What service account tokens of this key are signed with.
    pub fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Rsa { .. } => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::P384(_) => Algorithm::Es384,
        }
    }

    /// Whether `signature` over `message` was made with this key.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters| match &self.material {
            Material::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }
            _ => false,
        };
        let point =
            |parameters, point: &[u8]| UnparsedPublicKey::new(parameters, point).verify(message, signature).is_ok();
        match (algorithm, &self.material) {
            (Algorithm::Es256, Material::P256(key)) => point(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Algorithm::Es384, Material::P384(key)) => point(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Algorithm::Rs256, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::Rs384, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::Rs512, _) => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::Ps256, _) => rsa(&signature::RSA_PSS_2048_8192_SHA256),
            (Algorithm::Ps384, _) => rsa(&signature::RSA_PSS_2048_8192_SHA384),
            (Algorithm::Ps512, _) => rsa(&signature::RSA_PSS_2048_8192_SHA512),
            _ => false,
        }
    }
}

/// Without leading zeros.
fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes[start..].to_vec()
}

impl Material {
    /// The DER SubjectPublicKeyInfo.
    fn spki(&self) -> Vec<u8> {
        const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let (algorithm, key) = match self {
            Self::Rsa { modulus, exponent } => {
                let numbers = [integer(modulus), integer(exponent)].concat();
                (RSA.to_vec(), der(0x30, &numbers))
            }
            Self::P256(point) => ([EC, P256].concat(), point.clone()),
            Self::P384(point) => ([EC, P384].concat(), point.clone()),
        };
        let bits = [&[0][..], &key].concat();
        der(0x30, &[der(0x30, &algorithm), der(0x03, &bits)].concat())
    }
}

fn integer(number: &[u8]) -> Vec<u8> {
    // A first bit that is set would make it negative.
    let sign: &[u8] = if number.first().is_none_or(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    der(0x02, &[sign, number].concat())
}

/// One DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = trimmed(&content.len().to_be_bytes());
    match content.len() {
        short @ 0..128 => out.push(short as u8),
        _ => {
            out.push(0x80 | length.len() as u8);
            out.extend(length);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_der_form_is_the_one_that_was_read() {
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P256_SHA256] {
            let pem = rcgen::KeyPair::generate_for(algorithm).unwrap().public_key_pem();
            let public = PublicKey::all_of_pem(&pem).unwrap().remove(0);
            let block = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
            assert_eq!(public.material.spki(), block.contents);
        }
    }

    #[test]
    fn a_key_set_gives_back_the_keys_it_was_made_of() {
        let key = rcgen::KeyPair::generate().unwrap();
        let public = PublicKey::all_of_pem(&key.public_key_pem()).unwrap().remove(0);
        let set = format!(
            r#"{{"keys":[{},{{"kty":"EC","crv":"P-521"}},7,{{"kty":"RSA","n":"","e":"AQAB"}}]}}"#,
            serde_json::to_string(&public.jwk()).unwrap()
        );
        assert_eq!(PublicKey::all_of_jwks(set.as_bytes()).unwrap(), [public]);
        assert!(PublicKey::all_of_jwks(b"[]").is_err());
    }
}
