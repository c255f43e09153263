//! Tokens that lie in Secrets of type `kubernetes.io/service-account-token`.
//!
//! They are taken for as long as their Secret holds them, has not been marked invalid, and each
//! use is noted on it by the day, so that a cluster can see which ones are still in use.

use skiff_object::{Tree, json};

use super::same_secret;
use super::service_account::TokenError;
use crate::meta;
use crate::server::ApiServer;

const TYPE: &str = "kubernetes.io/service-account-token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Whether `token` is (still) the one in its Secret; notes its use.
///
/// # Errors
/// When the Secret holds another token or none, or is marked invalid.
pub async fn check(server: &ApiServer, secret: &Tree, token: &str) -> Result<(), TokenError> {
    if secret.str_at(&["type"]) != TYPE {
        return Ok(());
    }
    let (namespace, name) = (meta::namespace(secret), meta::name(secret));
    let held = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(secret.str_at(&["data", "token"])).unwrap_or_default()
    };
    if held.is_empty() {
        return Err(TokenError::Claims("Token has been invalidated".into()));
    }
    if !same_secret(&held, token.as_bytes()) {
        return Err(TokenError::Claims("Token does not match server's copy".into()));
    }
    if meta::label(secret, INVALID_SINCE).is_some() {
        let account = meta::annotation(secret, "kubernetes.io/service-account.name").unwrap_or_default();
        return Err(TokenError::Claims(format!(
            "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked \
             invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        )));
    }
    let today: String = meta::time(server.clock().now()).chars().take("2006-01-02".len()).collect();
    if meta::label(secret, LAST_USED) != Some(&today)
        && let Err(why) = note(server, namespace, name, &today).await
    {
        tracing::warn!(namespace, name, why, "could not note the use of a token");
    }
    Ok(())
}

/// Labels the Secret. Somebody else may be writing it: then the next use notes it.
async fn note(server: &ApiServer, namespace: &str, name: &str, today: &str) -> Result<(), String> {
    let secrets = server.collection("", "secrets");
    let stored = secrets.get(namespace, name).await.map_err(|error| error.message)?;
    let Some(stored) = stored else { return Ok(()) };
    let mut object = json::decode_untyped(&stored.value).map_err(|error| error.to_string())?;
    object.set(&["metadata", "labels", LAST_USED], today);
    let value = json::encode_untyped(&object).into();
    secrets.replace(namespace, name, value, stored.revision, None).await.map(drop).map_err(|error| error.message)
}
