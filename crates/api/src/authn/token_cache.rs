//! What was found out about tokens, for a short while: asking an issuer's keys or somebody else's
//! server for every request would be slow and unkind.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use skiff_base::Clock;
use tokio::time::Instant;

use super::chain::Identified;

/// So many tokens are remembered before all are forgotten; upstream holds as many.
const TOKENS_MAX: usize = 32_768;

/// See the [module](self).
pub(super) struct TokenCache {
    clock: Clock,
    found: Mutex<HashMap<[u8; 32], Remembered>>,
}

/// Until when, and whom.
type Remembered = (Instant, Option<Identified>);

impl TokenCache {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, found: Mutex::default() }
    }

    /// What was found about a token and these audiences, if that is still good.
    pub(super) fn get(&self, token: &str, audiences: &[String]) -> Option<Option<Identified>> {
        let found = self.found.lock();
        let (until, identified) = found.get(&key(token, audiences))?;
        (self.clock.instant() < *until).then(|| identified.clone())
    }

    /// Remembers for `ttl`.
    pub(super) fn put(&self, token: &str, audiences: &[String], found: Option<Identified>, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = self.clock.instant();
        let mut known = self.found.lock();
        if known.len() >= TOKENS_MAX {
            known.retain(|_, (until, _)| now < *until);
            if known.len() >= TOKENS_MAX {
                known.clear();
            }
        }
        known.insert(key(token, audiences), (now + ttl, found));
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.found.lock().clear();
    }
}

/// A digest in place of the token, so that memory holds no secrets; lengths keep parts apart.
fn key(token: &str, audiences: &[String]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
