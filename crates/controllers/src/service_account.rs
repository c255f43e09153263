//! Every active namespace has a service account called `default`.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::namespace::is_active;

pub(crate) const NAME: &str = "service-account-controller";

const DEFAULT: &str = "default";

struct Driver {
    ctx: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let namespaces = ctx.informers.of::<Namespace>();
    let accounts = ctx.informers.of::<ServiceAccount>();
    let added = queue.clone();
    namespaces.subscribe(move |change| {
        if change.new.is_some() {
            added.add(change.key());
        }
    });
    let removed = queue.clone();
    accounts.subscribe(move |change| {
        let key = change.key();
        if change.new.is_none() && key.name == DEFAULT {
            removed.add(ObjectKey::new("", key.namespace));
        }
    });
    let ready = (namespaces.clone(), accounts.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, namespaces, accounts }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let active = self.namespaces.get("", &key.name).is_some_and(|namespace| is_active(&namespace));
        if !active || self.accounts.get(&key.name, DEFAULT).is_some() {
            return Ok(Next::Event);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.ctx.client.create(&account).await {
            Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() && !error.is_not_found() => {
                Err(error)
            }
            _ => Ok(Next::Event),
        }
    }
}
