//! Long-lived tokens of the older form: Secrets of type `kubernetes.io/service-account-token`.
//!
//! A Secret annotated with a service account gets a token for it. The token itself is made by the
//! API server's token request; here the Secret is filled, and deleted with its account.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Reconcile, Result, Selection, WorkQueue, run_controller};

use crate::Context;
use crate::shared::Meta;

pub(crate) const NAME: &str = "tokens-controller";

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// The longest the API lets a requested token live. The tokens of this older form should not
/// expire at all; they are renewed when the Secret is made anew.
const LIFETIME_SECS: i64 = 1 << 32;

struct Driver {
    ctx: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let secrets = ctx.informers.selected::<Secret>("", Selection::fields(format!("type={TYPE}")));
    let accounts = ctx.informers.of::<ServiceAccount>();
    let added = queue.clone();
    secrets.subscribe(move |change| added.add(change.key()));
    let (of_account, changed) = (secrets.clone(), queue.clone());
    accounts.subscribe(move |change| {
        let key = change.key();
        for secret in of_account.store().namespace(&key.namespace) {
            if secret.metadata.annotation(ACCOUNT_NAME) == Some(&key.name) {
                changed.add(ObjectKey::of(&secret.metadata));
            }
        }
    });
    let ready = (secrets.clone(), accounts.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, secrets, accounts }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

/// What a token Secret needs.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Its account is gone (or was made anew).
    Delete,
    /// It lacks a token or its facts.
    Fill,
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, root_ca_pem: &str) -> Plan {
    if secret.metadata.is_deleting() || secret.metadata.annotation(ACCOUNT_NAME).is_none() {
        return Plan::Nothing;
    }
    let uid = secret.metadata.annotation(ACCOUNT_UID).filter(|uid| !uid.is_empty());
    match account {
        Some(account) if uid.is_none_or(|uid| uid == account.metadata.uid()) => {}
        // Without a uid the account may be about to be created.
        None if uid.is_none() => return Plan::Nothing,
        _ => return Plan::Delete,
    }
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let complete = uid.is_some()
        && value("token").is_some_and(|token| !token.is_empty())
        && value("namespace") == Some(secret.metadata.ns().as_bytes())
        && value("ca.crt") == Some(root_ca_pem.as_bytes());
    if complete { Plan::Nothing } else { Plan::Fill }
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let name = secret.metadata.annotation(ACCOUNT_NAME).unwrap_or_default();
        let account = self.accounts.get(&key.namespace, name);
        match plan(&secret, account.as_deref(), &self.ctx.config.root_ca_pem) {
            Plan::Nothing => Ok(Next::Event),
            Plan::Delete => self.delete(&secret, name).await,
            Plan::Fill => match account {
                Some(account) => self.fill(&secret, &account).await,
                None => Ok(Next::Event),
            },
        }
    }
}

impl Driver {
    async fn delete(&self, secret: &Secret, account: &str) -> Result<Next> {
        let namespace = secret.metadata.ns();
        let live = self.ctx.client.find::<ServiceAccount>(namespace, account).await?;
        if live.is_some_and(|live| secret.metadata.annotation(ACCOUNT_UID) == Some(live.metadata.uid())) {
            return Ok(Next::Backoff); // our cache is behind
        }
        let options = DeleteOptions::uid(secret.metadata.uid());
        match self.ctx.client.delete::<Secret>(namespace, secret.metadata.id(), &options).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }

    async fn fill(&self, secret: &Secret, account: &ServiceAccount) -> Result<Next> {
        let (namespace, name) = (account.metadata.ns(), account.metadata.id());
        let mut secret = secret.clone();
        let data = secret.data.get_or_insert_default();
        data.insert("namespace".into(), ByteString(namespace.as_bytes().to_vec()));
        data.insert("ca.crt".into(), ByteString(self.ctx.config.root_ca_pem.clone().into_bytes()));
        if data.get("token").is_none_or(|token| token.0.is_empty()) {
            let spec = TokenRequestSpec {
                expiration_seconds: Some(LIFETIME_SECS),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Secret".into()),
                    name: secret.metadata.name.clone(),
                    uid: secret.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            };
            let answer = self.ctx.client.create_token(namespace, name, spec).await?;
            let token = answer.status.and_then(|status| status.token).unwrap_or_default();
            data.insert("token".into(), ByteString(token.into_bytes()));
        }
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_UID.into(), account.metadata.uid().to_owned());
        match self.ctx.client.replace(&secret).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[track_caller]
    fn check(secret_uid: Option<&str>, account_uid: Option<&str>, token: &str, expected: Plan) {
        let mut annotations = std::collections::BTreeMap::from([(ACCOUNT_NAME.to_owned(), "a".to_owned())]);
        annotations.extend(secret_uid.map(|uid| (ACCOUNT_UID.to_owned(), uid.to_owned())));
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = [("token", token), ("namespace", "n"), ("ca.crt", "CA")].map(|(k, v)| (k.to_owned(), bytes(v)));
        let secret = Secret {
            metadata: ObjectMeta {
                namespace: Some("n".into()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            data: Some(data.into()),
            ..Secret::default()
        };
        let account = account_uid.map(|uid| ServiceAccount {
            metadata: ObjectMeta { uid: Some(uid.into()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        });
        assert_eq!(plan(&secret, account.as_ref(), "CA"), expected);
    }

    #[test]
    fn a_token_secret_follows_its_account() {
        check(None, None, "", Plan::Nothing);
        check(None, Some("1"), "", Plan::Fill);
        check(Some("1"), Some("1"), "t", Plan::Nothing);
        check(Some("1"), Some("1"), "", Plan::Fill);
        check(Some("1"), Some("2"), "t", Plan::Delete);
        check(Some("1"), None, "t", Plan::Delete);
    }
}
