//! A volume on its way out goes when no claim is bound to it.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolume;
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::Meta;

pub(crate) const NAME: &str = "pv-protection-controller";

const FINALIZER: &str = "kubernetes.io/pv-protection";

struct Driver {
    ctx: Context,
    volumes: Informer<PersistentVolume>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let volumes = ctx.informers.of::<PersistentVolume>();
    let changed = queue.clone();
    volumes.subscribe(move |change| {
        if change.new.as_deref().is_some_and(may_go) {
            changed.add(change.key());
        }
    });
    let ready = volumes.clone();
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, volumes }), async move { ready.synced().await });
}

fn may_go(volume: &PersistentVolume) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    volume.metadata.is_deleting() && volume.metadata.has_finalizer(FINALIZER) && phase != Some("Bound")
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(volume) = self.volumes.get("", &key.name).filter(|volume| may_go(volume)) else {
            return Ok(Next::Event);
        };
        let mut freed = PersistentVolume::clone(&volume);
        freed.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != FINALIZER));
        match self.ctx.client.replace(&freed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}
