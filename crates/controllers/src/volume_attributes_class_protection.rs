//! A class of volume attributes on its way out goes when no claim and no volume names it.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::Meta;

pub(crate) const NAME: &str = "volumeattributesclass-protection-controller";

const FINALIZER: &str = "kubernetes.io/vac-protection";

struct Driver {
    ctx: Context,
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let classes = ctx.informers.of::<VolumeAttributesClass>();
    let claims = ctx.informers.of::<PersistentVolumeClaim>();
    let volumes = ctx.informers.of::<PersistentVolume>();
    let changed = queue.clone();
    classes.subscribe(move |change| {
        if change.new.as_deref().is_some_and(is_waiting) {
            changed.add(change.key());
        }
    });
    let freed = queue.clone();
    claims.subscribe(move |change| {
        for name in change.old.as_deref().into_iter().flat_map(classes_of_claim) {
            freed.add(ObjectKey::new("", name));
        }
    });
    let freed = queue.clone();
    volumes.subscribe(move |change| {
        if let Some(name) = change.old.as_deref().and_then(class_of_volume) {
            freed.add(ObjectKey::new("", name));
        }
    });
    let ready = (classes.clone(), claims.clone(), volumes.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, classes, claims, volumes }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
    });
}

fn is_waiting(class: &VolumeAttributesClass) -> bool {
    class.metadata.is_deleting() && class.metadata.has_finalizer(FINALIZER)
}

/// The class that a claim wants, and the one it has.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let has = claim.status.as_ref().and_then(|status| status.current_volume_attributes_class_name.as_deref());
    wanted.into_iter().chain(has)
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(class) = self.classes.get("", &key.name).filter(|class| is_waiting(class)) else {
            return Ok(Next::Event);
        };
        let claimed = self.claims.store().iter().any(|claim| classes_of_claim(&claim).any(|name| name == key.name));
        let carried = self.volumes.store().iter().any(|volume| class_of_volume(&volume) == Some(key.name.as_str()));
        if claimed || carried {
            return Ok(Next::Event);
        }
        let mut freed = VolumeAttributesClass::clone(&class);
        freed.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != FINALIZER));
        match self.ctx.client.replace(&freed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}
