//! Signed tokens: compact JWS with ES256, which is all the server issues or takes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

/// Why a token is not taken, or a key cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwsError {
    /// Not three base64url parts around a JSON header.
    #[error("malformed token")]
    Malformed,
    /// Signed by a key or in a way that is not ours.
    #[error("the token is signed by no key of this cluster")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// The key is no PKCS#8 P-256 key.
    #[error("service account key: not a P-256 key in PKCS#8")]
    Key,
}

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The DER prefix of a P-256 SubjectPublicKeyInfo; the uncompressed point follows.
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The key that signs service account tokens, and its name.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
}

/// A public key as `/openid/v1/jwks` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Jwk {
    /// `sig`
    #[serde(rename = "use")]
    pub usage: &'static str,
    /// `EC`
    pub kty: &'static str,
    /// The key's name.
    pub kid: String,
    /// `P-256`
    pub crv: &'static str,
    /// `ES256`
    pub alg: &'static str,
    /// The point, first coordinate.
    pub x: String,
    /// The point, second coordinate.
    pub y: String,
}

impl SigningKey {
    /// From a PKCS#8 document.
    ///
    /// # Errors
    /// [`JwsError::Key`] for anything but a P-256 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, JwsError> {
        let random = SystemRandom::new();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).map_err(|_| JwsError::Key)?;
        let mut spki = P256_SPKI_PREFIX.to_vec();
        spki.extend_from_slice(pair.public_key().as_ref());
        let key_id = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &spki));
        Ok(Self { pair, random, key_id })
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
        let header = Header { alg: "ES256".into(), kid: self.key_id.clone() };
        let header = serde_json::to_vec(&header).map_err(|_| JwsError::Key)?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(&self.random, token.as_bytes()).map_err(|_| JwsError::Key)?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// Checks the signature and gives the claims.
    ///
    /// # Errors
    /// [`JwsError`] says what is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Vec<u8>, JwsError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::Malformed)?;
        if header.alg != "ES256" || (!header.kid.is_empty() && header.kid != self.key_id) {
            return Err(JwsError::UnknownKey);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| JwsError::Signature)?;
        decode(claims)
    }

    /// The public half.
    pub fn jwk(&self) -> Jwk {
        let point = self.pair.public_key().as_ref();
        // An uncompressed point: 0x04, then two coordinates of 32 bytes.
        let (x, y) = point[1..].split_at(32);
        Jwk {
            usage: "sig",
            kty: "EC",
            kid: self.key_id.clone(),
            crv: "P-256",
            alg: "ES256",
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_token_verifies_until_a_bit_of_it_changes() {
        let key = key();
        let token = key.sign(br#"{"sub":"x"}"#).unwrap();
        assert_eq!(key.verify(&token).unwrap(), br#"{"sub":"x"}"#);
        let mut forged = token.clone();
        forged.replace_range(
            token.len() - 3..token.len() - 2,
            if &token[token.len() - 3..token.len() - 2] == "A" { "B" } else { "A" },
        );
        assert_eq!(key.verify(&forged), Err(JwsError::Signature));
        assert_eq!(self::key().verify(&token), Err(JwsError::UnknownKey));
        for junk in ["", ".", "..", "a.b.c", "e30.e30.e30"] {
            assert!(key.verify(junk).is_err());
        }
    }

    #[test]
    fn no_other_algorithm_is_taken() {
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        assert_eq!(key().verify(&format!("{header}.e30.")), Err(JwsError::UnknownKey));
    }
}
