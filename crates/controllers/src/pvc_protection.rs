//! A claim on its way out goes when no pod on a node uses it any more.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use skiff_client::{Informer, ListOptions, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::{Meta, pods};

pub(crate) const NAME: &str = "pvc-protection-controller";

const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct Driver {
    ctx: Context,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let claims = ctx.informers.of::<PersistentVolumeClaim>();
    let pods = pods::informer(&ctx.informers);
    let changed = queue.clone();
    claims.subscribe(move |change| {
        if change.new.as_deref().is_some_and(is_waiting) {
            changed.add(change.key());
        }
    });
    let (known, freed) = (claims.clone(), queue.clone());
    pods.subscribe(move |change| {
        let Some(old) = change.old.as_deref().filter(|_| change.new.is_none()) else { return };
        for name in claims_of(old) {
            let key = ObjectKey::new(old.metadata.ns(), name);
            if known.get(&key.namespace, &key.name).as_deref().is_some_and(is_waiting) {
                freed.add(key);
            }
        }
    });
    let ready = (claims.clone(), pods.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, claims, pods }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

fn is_waiting(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.is_deleting() && claim.metadata.has_finalizer(FINALIZER)
}

/// The claims that a pod's volumes name, those made for it included.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", pod.metadata.id(), volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// A pod that has no node yet will get none while its claim is on its way out.
fn uses(pod: &Pod, claim: &str) -> bool {
    pods::node_name(pod).is_some() && claims_of(pod).iter().any(|name| name == claim)
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name).filter(|claim| is_waiting(claim)) else {
            return Ok(Next::Event);
        };
        if self.pods.store().iter().any(|pod| pod.metadata.ns() == key.namespace && uses(&pod, &key.name)) {
            return Ok(Next::Event);
        }
        // The cache may lack a pod that was placed a moment ago.
        let live = self.ctx.client.list_all::<Pod>(&key.namespace, &ListOptions::default()).await?;
        if live.iter().any(|pod| uses(pod, &key.name)) {
            return Ok(Next::Event);
        }
        let mut freed = PersistentVolumeClaim::clone(&claim);
        freed.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != FINALIZER));
        match self.ctx.client.replace(&freed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_on_nodes_use_what_their_volumes_name() {
        let pod = |spec: &str| -> Pod {
            serde_json::from_str(&format!(r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{spec}}}"#)).unwrap()
        };
        let volumes = r#""containers":[],"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c"}},
            {"name":"e","ephemeral":{}}]"#;
        let placed = pod(&format!(r#"{{"nodeName":"n1",{volumes}}}"#));
        assert_eq!(claims_of(&placed), ["c", "p-e"]);
        assert!(uses(&placed, "c") && uses(&placed, "p-e") && !uses(&placed, "d"));
        assert!(!uses(&pod(&format!("{{{volumes}}}")), "c"));
    }
}
