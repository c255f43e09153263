//! Pods that nobody else will remove: on nodes that no longer exist, deleted before they were
//! placed, or ended long ago in too great number.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Patch, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::disruption::{self, Phase, Reason};
use crate::shared::taints::{NO_EXECUTE, taints};
use crate::shared::{Meta, pods};

pub(crate) const NAME: &str = "pod-garbage-collector";

/// A node that vanishes may be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Ended pods are counted at most this often.
const COUNT_EVERY: Duration = Duration::from_secs(20);

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct Driver {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

/// The key under which all ended pods are counted; pods have a namespace.
fn ended() -> ObjectKey {
    ObjectKey::new("", "ended")
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let nodes = ctx.informers.of::<Node>();
    let pods = pods::informer(&ctx.informers);
    let (of_node, lost) = (pods.clone(), queue.clone());
    nodes.subscribe(move |change| {
        let gone = change.new.is_none();
        if gone || change.new.as_deref().is_some_and(is_out_of_service) {
            for pod in of_node.store().indexed(pods::INDEX_NODE, &change.key().name) {
                lost.add_after(ObjectKey::of(&pod.metadata), if gone { QUARANTINE } else { Duration::ZERO });
            }
        }
    });
    let (known, changed) = (nodes.clone(), queue.clone());
    pods.subscribe(move |change| {
        let Some(pod) = &change.new else { return };
        match pods::node_name(pod) {
            None if pod.metadata.is_deleting() => changed.add(change.key()),
            Some(node) => match known.get("", node) {
                None => changed.add_after(change.key(), QUARANTINE),
                Some(node) if pod.metadata.is_deleting() && is_out_of_service(&node) => changed.add(change.key()),
                Some(_) => {}
            },
            None => {}
        }
        if pods::is_finished(pod) && !change.old.as_deref().is_some_and(pods::is_finished) {
            changed.add_after(ended(), COUNT_EVERY);
        }
    });
    let ready = (nodes.clone(), pods.clone());
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 2, Arc::new(Driver { ctx, nodes, pods }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

fn is_out_of_service(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE && taint.effect == NO_EXECUTE)
}

/// The oldest of the ended pods beyond `max`.
fn surplus(pods: impl Iterator<Item = Arc<Pod>>, max: usize) -> Vec<Arc<Pod>> {
    let mut ended: Vec<_> = pods.filter(|pod| pods::is_finished(pod) && !pod.metadata.is_deleting()).collect();
    ended.sort_by_key(|pod| (pods::created(pod), pod.metadata.name.clone()));
    ended.truncate(ended.len().saturating_sub(max));
    ended
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        if *key == ended() {
            for pod in surplus(self.pods.store().iter(), self.ctx.config.terminated_pods_max) {
                self.remove(&pod, None).await?;
            }
            return Ok(Next::Event);
        }
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let Some(node) = pods::node_name(&pod) else {
            if pod.metadata.is_deleting() {
                self.remove(&pod, None).await?;
            }
            return Ok(Next::Event);
        };
        if let Some(node) = self.nodes.get("", node) {
            let reason = Reason {
                reason: "DeletionByPodGC",
                message: "PodGC: deleting terminating pod from an out-of-service node",
            };
            if pod.metadata.is_deleting() && is_out_of_service(&node) {
                self.remove(&pod, Some(reason)).await?;
            }
            return Ok(Next::Event);
        }
        if self.ctx.client.find::<Node>("", node).await?.is_none() {
            let reason = Reason { reason: "DeletionByPodGC", message: "PodGC: node no longer exists" };
            self.remove(&pod, Some(reason)).await?;
        }
        Ok(Next::Event)
    }
}

impl Driver {
    async fn remove(&self, pod: &Pod, reason: Option<Reason>) -> Result<()> {
        let options = DeleteOptions::uid(pod.metadata.uid()).grace(0);
        if let Some(reason) = reason {
            let now = self.ctx.clock.now();
            return disruption::mark_and_delete(&self.ctx.client, pod, now, reason, Phase::Failed, &options).await;
        }
        if !pods::is_finished(pod) {
            // Somebody may wait for its end (the Job that counts it): nobody else will tell it.
            let failed = json!({"metadata": {"uid": pod.metadata.uid()}, "status": {"phase": "Failed"}});
            let (namespace, name) = (pod.metadata.ns(), pod.metadata.id());
            let patch = Patch::Strategic(failed);
            match self.ctx.client.patch_subresource::<Pod>(namespace, name, "status", &patch).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        match self.ctx.client.delete::<Pod>(pod.metadata.ns(), pod.metadata.id(), &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}
