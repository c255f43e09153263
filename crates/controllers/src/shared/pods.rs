//! What controllers ask of pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use skiff_base::Timestamp;
use skiff_client::time::from_time;
use skiff_client::{Informer, Informers, ObjectKey};

use super::Meta;

/// The index of pods by their controller's uid, or by `orphans_of(namespace)`.
pub(crate) const INDEX_CONTROLLER: &str = "controller";

/// The index of pods by the node they are placed on.
pub(crate) const INDEX_NODE: &str = "node";

/// The value under which [`INDEX_CONTROLLER`] files the pods of `namespace` without controller.
pub(crate) fn orphans_of(namespace: &str) -> String {
    format!("/{namespace}")
}

/// All pods, indexed by controller and node.
pub(crate) fn informer(informers: &Informers) -> Informer<Pod> {
    informers
        .of::<Pod>()
        .with_index(INDEX_CONTROLLER, |pod| {
            let controller = pod.metadata.controller().map(|owner| owner.uid.clone());
            vec![controller.unwrap_or_else(|| orphans_of(pod.metadata.ns()))]
        })
        .with_index(INDEX_NODE, |pod| node_name(pod).map(str::to_owned).into_iter().collect())
}

/// The key of the controller of `pod`, when it is of this kind.
pub(crate) fn controller_key(pod: &Pod, kind: &str) -> Option<ObjectKey> {
    let owner = pod.metadata.controller().filter(|owner| owner.kind == kind)?;
    Some(ObjectKey::new(pod.metadata.ns(), owner.name.clone()))
}

pub(crate) fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

pub(crate) fn phase(pod: &Pod) -> &str {
    status(pod).and_then(|status| status.phase.as_deref()).unwrap_or("")
}

pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    status(pod)?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither ended nor on its way out.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !pod.metadata.is_deleting()
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready")
        .filter(|ready| ready.status == "True")
        .map(|ready| ready.last_transition_time.as_ref().map_or(Timestamp::EPOCH, from_time))
}

/// When the pod will have been ready for `min_ready_secs`; `None` while it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready_secs: i32) -> Option<Timestamp> {
    let seconds = u64::try_from(min_ready_secs).unwrap_or(0);
    ready_since(pod).map(|since| since.plus(Duration::from_secs(seconds)))
}

pub(crate) fn is_available(pod: &Pod, min_ready_secs: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_secs).is_some_and(|at| min_ready_secs == 0 || at <= now)
}

/// How long until another of `pods` becomes available; `None` when none waits for that.
pub(crate) fn next_available<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    min_ready_secs: i32,
    now: Timestamp,
) -> Option<Duration> {
    pods.filter_map(|pod| available_at(pod, min_ready_secs)).filter(|at| *at > now).min().map(|at| at.since(now))
}

/// When the object was made.
pub(crate) fn created(pod: &Pod) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::EPOCH, from_time)
}

/// The most restarts of any container.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let containers = status(pod).and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    containers.iter().map(|container| container.restart_count).max().unwrap_or(0)
}
