//! Randomness as a value: the system's source, or a seeded one for tests.

use std::sync::Arc;

use parking_lot::Mutex;
use ring::rand::SecureRandom;

/// A source of random values. Cheap to clone; clones of a seeded source share its sequence.
#[derive(Clone)]
pub struct Random(Source);

#[derive(Clone)]
enum Source {
    System(Arc<ring::rand::SystemRandom>),
    Seeded(Arc<Mutex<u64>>),
}

/// The alphabet upstream uses for generated names: no vowels (no words) and no look-alikes
/// (`k8s.io/apimachinery/pkg/util/rand`).
const NAME_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

impl Random {
    /// The operating system's cryptographic source.
    pub fn system() -> Self {
        Self(Source::System(Arc::new(ring::rand::SystemRandom::new())))
    }

    /// A reproducible sequence (SplitMix64). Not for secrets.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    /// Fills `buffer`.
    ///
    /// # Panics
    /// When the operating system has no entropy source: nothing secure can be done then.
    pub fn fill(&self, buffer: &mut [u8]) {
        match &self.0 {
            Source::System(source) => {
                assert!(source.fill(buffer).is_ok(), "the operating system's random source failed");
            }
            Source::Seeded(state) => {
                let mut state = state.lock();
                for chunk in buffer.chunks_mut(8) {
                    let bytes = split_mix(&mut state).to_le_bytes();
                    chunk.copy_from_slice(&bytes[..chunk.len()]);
                }
            }
        }
    }

    /// A uniformly distributed 64-bit value.
    pub fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A value in `0..bound`; 0 for an empty range. The bias of the reduction is below 2⁻³² for
    /// every bound used here.
    pub fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A value in `0.0..1.0`.
    pub fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `length` characters for the end of a generated name, as in `web-7c5ddbdf54-x2b9q`.
    pub fn suffix(&self, length: usize) -> String {
        (0..length).map(|_| char::from(NAME_ALPHABET[self.below(NAME_ALPHABET.len() as u64) as usize])).collect()
    }

    /// A random (version 4) UUID in its canonical lower-case form.
    pub fn uuid(&self) -> String {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 0x0f] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = *state;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_names_again() {
        assert_eq!(Random::seeded(1).suffix(10), Random::seeded(1).suffix(10));
        assert_ne!(Random::seeded(1).suffix(10), Random::seeded(2).suffix(10));
    }

    #[test]
    fn uuids_carry_version_and_variant() {
        let uuid = Random::seeded(3).uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn below_stays_below() {
        let random = Random::seeded(4);
        assert!((0..1_000).all(|_| random.below(27) < 27));
        assert_eq!(random.below(0), 0);
    }
}
