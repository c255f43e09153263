//! StatefulSets: pods with names, places and claims of their own.

mod plan;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use skiff_client::{Error, Informer, Next, ObjectKey, Reconcile, Result, Severity, WorkQueue, run_controller};

use crate::Context;
use crate::shared::claim::Claimant;
use crate::shared::revisions::{self, HASH_LABEL, History};
use crate::shared::{Meta, pods, selector, template};
use plan::{NewPod, Observed, Plan};

pub(crate) const NAME: &str = "statefulset-controller";

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

struct Driver {
    ctx: Context,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let sets = ctx.informers.of::<StatefulSet>();
    let pods = pods::informer(&ctx.informers);
    let revisions = ctx.informers.of::<ControllerRevision>();
    let added = queue.clone();
    sets.subscribe(move |change| added.add(change.key()));
    let (known, changed) = (sets.clone(), queue.clone());
    pods.subscribe(move |change| {
        for pod in change.old.iter().chain(&change.new) {
            if let Some(key) = pods::controller_key(pod, "StatefulSet") {
                changed.add(key);
            }
        }
        let Some(orphan) = change.new.filter(|pod| pod.metadata.controller().is_none()) else { return };
        for set in known.store().namespace(orphan.metadata.ns()) {
            let selects = set.spec.as_ref().is_some_and(|spec| {
                !selector::is_empty(&spec.selector)
                    && selector::matches(&spec.selector, orphan.metadata.labels.as_ref())
            });
            if selects {
                changed.add(ObjectKey::of(&set.metadata));
            }
        }
    });
    let ready = (sets.clone(), pods.clone(), revisions.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, sets, pods, revisions };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
        ready.2.synced().await;
    });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let Some(spec) = set.spec.as_ref().filter(|spec| !selector::is_empty(&spec.selector)) else {
            return Ok(Next::Event);
        };
        let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        let client = &self.ctx.client;
        let history =
            revisions::sync(client, &self.revisions, &*set, &spec.selector, &spec.template, collisions).await?;
        let Some(history) = history else {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions + 1);
            self.write_status(&set, status).await?;
            return Ok(Next::Backoff);
        };
        let owned = self.claim(&set).await?;
        let update = history.current.metadata.id();
        let known = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let exists = |name: &&str| history.all.iter().any(|revision| revision.metadata.id() == *name);
        let current = known.filter(exists).unwrap_or(update);
        let observed = Observed { set: &set, pods: &owned, current, update };
        let plan = plan::plan(self.ctx.clock.now(), &observed);
        let again = plan.again;
        self.perform(&set, &history, plan).await?;
        let used = |name: &str| {
            name == current
                || owned.iter().any(|pod| pod.metadata.label(HASH_LABEL).is_some_and(|hash| hash.ends_with(name)))
        };
        revisions::truncate(client, &history, spec.revision_history_limit.unwrap_or(10), used).await?;
        Ok(again.map_or(Next::Event, Next::After))
    }
}

impl Driver {
    async fn claim(&self, set: &StatefulSet) -> Result<Vec<Arc<Pod>>> {
        let store = self.pods.store();
        let orphans = pods::orphans_of(set.metadata.ns());
        let candidates = store
            .indexed(pods::INDEX_CONTROLLER, set.metadata.uid())
            .chain(store.indexed(pods::INDEX_CONTROLLER, &orphans));
        let ours = |pod: &Arc<Pod>| plan::ordinal(set.metadata.id(), pod.metadata.id()).is_some();
        let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        let claimant = Claimant { owner: set, selector: &selector };
        claimant.perform(&self.ctx.client, claimant.plan(candidates.filter(ours))).await
    }

    async fn perform(&self, set: &StatefulSet, history: &History, plan: Plan) -> Result<()> {
        for new in &plan.create {
            match self.create(set, history, new).await {
                // Our cache is behind, or a foreign pod has the name: its event brings us back.
                Err(error) if error.is_already_exists() => {}
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => {
                    self.write_status(set, plan.status).await?;
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        for pod in &plan.delete {
            self.delete(set, pod).await?;
        }
        self.write_status(set, plan.status).await
    }

    async fn create(&self, set: &StatefulSet, history: &History, new: &NewPod) -> Result<()> {
        let revision = history.all.iter().find(|revision| revision.metadata.id() == new.revision);
        let template = revision.and_then(|revision| revisions::template_of(revision));
        let present = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
        let mut pod = template::pod(set, &template.unwrap_or(present));
        identify(set, new, &mut pod);
        for claim in claims(set, new.ordinal) {
            self.create_claim(set, &claim).await?;
        }
        let name = pod.metadata.id().to_owned();
        match self.ctx.client.create(&pod).await {
            Ok(_) => {
                self.record(set, Severity::Normal, "SuccessfulCreate", "create", &name, None);
                Ok(())
            }
            Err(error) => {
                if !error.is_already_exists() && !error.is_namespace_terminating() {
                    self.record(set, Severity::Warning, "FailedCreate", "create", &name, Some(&error));
                }
                Err(error)
            }
        }
    }

    async fn create_claim(&self, set: &StatefulSet, claim: &PersistentVolumeClaim) -> Result<()> {
        match self.ctx.client.create(claim).await {
            Ok(created) => {
                let message = format!("create Claim {} success", created.metadata.id());
                self.ctx.events.record(set, Severity::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<()> {
        let options = skiff_client::DeleteOptions::uid(pod.metadata.uid());
        let name = pod.metadata.id();
        match self.ctx.client.delete::<Pod>(pod.metadata.ns(), name, &options).await {
            Ok(()) => {
                self.record(set, Severity::Normal, "SuccessfulDelete", "delete", name, None);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => {
                self.record(set, Severity::Warning, "FailedDelete", "delete", name, Some(&error));
                Err(error)
            }
        }
    }

    fn record(
        &self,
        set: &StatefulSet,
        severity: Severity,
        reason: &str,
        verb: &str,
        pod: &str,
        error: Option<&Error>,
    ) {
        let outcome =
            error.map_or_else(|| "successful".to_owned(), |error| format!("failed error: {}", template::text(error)));
        let message = format!("{verb} Pod {pod} in StatefulSet {} {outcome}", set.metadata.id());
        self.ctx.events.record(set, severity, reason, message);
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = Some(status);
        match self.ctx.client.replace_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Gives `pod` its name, place and claims.
fn identify(set: &StatefulSet, new: &NewPod, pod: &mut Pod) {
    let name = format!("{}-{}", set.metadata.id(), new.ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), new.ordinal.to_string());
    labels.insert(HASH_LABEL.into(), new.revision.clone());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let volumes = spec.volumes.get_or_insert_default();
    for (template, claim) in templates(set).iter().zip(claims(set, new.ordinal)) {
        volumes.retain(|volume| volume.name != template.metadata.id());
        volumes.push(Volume {
            name: template.metadata.id().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.id().to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

/// The claims of the pod at `ordinal`.
fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let labels = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(format!("{}-{}-{ordinal}", template.metadata.id(), set.metadata.id()));
        claim.metadata.namespace = set.metadata.namespace.clone();
        claim.metadata.labels.get_or_insert_default().extend(labels.clone().unwrap_or_default());
        claim.status = None;
        claim
    };
    templates(set).iter().map(claim).collect()
}
