//! Bootstrap tokens: Secrets of type `bootstrap.kubernetes.io/token`, with which a machine that is
//! nobody yet asks for its first certificate.

use async_trait::async_trait;
use base64::Engine;
use skiff_object::time::Time;
use skiff_object::{Tree, json};

use super::chain::{Identified, Refusal, TokenAuthenticator, api_audiences};
use super::{UserInfo, same_secret};
use crate::meta;
use crate::server::ApiServer;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// See the [module](self).
pub(super) struct BootstrapTokens;

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    async fn identify(
        &self,
        server: &ApiServer,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identified>, Refusal> {
        let audiences = api_audiences(server, audiences);
        let Some((id, secret)) = parts(token) else { return Ok(None) };
        if audiences.is_empty() {
            return Ok(None);
        }
        let name = format!("bootstrap-token-{id}");
        let stored = server.collection("", "secrets").get(NAMESPACE, &name).await;
        let Some(stored) = stored.map_err(|error| Refusal(error.message))? else { return Ok(None) };
        let object = json::decode_untyped(&stored.value).map_err(|error| Refusal(error.to_string()))?;
        match user(&object, id, secret, server.clock().now().as_nanos()) {
            Ok(user) => Ok(Some(Identified { user, audiences })),
            Err(why) => {
                tracing::debug!(secret = name, why, "bootstrap token not taken");
                Ok(None)
            }
        }
    }
}

/// Id and secret of `[a-z0-9]{6}.[a-z0-9]{16}`.
fn parts(token: &str) -> Option<(&str, &str)> {
    let fits = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    token.split_once('.').filter(|(id, secret)| fits(id, 6) && fits(secret, 16))
}

fn user(object: &Tree, id: &str, secret: &str, now_nanos: i64) -> Result<UserInfo, &'static str> {
    if object.str_at(&["type"]) != TYPE {
        return Err("the Secret is of another type");
    }
    if meta::is_deleting(object) {
        return Err("the Secret is being deleted");
    }
    let value = |key: &str| {
        let encoded = object.str_at(&["data", key]);
        base64::engine::general_purpose::STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    };
    let text = |key: &str| value(key).unwrap_or_default();
    if text("token-secret").is_empty() || !same_secret(text("token-secret").as_bytes(), secret.as_bytes()) {
        return Err("the secret differs");
    }
    if text("token-id") != id {
        return Err("the id differs");
    }
    let expiration = text("expiration");
    let is_over = |text: &str| Time::parse(text).map_or(true, |end| end.to_nanos() <= now_nanos);
    if !expiration.is_empty() && is_over(&expiration) {
        return Err("it has expired");
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let extra = text("auth-extra-groups");
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return Err("a group in it is none for bootstrapping");
        }
        groups.push(group.to_owned());
    }
    groups[1..].sort();
    groups.dedup();
    let user = UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() };
    Ok(user.authenticated())
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b':' | b'-');
    let last = rest.bytes().next_back();
    rest.len() <= 256 && rest.bytes().all(inner) && last.is_some_and(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in ["abcdef", "abcde.0123456789abcdef", "Abcdef.0123456789abcdef", "abcdef.0123456789abcde."] {
            assert_eq!(parts(other), None, "{other}");
        }
        assert!(is_group("system:bootstrappers:a:b-c"));
        assert!(!is_group("system:masters") && !is_group("system:bootstrappers:a-"));
    }
}
