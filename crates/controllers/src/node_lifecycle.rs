//! Nodes that fall silent become `Unknown`; nodes in trouble are tainted; pods on lost nodes are
//! told to be unready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::jiff;
use parking_lot::Mutex;
use serde_json::json;
use skiff_base::Timestamp;
use skiff_client::time::{from_time, to_time};
use skiff_client::{
    Informer, Next, ObjectKey, Patch, Reconcile, Result, Selection, Severity, WorkQueue, run_controller,
};

use crate::Context;
use crate::shared::taints::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE, UNREACHABLE,
    UNSCHEDULABLE, taints,
};
use crate::shared::{Meta, batch, pods};

pub(crate) const NAME: &str = "node-controller";

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// A node that has never reported gets this long.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// The conditions a kubelet reports.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

struct Driver {
    ctx: Context,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    signs: Mutex<BTreeMap<String, Sign>>,
}

/// The last sign of life of a node, timed by **our** clock: the node's may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sign {
    renewed: Option<jiff::Timestamp>,
    heartbeat: Option<jiff::Timestamp>,
    seen: Timestamp,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let nodes = ctx.informers.of::<Node>();
    let leases = ctx.informers.selected::<Lease>(LEASE_NAMESPACE, Selection::default());
    let pods = pods::informer(&ctx.informers);
    let added = queue.clone();
    nodes.subscribe(move |change| added.add(change.key()));
    let (renewed, known) = (queue.clone(), nodes.clone());
    leases.subscribe(move |change| {
        let name = change.key().name;
        if known.get("", &name).is_some() {
            renewed.add(ObjectKey::new("", name));
        }
    });
    let ready = (nodes.clone(), leases.clone(), pods.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, nodes, leases, pods, signs: Mutex::default() };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
    });
}

/// What a node needs.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Its conditions, when they must change.
    conditions: Option<Vec<NodeCondition>>,
    /// Its taints, when they must change.
    taints: Option<Vec<Taint>>,
    /// Whether its pods must be told that they are not ready.
    unready_pods: bool,
    /// When silence would become too long.
    again: Option<Duration>,
}

/// `cluster_lost` when no node at all is ready: then it is more likely we who are cut off, and
/// nothing is evicted.
fn plan(now: Timestamp, node: &Node, seen: Timestamp, grace: Duration, cluster_lost: bool) -> Plan {
    let mut conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let reported = conditions.iter().any(|condition| condition.type_ == "Ready");
    let grace = if reported { grace } else { STARTUP_GRACE };
    let silent = now.since(seen) >= grace;
    let mut plan = Plan::default();
    if silent {
        if silence(now, node, &mut conditions) {
            plan.conditions = Some(conditions.clone());
        }
    } else {
        plan.again = Some(seen.plus(grace).since(now));
    }
    let status = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
    };
    plan.unready_pods = status("Ready").is_some_and(|ready| ready != "True");
    plan.taints = plan_taints(now, node, status, cluster_lost);
    plan
}

/// Turns what a silent kubelet last reported into "unknown"; tells whether anything changed.
fn silence(now: Timestamp, node: &Node, conditions: &mut Vec<NodeCondition>) -> bool {
    let mut changed = false;
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => {
                conditions.push(NodeCondition {
                    type_: kind.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(to_time(now)),
                });
                changed = true;
            }
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(to_time(now));
                changed = true;
            }
            Some(_) => {}
        }
    }
    changed
}

fn plan_taints<'a>(
    now: Timestamp,
    node: &Node,
    status: impl Fn(&str) -> Option<&'a str>,
    cluster_lost: bool,
) -> Option<Vec<Taint>> {
    let ready = status("Ready");
    let (not_ready, unreachable) = (ready == Some("False") || ready.is_none(), ready == Some("Unknown"));
    let rows = [
        (NOT_READY, NO_SCHEDULE, not_ready),
        (UNREACHABLE, NO_SCHEDULE, unreachable),
        (MEMORY_PRESSURE, NO_SCHEDULE, status("MemoryPressure") == Some("True")),
        (DISK_PRESSURE, NO_SCHEDULE, status("DiskPressure") == Some("True")),
        (PID_PRESSURE, NO_SCHEDULE, status("PIDPressure") == Some("True")),
        (NETWORK_UNAVAILABLE, NO_SCHEDULE, status("NetworkUnavailable") == Some("True")),
        (UNSCHEDULABLE, NO_SCHEDULE, node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))),
        (NOT_READY, NO_EXECUTE, ready == Some("False") && !cluster_lost),
        (UNREACHABLE, NO_EXECUTE, unreachable && !cluster_lost),
    ];
    let ours = |taint: &Taint, key: &str, effect: &str| taint.key == key && taint.effect == effect;
    let mut wanted = taints(node).to_vec();
    for (key, effect, holds) in rows {
        let present = wanted.iter().any(|taint| ours(taint, key, effect));
        if holds && !present {
            wanted.push(Taint { key: key.into(), effect: effect.into(), time_added: Some(to_time(now)), value: None });
        } else if !holds && present {
            wanted.retain(|taint| !ours(taint, key, effect));
        }
    }
    (wanted != taints(node)).then_some(wanted)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(node) = self.nodes.get("", &key.name) else {
            self.signs.lock().remove(&key.name);
            return Ok(Next::Event);
        };
        let now = self.ctx.clock.now();
        let seen = self.last_seen(&node, now);
        let grace = Duration::from_secs(u64::from(self.ctx.config.node_grace_secs));
        let cluster_lost = !self.nodes.store().iter().any(|other| is_ready(&other));
        let plan = plan(now, &node, seen, grace, cluster_lost);
        if let Some(conditions) = plan.conditions {
            let mut changed = Node::clone(&node);
            changed.status.get_or_insert_default().conditions = Some(conditions);
            self.ctx.client.replace_status(&changed).await?;
            self.ctx.events.record(
                &*node,
                Severity::Normal,
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", key.name),
            );
            // The event of this write brings us back for the taints.
        } else if let Some(taints) = plan.taints {
            let patch =
                json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
            self.ctx.client.patch::<Node>("", &key.name, &Patch::Merge(patch)).await?;
        }
        if plan.unready_pods {
            self.unready_pods(&key.name, now).await?;
        }
        Ok(plan.again.map_or(Next::Event, Next::After))
    }
}

impl Driver {
    /// When the node last renewed its lease or reported its status, by our clock.
    fn last_seen(&self, node: &Node, now: Timestamp) -> Timestamp {
        let name = node.metadata.id();
        let lease = self.leases.get(LEASE_NAMESPACE, name);
        let renewed = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let created = node.metadata.creation_timestamp.as_ref().map_or(now, from_time);
        let mut signs = self.signs.lock();
        let first = if renewed.is_none() && heartbeat.is_none() { created } else { now };
        let sign = signs.entry(name.to_owned()).or_insert(Sign { renewed, heartbeat, seen: first });
        if (sign.renewed, sign.heartbeat) != (renewed, heartbeat) {
            *sign = Sign { renewed, heartbeat, seen: now };
        }
        sign.seen
    }

    /// Endpoints must not lead to pods that nobody watches.
    async fn unready_pods(&self, node: &str, now: Timestamp) -> Result<()> {
        let store = self.pods.store();
        let ready = store.indexed(pods::INDEX_NODE, node).filter(|pod| pods::is_ready(pod));
        batch::all(ready.collect::<Vec<_>>(), |pod| async move {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": to_time(now)});
            let patch = json!({"metadata": {"uid": pod.metadata.uid()}, "status": {"conditions": [condition]}});
            let (namespace, name) = (pod.metadata.ns(), pod.metadata.id());
            let patch = Patch::Strategic(patch);
            match self.ctx.client.patch_subresource::<Pod>(namespace, name, "status", &patch).await {
                Ok(_) => {
                    self.ctx.events.record(&*pod, Severity::Warning, "NodeNotReady", "Node is not ready");
                    Ok(())
                }
                Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, NodeStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// Conditions as `Ready=True`; a last word `cordoned`.
    #[track_caller]
    fn check(text: &str, silent_secs: i64, lost: bool, conditions: &[&str], wanted: &[&str]) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let listed = words.iter().filter_map(|word| word.split_once('=')).map(|(kind, status)| NodeCondition {
            type_: kind.into(),
            status: status.into(),
            ..NodeCondition::default()
        });
        let node = Node {
            metadata: ObjectMeta::default(),
            spec: Some(NodeSpec { unschedulable: Some(words.contains(&"cordoned")), ..NodeSpec::default() }),
            status: Some(NodeStatus { conditions: Some(listed.collect()), ..NodeStatus::default() }),
        };
        let now = Timestamp::from_secs(1_000);
        let seen = Timestamp::from_secs(1_000 - silent_secs);
        let plan = plan(now, &node, seen, Duration::from_secs(50), lost);
        let found: Vec<_> = plan.conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.status)).collect();
        assert_eq!(found, conditions);
        let taints: Vec<_> = plan.taints.iter().flatten().map(|t| format!("{}:{}", t.key, t.effect)).collect();
        assert_eq!(taints, wanted);
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_unreachable() {
        check("Ready=True MemoryPressure=False DiskPressure=False PIDPressure=False", 49, false, &[], &[]);
        check(
            "Ready=True MemoryPressure=False DiskPressure=False PIDPressure=False",
            50,
            false,
            &["Ready=Unknown", "MemoryPressure=Unknown", "DiskPressure=Unknown", "PIDPressure=Unknown"],
            &["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"],
        );
    }

    #[test]
    fn nothing_is_evicted_when_every_node_seems_lost() {
        check("Ready=False", 1, true, &[], &["node.kubernetes.io/not-ready:NoSchedule"]);
    }

    #[test]
    fn trouble_and_cordoning_become_taints() {
        check(
            "Ready=True DiskPressure=True cordoned",
            1,
            false,
            &[],
            &["node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"],
        );
    }
}
