//! Pods leave nodes with `NoExecute` taints they do not tolerate (any longer).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use skiff_base::Timestamp;
use skiff_client::time::from_time;
use skiff_client::{DeleteOptions, Informer, Next, ObjectKey, Reconcile, Result, Severity, WorkQueue, run_controller};

use crate::Context;
use crate::shared::disruption::{self, Phase, Reason};
use crate::shared::taints::{NO_EXECUTE, taints, tolerates};
use crate::shared::{Meta, pods};

pub(crate) const NAME: &str = "node-controller";

struct Driver {
    ctx: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let nodes = ctx.informers.of::<Node>();
    let pods = pods::informer(&ctx.informers);
    let (of_node, tainted) = (pods.clone(), queue.clone());
    nodes.subscribe(move |change| {
        let before = change.old.as_deref().map(lasting).unwrap_or_default();
        let after = change.new.as_deref().map(lasting).unwrap_or_default();
        if before != after {
            for pod in of_node.store().indexed(pods::INDEX_NODE, &change.key().name) {
                tainted.add(ObjectKey::of(&pod.metadata));
            }
        }
    });
    let (placed, known) = (queue.clone(), nodes.clone());
    pods.subscribe(move |change| {
        let Some(pod) = &change.new else { return };
        let was_placed = change.old.as_deref().and_then(pods::node_name).is_some();
        let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
        let same = was_placed && change.old.as_deref().map(tolerations) == Some(tolerations(pod));
        let Some(node) = pods::node_name(pod).filter(|_| !same) else { return };
        if known.get("", node).is_some_and(|node| !lasting(&node).is_empty()) {
            placed.add(change.key());
        }
    });
    let ready = (nodes.clone(), pods.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    run_controller(&tasks, "taint-eviction", queue, workers, Arc::new(Driver { ctx, nodes, pods }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

fn lasting(node: &Node) -> Vec<Taint> {
    taints(node).iter().filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

/// When a pod must go that has these tolerations; `None` when it may stay for ever.
fn plan(now: Timestamp, taints: &[Taint], tolerations: &[Toleration]) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let covering: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if covering.is_empty() {
            return Some(now);
        }
        let since = taint.time_added.as_ref().map_or(now, from_time);
        let bounded = covering.iter().filter_map(|toleration| toleration.toleration_seconds);
        if let Some(seconds) = bounded.min() {
            let until = since.plus(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            earliest = Some(earliest.map_or(until, |earliest| earliest.min(until)));
        }
    }
    earliest
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|pod| !pod.metadata.is_deleting()) else {
            return Ok(Next::Event);
        };
        let node = pods::node_name(&pod).and_then(|name| self.nodes.get("", name));
        let taints = node.as_deref().map(lasting).unwrap_or_default();
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
        let now = self.ctx.clock.now();
        match plan(now, &taints, &tolerations) {
            None => Ok(Next::Event),
            Some(at) if at > now => Ok(Next::After(at.since(now))),
            Some(_) => {
                let message = format!("Marking for deletion Pod {key}");
                self.ctx.events.record(&*pod, Severity::Normal, "TaintManagerEviction", message);
                let reason = Reason {
                    reason: "DeletionByTaintManager",
                    message: "Taint manager: deleting due to NoExecute taint",
                };
                let options = DeleteOptions::uid(pod.metadata.uid());
                disruption::mark_and_delete(&self.ctx.client, &pod, now, reason, Phase::Keep, &options).await?;
                Ok(Next::Event)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use skiff_client::time::to_time;

    use super::*;

    #[track_caller]
    fn check(taints: &[&str], tolerations: &[(&str, Option<i64>)], expected: Option<i64>) {
        let taint = |key: &&str| Taint {
            key: (*key).into(),
            effect: NO_EXECUTE.into(),
            time_added: Some(to_time(Timestamp::from_secs(100))),
            value: None,
        };
        let toleration = |(key, seconds): &(&str, Option<i64>)| Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            toleration_seconds: *seconds,
            ..Toleration::default()
        };
        let taints: Vec<_> = taints.iter().map(taint).collect();
        let tolerations: Vec<_> = tolerations.iter().map(toleration).collect();
        let at = plan(Timestamp::from_secs(150), &taints, &tolerations);
        assert_eq!(at.map(Timestamp::as_secs), expected);
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_every_taint() {
        check(&[], &[], None);
        check(&["a"], &[], Some(150));
        check(&["a"], &[("a", None)], None);
        check(&["a"], &[("a", Some(300))], Some(400));
        check(&["a", "b"], &[("a", Some(300)), ("b", Some(30))], Some(130));
        check(&["a", "b"], &[("a", Some(300))], Some(150));
        check(&["a"], &[("a", Some(300)), ("", Some(60))], Some(160));
    }
}
