//! ReplicationControllers: ReplicaSets of an older form.

use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};

use crate::Context;
use crate::replica_set::{Replicated, Wanted, start_for};
use crate::shared::selector;

pub(crate) const NAME: &str = "replication-controller";

pub(crate) fn start(ctx: Context) {
    start_for::<ReplicationController>(ctx, NAME);
}

impl Replicated for ReplicationController {
    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.as_ref()?;
        let template = spec.template.clone()?;
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
        Some(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_secs: spec.min_ready_seconds.unwrap_or(0),
            selector: selector::of_labels(spec.selector.as_ref().or(labels)?),
            template,
        })
    }

    fn observed(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.map(|conditions| {
            let convert = |condition: ReplicationControllerCondition| ReplicaSetCondition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition_time,
            };
            conditions.into_iter().map(convert).collect()
        });
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            // This kind does not tell it; the same value on both sides compares equal.
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions,
        }
    }

    fn set_observed(&mut self, status: ReplicaSetStatus) {
        let conditions = status.conditions.map(|conditions| {
            let convert = |condition: ReplicaSetCondition| ReplicationControllerCondition {
                type_: condition.type_,
                status: condition.status,
                reason: condition.reason,
                message: condition.message,
                last_transition_time: condition.last_transition_time,
            };
            conditions.into_iter().map(convert).collect()
        });
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            observed_generation: status.observed_generation,
            conditions,
        });
    }
}
