//! Where a list goes on: upstream's token, base64 of JSON.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::errors::{ApiError, ApiResult};

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// What `continue` carries from one chunk of a list to the next. Clients may send any text for it: it names a place
/// within the collection of its request and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ContinueToken {
    v: String,
    /// The revision of the list; -1 for "whatever is current", after it expired.
    rv: i64,
    /// The key to begin with, relative to the collection.
    start: String,
}

impl ContinueToken {
    /// Goes on behind the key `last` of the list at revision `rv`.
    pub fn new(rv: i64, last: &[u8]) -> Self {
        // The next key after the last one given out, as upstream writes it.
        Self { v: TOKEN_VERSION.into(), rv, start: format!("{}\0", String::from_utf8_lossy(last)) }
    }

    /// The revision of the list; -1 for whatever is current.
    pub const fn revision(&self) -> i64 {
        self.rv
    }

    /// The last key that was given out.
    pub fn after(&self) -> &[u8] {
        let start = self.start.as_bytes();
        start.strip_suffix(b"\0").unwrap_or(start)
    }

    /// The same place in the list as it is now.
    #[must_use]
    pub fn inconsistent(&self) -> Self {
        Self { rv: -1, ..self.clone() }
    }

    /// As clients get it.
    pub fn encode(&self) -> String {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json)).unwrap_or_default()
    }

    /// Reads what a client sent.
    ///
    /// # Errors
    /// 400 when it is no token or leads out of the collection.
    pub fn decode(text: &str) -> ApiResult<Self> {
        let invalid = |why: String| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(error.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| invalid(error.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(invalid(format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
        }
        if token.start.is_empty() || token.start.split('/').any(|part| part == "..") {
            return Err(invalid("encoded start key empty or invalid".into()));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_upstreams_and_junk_is_refused() {
        let token = ContinueToken::new(7, b"ns/a");
        assert_eq!(ContinueToken::decode(&token.encode()).unwrap(), token);
        assert_eq!(
            String::from_utf8(URL_SAFE_NO_PAD.decode(token.encode()).unwrap()).unwrap(),
            "{\"v\":\"meta.k8s.io/v1\",\"rv\":7,\"start\":\"ns/a\\u0000\"}"
        );
        for junk in ["x", "e30", "!!"] {
            assert!(ContinueToken::decode(junk).unwrap_err().message.starts_with("continue key is not valid: "));
        }
    }
}
