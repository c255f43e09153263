//! Deployments: ReplicaSets, one per revision of the template, scaled against each other.
//!
//! Map: `plan` (what to do), `scale` (how many pods each revision gets), `status` (what is told);
//! the driver is here.

mod plan;
mod scale;
mod status;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use skiff_client::{
    DeleteOptions, Error, Informer, Next, ObjectKey, Reconcile, Result, Severity, WorkQueue, run_controller,
};

use crate::Context;
use crate::shared::claim::Claimant;
use crate::shared::{Meta, pods, selector, template};
use plan::{Observed, Step};

pub(crate) const NAME: &str = "deployment-controller";

/// The annotations by which revisions and sizes are remembered on ReplicaSets.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

struct Driver {
    ctx: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let deployments = ctx.informers.of::<Deployment>();
    let sets = ctx.informers.of::<ReplicaSet>().with_owner_index();
    let pods = pods::informer(&ctx.informers);

    let added = queue.clone();
    deployments.subscribe(move |change| added.add(change.key()));
    watch_sets(&deployments, &sets, &queue);
    watch_pods(&deployments, &sets, &pods, &queue);

    let ready = (deployments.clone(), sets.clone(), pods.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, deployments, sets, pods };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
    });
}

fn watch_sets(deployments: &Informer<Deployment>, sets: &Informer<ReplicaSet>, queue: &WorkQueue) {
    let (deployments, queue) = (deployments.clone(), queue.clone());
    sets.subscribe(move |change| {
        for set in change.old.iter().chain(&change.new) {
            if let Some(owner) = set.metadata.controller().filter(|owner| owner.kind == "Deployment") {
                queue.add(ObjectKey::new(set.metadata.ns(), owner.name.clone()));
            }
        }
        let Some(set) = change.new.filter(|set| set.metadata.controller().is_none()) else { return };
        let store = deployments.store();
        for deployment in store.namespace(set.metadata.ns()) {
            let selects = deployment.spec.as_ref().is_some_and(|spec| {
                !selector::is_empty(&spec.selector) && selector::matches(&spec.selector, set.metadata.labels.as_ref())
            });
            if selects {
                queue.add(ObjectKey::of(&deployment.metadata));
            }
        }
    });
}

/// The Recreate strategy waits for the last pod to be gone.
fn watch_pods(
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    pods: &Informer<Pod>,
    queue: &WorkQueue,
) {
    let (deployments, sets, queue) = (deployments.clone(), sets.clone(), queue.clone());
    pods.subscribe(move |change| {
        let (Some(pod), None) = (&change.old, &change.new) else { return };
        let Some(set) = pods::controller_key(pod, "ReplicaSet").and_then(|key| sets.store().find(&key)) else { return };
        let Some(owner) = set.metadata.controller().filter(|owner| owner.kind == "Deployment") else { return };
        let Some(deployment) = deployments.get(pod.metadata.ns(), &owner.name) else { return };
        if plan::is_recreate(&deployment) {
            queue.add(ObjectKey::of(&deployment.metadata));
        }
    });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let Some(spec) = &deployment.spec else { return Ok(Next::Event) };
        if selector::is_empty(&spec.selector) {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.ctx.events.record(&*deployment, Severity::Warning, "SelectingAll", message);
            return Ok(Next::Event);
        }
        let claimant = Claimant { owner: &*deployment, selector: &spec.selector };
        let store = self.sets.store();
        let sets = claimant.perform(&self.ctx.client, claimant.plan(store.namespace(&key.namespace))).await?;
        let running = self.sets_with_pods(&sets);
        let observed = Observed { deployment: &deployment, sets, sets_with_pods: running };
        let plan = plan::plan(self.ctx.clock.now(), &observed);
        let mut current = Deployment::clone(&deployment);
        for step in plan.steps {
            if let Err(error) = self.perform(&mut current, step, &plan.status).await {
                return if error.is_namespace_terminating() { Ok(Next::Event) } else { Err(error) };
            }
        }
        self.write_status(&current, plan.status).await?;
        Ok(plan.again.map_or(Next::Event, Next::After))
    }
}

impl Driver {
    /// The uids of `sets` that still have pods which have not ended.
    fn sets_with_pods(&self, sets: &[Arc<ReplicaSet>]) -> Vec<String> {
        let store = self.pods.store();
        let has_pods = |uid: &str| store.indexed(pods::INDEX_CONTROLLER, uid).any(|pod| !pods::is_finished(&pod));
        sets.iter().map(|set| set.metadata.uid().to_owned()).filter(|uid| has_pods(uid)).collect()
    }

    async fn perform(&self, deployment: &mut Deployment, step: Step, status: &DeploymentStatus) -> Result<()> {
        match step {
            Step::Create(set) => self.create(deployment, *set, status).await,
            Step::Update { set, from } => {
                let to = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
                let updated = self.ctx.client.replace(&*set).await?;
                self.record_scaling(deployment, updated.metadata.id(), from, to);
                Ok(())
            }
            Step::Delete(set) => {
                let options = DeleteOptions::uid(set.metadata.uid());
                let deleted =
                    self.ctx.client.delete::<ReplicaSet>(set.metadata.ns(), set.metadata.id(), &options).await;
                match deleted {
                    Err(error) if !error.is_not_found() => Err(error),
                    _ => Ok(()),
                }
            }
            Step::SetRevision(revision) => {
                // The role of this controller may update Deployments, not patch them.
                let mut changed = deployment.clone();
                changed.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision);
                *deployment = self.ctx.client.replace(&changed).await?;
                Ok(())
            }
        }
    }

    fn record_scaling(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
            self.ctx.events.record(deployment, Severity::Normal, "ScalingReplicaSet", message);
        }
    }

    async fn create(&self, deployment: &Deployment, set: ReplicaSet, status: &DeploymentStatus) -> Result<()> {
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        match self.ctx.client.create(&set).await {
            Ok(created) => {
                if replicas > 0 {
                    let name = created.metadata.id();
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.ctx.events.record(deployment, Severity::Normal, "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.resolve_collision(deployment, &set, status, error).await,
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message =
                        format!("Failed to create new replica set {:?}: {}", set.metadata.id(), template::text(&error));
                    let failed = status::create_failed(self.ctx.clock.now(), status, &message);
                    self.ctx.events.record(deployment, Severity::Warning, "ReplicaSetCreateError", message);
                    self.write_status(deployment, failed).await?;
                }
                Err(error)
            }
        }
    }

    /// The name is taken: by ourselves (our cache is behind), or by a set of another template, and
    /// then the hash must differ.
    async fn resolve_collision(
        &self,
        deployment: &Deployment,
        wanted: &ReplicaSet,
        status: &DeploymentStatus,
        error: Error,
    ) -> Result<()> {
        let live: ReplicaSet = self.ctx.client.get(wanted.metadata.ns(), wanted.metadata.id()).await?;
        let ours = live.metadata.controller().is_some_and(|owner| owner.uid == deployment.metadata.uid());
        let templates = (plan::template_of(&live), plan::template_of(wanted));
        if ours && matches!(templates, (Some(live), Some(wanted)) if template::same(live, wanted)) {
            return Ok(());
        }
        let mut status = status.clone();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        self.write_status(deployment, status).await?;
        Err(error)
    }

    async fn write_status(&self, deployment: &Deployment, status: DeploymentStatus) -> Result<()> {
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = deployment.clone();
        changed.status = Some(status);
        match self.ctx.client.replace_status(&changed).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
