//! What a Deployment tells about itself.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use skiff_base::Timestamp;
use skiff_client::time::{from_time, to_time};

use super::plan::{Limits, spec_replicas, sum};
use crate::shared::Meta;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The status that `sets` give. Progress is judged only while `rolling_out`.
pub(super) fn status(
    now: Timestamp,
    deployment: &Deployment,
    limits: &Limits,
    new: Option<&ReplicaSet>,
    sets: &[Arc<ReplicaSet>],
    rolling_out: bool,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let of = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let available = sum(sets, |set| of(set).available_replicas);
    let asked = sum(sets, |set| Some(spec_replicas(set)));
    let positive = |count: i32| Some(count).filter(|count| *count > 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(sum(sets, |set| Some(of(set).replicas))),
        updated_replicas: positive(new.map_or(0, |new| of(new).replicas)),
        ready_replicas: positive(sum(sets, |set| of(set).ready_replicas)),
        available_replicas: positive(available),
        unavailable_replicas: positive(asked - available),
        terminating_replicas: Some(sum(sets, |set| of(set).terminating_replicas)),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let mut conditions = Conditions { now, list: status.conditions.take().unwrap_or_default() };
    let (state, reason, message) = if available >= limits.min_available() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    conditions.set(AVAILABLE, state, reason, message.to_owned());
    pause(deployment, &mut conditions);
    if rolling_out {
        progress(now, deployment, &before, &status, new, &mut conditions);
    }
    replica_failure(sets, new, &mut conditions);
    status.conditions = Some(conditions.list);
    status
}

/// Whether every pod is of the new template and available, and the controller has seen the newest
/// wish.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let reached = |count: Option<i32>| count.unwrap_or(0) == wanted;
    reached(status.updated_replicas)
        && reached(status.replicas)
        && reached(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

/// When progress will have been too slow; `None` when nothing is awaited.
pub(super) fn progress_deadline(
    now: Timestamp,
    deployment: &Deployment,
    status: &DeploymentStatus,
) -> Option<Duration> {
    let deadline = deadline(deployment)?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let progressing = conditions.iter().find(|condition| condition.type_ == PROGRESSING)?;
    let settled = matches!(progressing.reason.as_deref(), Some(NEW_SET_AVAILABLE | DEADLINE_EXCEEDED | PAUSED));
    if settled || is_complete(deployment, status) {
        return None;
    }
    let updated = progressing.last_update_time.as_ref().map(from_time)?;
    // One second more: the condition's time was cut to seconds.
    Some(updated.plus(deadline + Duration::from_secs(1)).since(now))
}

/// `status` with the failed creation of the new ReplicaSet told.
pub(super) fn create_failed(now: Timestamp, status: &DeploymentStatus, message: &str) -> DeploymentStatus {
    let mut status = status.clone();
    let mut conditions = Conditions { now, list: status.conditions.take().unwrap_or_default() };
    conditions.set(PROGRESSING, "False", "ReplicaSetCreateError", message.to_owned());
    status.conditions = Some(conditions.list);
    status
}

fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn pause(deployment: &Deployment, conditions: &mut Conditions) {
    if deadline(deployment).is_none() {
        return;
    }
    let paused = deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true));
    let reason = conditions.get(PROGRESSING).and_then(|condition| condition.reason.clone()).unwrap_or_default();
    if reason == DEADLINE_EXCEEDED {
        return;
    }
    if paused && reason != PAUSED {
        conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into());
    } else if !paused && reason == PAUSED {
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into());
    }
}

fn progress(
    now: Timestamp,
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    new: Option<&ReplicaSet>,
    conditions: &mut Conditions,
) {
    let Some(deadline) = deadline(deployment) else {
        conditions.remove(PROGRESSING);
        return;
    };
    let subject = match new {
        Some(new) => format!("ReplicaSet {:?}", new.metadata.id()),
        None => format!("Deployment {:?}", deployment.metadata.id()),
    };
    let current = conditions.get(PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref()).unwrap_or("");
    // Once complete, scaling and pod failures are no matter of progress.
    if status.replicas == status.updated_replicas && reason == NEW_SET_AVAILABLE {
        return;
    }
    if is_complete(deployment, status) {
        conditions.set(PROGRESSING, "True", NEW_SET_AVAILABLE, format!("{subject} has successfully progressed."));
    } else if has_progressed(before, status) || current.is_none() {
        // Set anew even with the same reason: the deadline counts from the last progress.
        let (reason, message) = match (&current, new) {
            (None, Some(new)) => ("FoundNewReplicaSet", format!("Found new replica set {:?}", new.metadata.id())),
            (None, None) => ("NewReplicaSetCreated", "Created new replica set".to_owned()),
            _ => ("ReplicaSetUpdated", format!("{subject} is progressing.")),
        };
        let since = current.filter(|condition| condition.status == "True").and_then(|c| c.last_transition_time);
        conditions.remove(PROGRESSING);
        conditions.set(PROGRESSING, "True", reason, message);
        if let (Some(since), Some(condition)) = (since, conditions.list.last_mut()) {
            condition.last_transition_time = Some(since);
        }
    } else if reason != NEW_SET_AVAILABLE && reason != PAUSED {
        let updated = current.as_ref().and_then(|condition| condition.last_update_time.as_ref()).map(from_time);
        if reason == DEADLINE_EXCEEDED || updated.is_some_and(|updated| updated.plus(deadline) < now) {
            conditions.set(PROGRESSING, "False", DEADLINE_EXCEEDED, format!("{subject} has timed out progressing."));
        }
    }
}

fn has_progressed(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    status.updated_replicas > before.updated_replicas
        || old(status) < old(before)
        || status.ready_replicas > before.ready_replicas
        || status.available_replicas > before.available_replicas
}

fn replica_failure(sets: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>, conditions: &mut Conditions) {
    let failure = |set: &ReplicaSet| {
        let list = set.status.as_ref()?.conditions.as_ref()?;
        list.iter().find(|condition| condition.type_ == REPLICA_FAILURE).cloned()
    };
    match new.and_then(failure).or_else(|| sets.iter().find_map(|set| failure(set))) {
        Some(failure) => conditions.set(
            REPLICA_FAILURE,
            &failure.status,
            failure.reason.as_deref().unwrap_or(""),
            failure.message.unwrap_or_default(),
        ),
        None => conditions.remove(REPLICA_FAILURE),
    }
}

struct Conditions {
    now: Timestamp,
    list: Vec<DeploymentCondition>,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|condition| condition.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|condition| condition.type_ != kind);
    }

    /// Sets a condition; the same status and reason again change nothing.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let present = self.get(kind);
        if present.is_some_and(|found| found.status == status && found.reason.as_deref() == Some(reason)) {
            return;
        }
        let since = present.filter(|found| found.status == status).and_then(|c| c.last_transition_time.clone());
        self.remove(kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(to_time(self.now)),
            last_transition_time: Some(since.unwrap_or_else(|| to_time(self.now))),
        });
    }
}
