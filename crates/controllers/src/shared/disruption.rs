//! The condition that tells a pod (and its Job) why the cluster ends it.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use skiff_base::Timestamp;
use skiff_client::time::to_time;
use skiff_client::{Client, DeleteOptions, Patch, Result};

use super::Meta;

/// Why the cluster ends a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason {
    pub(crate) reason: &'static str,
    pub(crate) message: &'static str,
}

/// What a pod is told before it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It may still end by itself.
    Keep,
    /// Nobody is left who could report its end.
    Failed,
}

/// Marks `pod` with `reason` and deletes it. A pod that is gone already is fine.
///
/// # Errors
/// The request that failed.
pub(crate) async fn mark_and_delete(
    client: &Client,
    pod: &Pod,
    now: Timestamp,
    reason: Reason,
    phase: Phase,
    options: &DeleteOptions,
) -> Result<()> {
    let (namespace, name) = (pod.metadata.ns(), pod.metadata.id());
    let mut status = json!({"conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason.reason,
        "message": reason.message,
        "lastTransitionTime": to_time(now),
    }]});
    if phase == Phase::Failed && !super::pods::is_finished(pod) {
        status["phase"] = json!("Failed");
    }
    let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid()}, "status": status}));
    let marked = client.patch_subresource::<Pod>(namespace, name, "status", &patch).await;
    gone_is_fine(marked.map(drop))?;
    gone_is_fine(client.delete::<Pod>(namespace, name, options).await)
}

fn gone_is_fine(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
