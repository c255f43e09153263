//! The ConfigMap `cluster-info` of `kube-public` is signed with each bootstrap token that may sign, so that
//! a machine that has nothing but a token knows whom it talks to.
//!
//! A signature is a detached JWS (RFC 7515, appendix F) over the text of `kubeconfig`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use ring::hmac;
use skiff_base::Timestamp;
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, Selection, WorkQueue, run_controller};

use crate::Context;
use crate::shared::bootstrap_tokens::{self, Until};

pub(crate) const NAME: &str = "bootstrap-signer";

const NAMESPACE: &str = "kube-public";
const CONFIG_MAP: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

struct Driver {
    ctx: Context,
    maps: Informer<ConfigMap>,
    tokens: Informer<Secret>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let maps = ctx.informers.selected::<ConfigMap>(NAMESPACE, Selection::fields(format!("metadata.name={CONFIG_MAP}")));
    let tokens = bootstrap_tokens::informer(&ctx);
    let changed = queue.clone();
    maps.subscribe(move |_| changed.add(ObjectKey::new(NAMESPACE, CONFIG_MAP)));
    let changed = queue.clone();
    tokens.subscribe(move |_| changed.add(ObjectKey::new(NAMESPACE, CONFIG_MAP)));
    let ready = (maps.clone(), tokens.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, maps, tokens }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

/// The data with the signatures that it should have.
fn signed<'a>(
    data: &BTreeMap<String, String>,
    tokens: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<BTreeMap<String, String>> {
    let text = data.get(KUBECONFIG)?;
    let mut wanted = data.clone();
    wanted.retain(|key, _| !key.starts_with(SIGNATURE_PREFIX));
    wanted.extend(tokens.map(|(id, secret)| (format!("{SIGNATURE_PREFIX}{id}"), signature(text, id, secret))));
    Some(wanted)
}

fn signature(text: &str, id: &str, secret: &str) -> String {
    let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(text));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{head}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// When the first of the tokens is over.
fn first_end(tokens: &[Arc<Secret>], now: Timestamp) -> Option<Timestamp> {
    let ends = tokens.iter().filter_map(|token| match Until::of(token) {
        Until::Then(end) if end > now => Some(end),
        _ => None,
    });
    ends.min()
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(map) = self.maps.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let now = self.ctx.clock.now();
        let tokens: Vec<Arc<Secret>> = self.tokens.store().iter().collect();
        let next = first_end(&tokens, now).map_or(Next::Event, |end| Next::After(end.since(now)));
        let signing = tokens.iter().filter_map(|token| bootstrap_tokens::signing(token, now));
        let data = map.data.clone().unwrap_or_default();
        let Some(wanted) = signed(&data, signing).filter(|wanted| *wanted != data) else { return Ok(next) };
        let mut map = ConfigMap::clone(&map);
        map.data = Some(wanted);
        match self.ctx.client.replace(&map).await {
            // What is overtaken comes back as an event.
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::bootstrap_tokens::token;

    #[test]
    fn each_token_signs_and_the_signatures_of_others_go() {
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let before = data(&[("kubeconfig", "x"), ("jws-kubeconfig-zzzzzz", "old"), ("other", "y")]);
        let after = signed(&before, [("abcdef", "0123456789abcdef")].into_iter()).unwrap();
        assert_eq!(after.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig", "other"]);
        assert_eq!(signed(&data(&[("other", "y")]), std::iter::empty()), None, "there is nothing to sign");
    }

    #[test]
    fn a_signature_is_a_detached_jws() {
        let made = signature("x", "abcdef", "0123456789abcdef");
        let (head, tag) = made.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(head).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
        let signed = format!("{head}.eA");
        hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).unwrap()).unwrap();
    }

    #[test]
    fn it_comes_again_when_the_first_token_ends() {
        let now = Timestamp::from_secs(1_800_000_000);
        let tokens = [
            token("a", &[]),
            token("b", &[("expiration", "2030-01-01T00:00:00Z")]),
            token("c", &[("expiration", "2029-01-01T00:00:00Z")]),
            token("d", &[("expiration", "2020-01-01T00:00:00Z")]),
        ]
        .map(Arc::new);
        assert_eq!(first_end(&tokens, now), Some(Timestamp::from_secs(1_861_920_000)));
    }
}
