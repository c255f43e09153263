//! Bootstrap tokens that are over are deleted.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::Meta;
use crate::shared::bootstrap_tokens::{self, Until};

pub(crate) const NAME: &str = "token-cleaner";

struct Driver {
    ctx: Context,
    tokens: Informer<Secret>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let tokens = bootstrap_tokens::informer(&ctx);
    let added = queue.clone();
    tokens.subscribe(move |change| {
        if change.new.is_some() {
            added.add(change.key());
        }
    });
    let ready = tokens.clone();
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, tokens }), async move { ready.synced().await });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(token) = self.tokens.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let (now, until) = (self.ctx.clock.now(), Until::of(&token));
        let Until::Then(end) = until else { return Ok(Next::Event) };
        if !until.is_over(now) {
            return Ok(Next::After(end.since(now)));
        }
        let options = DeleteOptions::uid(token.metadata.uid());
        match self.ctx.client.delete::<Secret>(&key.namespace, &key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}
