//! The ciphers of encryption at rest, each in upstream's stored form.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Nonce};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use ring::hmac;
use skiff_base::Random;

const GCM_NONCE_BYTES: usize = 12;
const CBC_BLOCK_BYTES: usize = 16;
const SECRETBOX_NONCE_BYTES: usize = 24;
/// What a seed is mixed with for each value.
const INFO_BYTES: usize = 32;
/// The least that a seed must have.
pub(super) const SEED_BYTES: usize = 32;

/// Why something cannot be decrypted. It says nothing of the content.
pub(super) type Failure = &'static str;

const TOO_SHORT: Failure = "the stored data was shorter than the required size";
const NOT_AUTHENTIC: Failure = "cipher: message authentication failed";

/// A key with its cipher.
pub(super) enum Cipher {
    Gcm(Gcm),
    Cbc(Cbc),
    Secretbox(Box<XSalsa20Poly1305>),
    /// A key is derived for each value (KMS v2).
    Seed(Vec<u8>),
}

/// AES-GCM with the key's size.
pub(super) enum Gcm {
    Aes128(Box<AesGcm<Aes128, U12>>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<AesGcm<Aes256, U12>>),
}

/// AES-CBC with the key's size.
pub(super) enum Cbc {
    Aes128([u8; 16]),
    Aes192([u8; 24]),
    Aes256([u8; 32]),
}

impl Gcm {
    /// `None` for a key of a size that AES does not have.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => AesGcm::new_from_slice(key).ok().map(|cipher| Self::Aes128(Box::new(cipher))),
            24 => AesGcm::new_from_slice(key).ok().map(|cipher| Self::Aes192(Box::new(cipher))),
            32 => AesGcm::new_from_slice(key).ok().map(|cipher| Self::Aes256(Box::new(cipher))),
            _ => None,
        }
    }

    fn seal(&self, data: &[u8], aad: &[u8], random: &Random) -> Option<Vec<u8>> {
        let mut nonce = [0; GCM_NONCE_BYTES];
        random.fill(&mut nonce);
        let (at, payload) = (Nonce::from_slice(&nonce), Payload { msg: data, aad });
        let sealed = match self {
            Self::Aes128(cipher) => cipher.encrypt(at, payload),
            Self::Aes192(cipher) => cipher.encrypt(at, payload),
            Self::Aes256(cipher) => cipher.encrypt(at, payload),
        };
        Some([&nonce[..], &sealed.ok()?].concat())
    }

    fn open(&self, stored: &[u8], aad: &[u8]) -> Result<Vec<u8>, Failure> {
        let (nonce, data) = stored.split_at_checked(GCM_NONCE_BYTES).ok_or(TOO_SHORT)?;
        let (at, payload) = (Nonce::from_slice(nonce), Payload { msg: data, aad });
        let opened = match self {
            Self::Aes128(cipher) => cipher.decrypt(at, payload),
            Self::Aes192(cipher) => cipher.decrypt(at, payload),
            Self::Aes256(cipher) => cipher.decrypt(at, payload),
        };
        opened.map_err(|_| NOT_AUTHENTIC)
    }
}

impl Cbc {
    /// `None` for a key of a size that AES does not have.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => key.try_into().ok().map(Self::Aes128),
            24 => key.try_into().ok().map(Self::Aes192),
            32 => key.try_into().ok().map(Self::Aes256),
            _ => None,
        }
    }

    fn seal(&self, data: &[u8], random: &Random) -> Option<Vec<u8>> {
        let mut iv = [0; CBC_BLOCK_BYTES];
        random.fill(&mut iv);
        let at = iv.as_slice().into();
        let sealed = match self {
            Self::Aes128(key) => cbc::Encryptor::<Aes128>::new(key.into(), at).encrypt_padded_vec_mut::<Pkcs7>(data),
            Self::Aes192(key) => cbc::Encryptor::<Aes192>::new(key.into(), at).encrypt_padded_vec_mut::<Pkcs7>(data),
            Self::Aes256(key) => cbc::Encryptor::<Aes256>::new(key.into(), at).encrypt_padded_vec_mut::<Pkcs7>(data),
        };
        Some([&iv[..], &sealed].concat())
    }

    fn open(&self, stored: &[u8]) -> Result<Vec<u8>, Failure> {
        let (iv, data) = stored.split_at_checked(CBC_BLOCK_BYTES).ok_or(TOO_SHORT)?;
        if data.len() % CBC_BLOCK_BYTES != 0 {
            return Err("the stored data is not a multiple of the block size");
        }
        let at = iv.into();
        let opened = match self {
            Self::Aes128(key) => cbc::Decryptor::<Aes128>::new(key.into(), at).decrypt_padded_vec_mut::<Pkcs7>(data),
            Self::Aes192(key) => cbc::Decryptor::<Aes192>::new(key.into(), at).decrypt_padded_vec_mut::<Pkcs7>(data),
            Self::Aes256(key) => cbc::Decryptor::<Aes256>::new(key.into(), at).decrypt_padded_vec_mut::<Pkcs7>(data),
        };
        opened.map_err(|_| "invalid padding on input")
    }
}

impl Cipher {
    /// `None` for a key that is not 32 bytes.
    pub(super) fn secretbox(key: &[u8]) -> Option<Self> {
        XSalsa20Poly1305::new_from_slice(key).ok().map(|cipher| Self::Secretbox(Box::new(cipher)))
    }

    /// Encrypts; `aad` must be the same when it is decrypted, where the cipher can see to that.
    pub(super) fn seal(&self, data: &[u8], aad: &[u8], random: &Random) -> Option<Vec<u8>> {
        match self {
            Self::Gcm(gcm) => gcm.seal(data, aad, random),
            Self::Cbc(cbc) => cbc.seal(data, random),
            Self::Secretbox(secretbox) => {
                let mut nonce = [0; SECRETBOX_NONCE_BYTES];
                random.fill(&mut nonce);
                let sealed = secretbox.encrypt(crypto_secretbox::Nonce::from_slice(&nonce), data).ok()?;
                Some([&nonce[..], &sealed].concat())
            }
            Self::Seed(seed) => {
                let mut info = [0; INFO_BYTES];
                random.fill(&mut info);
                let sealed = derived(seed, &info)?.seal(data, aad, random)?;
                Some([&info[..], &sealed].concat())
            }
        }
    }

    /// Decrypts.
    pub(super) fn open(&self, stored: &[u8], aad: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Gcm(gcm) => gcm.open(stored, aad),
            Self::Cbc(cbc) => cbc.open(stored),
            Self::Secretbox(secretbox) => {
                let (nonce, data) = stored.split_at_checked(SECRETBOX_NONCE_BYTES).ok_or(TOO_SHORT)?;
                secretbox.decrypt(crypto_secretbox::Nonce::from_slice(nonce), data).map_err(|_| NOT_AUTHENTIC)
            }
            Self::Seed(seed) => {
                let (info, data) = stored.split_at_checked(INFO_BYTES).ok_or(TOO_SHORT)?;
                derived(seed, info).ok_or("failed to derive read key from KDF")?.open(data, aad)
            }
        }
    }
}

/// HKDF-Expand with SHA-256 (RFC 5869) for one block, which is a key's size.
fn derived(seed: &[u8], info: &[u8]) -> Option<Gcm> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, seed));
    context.update(info);
    context.update(&[1]);
    Gcm::new(context.sign().as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ciphers() -> Vec<Cipher> {
        let mut all = Vec::new();
        for size in [16, 24, 32] {
            let key: Vec<u8> = (0..size).collect();
            all.push(Cipher::Gcm(Gcm::new(&key).unwrap()));
            all.push(Cipher::Cbc(Cbc::new(&key).unwrap()));
        }
        all.push(Cipher::secretbox(&[7; 32]).unwrap());
        all.push(Cipher::Seed(vec![9; 32]));
        all
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// What OpenSSL wrote, and the vector of "Cryptography in NaCl": what others wrote can be read.
    #[test]
    fn published_vectors_can_be_read() {
        let key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let stored =
            bytes("000102030405060708090a0b0c0d0e0fcb369c6cff20f62ae87baa0fc5bc7923e3b4ea71b9370d44f93a83a7192efbb1");
        let opened = Cipher::Cbc(Cbc::new(&key).unwrap()).open(&stored, b"");
        assert_eq!(opened.as_deref(), Ok(&b"what others wrote"[..]));
        let key = bytes("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let stored = bytes(
            "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650\
             ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d5\
             1738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b379\
             73f622a43d14a6599b1f654cb45a74e355a5",
        );
        let opened = Cipher::secretbox(&key).unwrap().open(&stored, b"").unwrap();
        assert_eq!(&opened[..8], &bytes("be075fc53c81f2d5")[..]);
        assert_eq!(opened.len(), 131);
    }

    #[test]
    fn another_path_is_noticed_where_the_cipher_can() {
        let random = Random::seeded(3);
        for cipher in ciphers() {
            let sealed = cipher.seal(b"content", b"/registry/secrets/a", &random).unwrap();
            let moved = cipher.open(&sealed, b"/registry/secrets/b");
            let sees = matches!(cipher, Cipher::Gcm(_) | Cipher::Seed(_));
            assert_eq!(moved.is_err(), sees);
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_and_junk_is_refused_without_panic(
            data in proptest::collection::vec(any::<u8>(), 0..200),
            junk in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let random = Random::seeded(5);
            for cipher in ciphers() {
                let sealed = cipher.seal(&data, b"key", &random).unwrap();
                prop_assert_eq!(cipher.open(&sealed, b"key"), Ok(data.clone()));
                // CBC authenticates nothing: junk may have good padding.
                if !matches!(cipher, Cipher::Cbc(_)) {
                    prop_assert!(cipher.open(&junk, b"key").is_err());
                } else {
                    let _ = cipher.open(&junk, b"key");
                }
            }
        }
    }
}
