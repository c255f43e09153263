//! Signed tokens: compact JWS, made with the key of the cluster and verified with any.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Serialize};

pub use super::keys::{Algorithm, Jwk, PublicKey};

/// Why a token is not taken, or a key cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwsError {
    /// Not three base64url parts around a JSON header.
    #[error("malformed token")]
    Malformed,
    /// Signed by a key or in a way that is not known.
    #[error("the token is signed by no key that is known here")]
    UnknownKey,
    /// The signature does not fit.
    #[error("invalid signature")]
    Signature,
    /// The key cannot be used.
    #[error("not an RSA, P-256 or P-384 key in PEM, PKCS#1 or PKCS#8")]
    Key,
}

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The key that signs service account tokens, and its name.
pub struct SigningKey {
    pair: Pair,
    random: SystemRandom,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
}

/// A token taken apart; nothing about it has been verified.
#[derive(Debug)]
pub struct Token<'a> {
    alg: String,
    kid: String,
    /// What was signed.
    signed: &'a str,
    signature: Vec<u8>,
    /// The claims, JSON. Not to be believed before [`Token::verify`].
    pub claims: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] for what is none.
    pub fn parse(token: &'a str) -> Result<Self, JwsError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::Malformed)?;
        let (signature, claims) = (decode(signature)?, decode(claims)?);
        Ok(Self { alg: header.alg, kid: header.kid, signed, signature, claims })
    }

    /// The issuer that the token claims to have.
    pub fn unverified_issuer(&self) -> String {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        serde_json::from_slice::<Issuer>(&self.claims).map(|claims| claims.iss).unwrap_or_default()
    }

    /// The name of the key that the token says it is signed with; may be empty.
    pub fn key_id(&self) -> &str {
        &self.kid
    }

    /// Checks the signature: one of `keys`, by its name if the token names one, in one of the
    /// `allowed` ways.
    ///
    /// # Errors
    /// [`JwsError`] says what is wrong with the token.
    pub fn verify(&self, keys: &[PublicKey], allowed: &[Algorithm]) -> Result<(), JwsError> {
        let algorithm = Algorithm::named(&self.alg).filter(|alg| allowed.contains(alg)).ok_or(JwsError::UnknownKey)?;
        let mut candidates = keys.iter().filter(|key| self.kid.is_empty() || key.id == self.kid).peekable();
        candidates.peek().ok_or(JwsError::UnknownKey)?;
        let good = candidates.any(|key| key.verifies(algorithm, self.signed.as_bytes(), &self.signature));
        if good { Ok(()) } else { Err(JwsError::Signature) }
    }
}

impl SigningKey {
    /// From a PKCS#8 document or a PKCS#1 RSA key.
    ///
    /// # Errors
    /// [`JwsError::Key`] for anything but a P-256 or an RSA key.
    pub fn from_der(der: &[u8]) -> Result<Self, JwsError> {
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random) {
            let public = PublicKey::of_point(pair.public_key().as_ref())?;
            return Ok(Self { pair: Pair::P256(pair), random, public });
        }
        let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).map_err(|_| JwsError::Key)?;
        let public = PublicKey::of_pkcs1(pair.public_key().as_ref())?;
        Ok(Self { pair: Pair::Rsa(pair), random, public })
    }

    /// A new key as a PKCS#8 document.
    ///
    /// # Errors
    /// [`JwsError::Key`] when the operating system has no randomness.
    pub fn generate() -> Result<Vec<u8>, JwsError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map(|document| document.as_ref().to_vec())
            .map_err(|_| JwsError::Key)
    }

    /// Signs claims.
    ///
    /// # Errors
    /// [`JwsError::Key`] when signing fails, which it does only without randomness.
    pub fn sign(&self, claims: &[u8]) -> Result<String, JwsError> {
        let header = Header { alg: self.public.algorithm().name().into(), kid: self.public.id.clone() };
        let header = serde_json::to_vec(&header).map_err(|_| JwsError::Key)?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&self.random, token.as_bytes()).map_err(|_| JwsError::Key)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, token.as_bytes(), &mut signature)
                    .map_err(|_| JwsError::Key)?;
                signature
            }
        };
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_der(&SigningKey::generate().unwrap()).unwrap()
    }

    fn verify(key: &SigningKey, token: &str) -> Result<Vec<u8>, JwsError> {
        let token = Token::parse(token)?;
        token.verify(std::slice::from_ref(key.public()), &Algorithm::ALL)?;
        Ok(token.claims)
    }

    #[test]
    fn a_token_verifies_until_a_bit_of_it_changes() {
        let key = key();
        let token = key.sign(br#"{"sub":"x"}"#).unwrap();
        assert_eq!(verify(&key, &token).unwrap(), br#"{"sub":"x"}"#);
        let mut forged = token.clone();
        forged.replace_range(
            token.len() - 3..token.len() - 2,
            if &token[token.len() - 3..token.len() - 2] == "A" { "B" } else { "A" },
        );
        assert_eq!(verify(&key, &forged), Err(JwsError::Signature));
        assert_eq!(verify(&self::key(), &token), Err(JwsError::UnknownKey));
        for junk in ["", ".", "..", "a.b.c", "e30.e30.e30"] {
            assert!(verify(&key, junk).is_err());
        }
    }

    #[test]
    fn no_other_algorithm_is_taken() {
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        assert_eq!(verify(&key(), &format!("{header}.e30.")), Err(JwsError::UnknownKey));
        let token = key().sign(b"{}").unwrap();
        let parsed = Token::parse(&token).unwrap();
        assert_eq!(parsed.verify(&[], &[Algorithm::Rs256]), Err(JwsError::UnknownKey));
    }
}
