//! Bootstrap tokens as controllers see them: Secrets of one type in `kube-system`.

use k8s_openapi::api::core::v1::Secret;
use skiff_base::Timestamp;
use skiff_client::{Informer, Selection};

use crate::Context;

/// Where the tokens are.
pub(crate) const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAME_PREFIX: &str = "bootstrap-token-";

/// The cache of all bootstrap tokens, and of nobody else's Secrets.
pub(crate) fn informer(ctx: &Context) -> Informer<Secret> {
    ctx.informers.selected::<Secret>(NAMESPACE, Selection::fields(format!("type={TYPE}")))
}

fn value<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or("")
}

/// Until when a token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// For ever.
    Ever,
    /// Until then; what cannot be read was over at the beginning of time.
    Then(Timestamp),
}

impl Until {
    pub(crate) fn of(secret: &Secret) -> Self {
        match value(secret, "expiration") {
            "" => Self::Ever,
            text => Self::Then(match skiff_object::time::Time::parse(text) {
                Ok(time) => Timestamp::from_nanos(time.to_nanos()),
                Err(_) => Timestamp::EPOCH,
            }),
        }
    }

    pub(crate) fn is_over(self, now: Timestamp) -> bool {
        matches!(self, Self::Then(end) if end <= now)
    }
}

/// Id and secret of a token that signs now.
pub(crate) fn signing(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, key) = (value(secret, "token-id"), value(secret, "token-secret"));
    let named = secret.metadata.name.as_deref().and_then(|name| name.strip_prefix(NAME_PREFIX));
    let signs = value(secret, "usage-bootstrap-signing") == "true" && !Until::of(secret).is_over(now);
    (named == Some(id) && !id.is_empty() && !key.is_empty() && signs).then_some((id, key))
}

#[cfg(test)]
pub(crate) fn token(id: &str, more: &[(&str, &str)]) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(format!("{NAME_PREFIX}{id}"));
    secret.metadata.namespace = Some(NAMESPACE.into());
    let usual = [("token-id", id), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
    let data =
        usual.iter().chain(more).map(|(key, value)| ((*key).to_owned(), k8s_openapi::ByteString((*value).into())));
    secret.data = Some(data.collect());
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_until_its_end() {
        let now = Timestamp::from_secs(1_800_000_000);
        assert_eq!(Until::of(&token("abcdef", &[])), Until::Ever);
        assert!(!Until::of(&token("abcdef", &[])).is_over(now));
        assert!(!Until::of(&token("abcdef", &[("expiration", "2030-01-01T00:00:00Z")])).is_over(now));
        assert!(Until::of(&token("abcdef", &[("expiration", "2020-01-01T00:00:00Z")])).is_over(now));
        assert!(Until::of(&token("abcdef", &[("expiration", "tomorrow")])).is_over(now));
    }

    #[test]
    fn a_token_signs_when_it_is_whole_and_meant_to() {
        let now = Timestamp::from_secs(1_800_000_000);
        assert_eq!(signing(&token("abcdef", &[]), now), Some(("abcdef", "0123456789abcdef")));
        for wrong in [
            ("token-id", "abcdeg"),
            ("token-secret", ""),
            ("usage-bootstrap-signing", "false"),
            ("expiration", "2020-01-01T00:00:00Z"),
        ] {
            assert_eq!(signing(&token("abcdef", &[wrong]), now), None, "{wrong:?}");
        }
    }
}
