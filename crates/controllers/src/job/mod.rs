//! Jobs: pods until enough of them have succeeded.
//!
//! Map: `plan` (what to do), `policy` (what failures mean), `indexes`; the driver is here.

mod indexes;
mod plan;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use parking_lot::Mutex;
use serde_json::json;
use skiff_client::{Informer, Next, ObjectKey, Patch, Reconcile, Result, Severity, WorkQueue, run_controller};

use crate::Context;
use crate::shared::batch::{self, slow_start};
use crate::shared::claim::Claimant;
use crate::shared::expectations::Expectations;
use crate::shared::{Meta, pods, selector, template};
use plan::{Backoff, NewPod, Observed, Plan};

pub(crate) const NAME: &str = "job-controller";

/// The finalizer that keeps an ended pod until it is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The annotation and label that carry a pod's index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";

/// Pods made or removed in one round.
const BURST_PODS: usize = 500;

struct Driver {
    ctx: Context,
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    expectations: Arc<Expectations>,
    backoffs: Mutex<BTreeMap<String, Backoff>>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let jobs = ctx.informers.of::<Job>();
    let pods = pods::informer(&ctx.informers);
    let expectations = Arc::new(Expectations::default());
    let (added, forgetting) = (queue.clone(), expectations.clone());
    jobs.subscribe(move |change| {
        if change.new.is_none() {
            forgetting.forget(&change.key());
        }
        added.add(change.key());
    });
    watch_pods(&jobs, &pods, &queue, &expectations);
    let ready = (jobs.clone(), pods.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let driver = Driver { ctx, jobs, pods, expectations, backoffs: Mutex::default() };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

fn watch_pods(jobs: &Informer<Job>, pods: &Informer<Pod>, queue: &WorkQueue, expectations: &Arc<Expectations>) {
    let (jobs, queue, expectations) = (jobs.clone(), queue.clone(), expectations.clone());
    pods.subscribe(move |change| {
        let Some(pod) = change.object() else { return };
        match pods::controller_key(pod, "Job") {
            Some(key) => {
                if change.new.is_none() || pod.metadata.is_deleting() {
                    expectations.deleted(&key, pod.metadata.uid());
                } else if change.old.is_none() {
                    expectations.created(&key);
                }
                queue.add(key);
            }
            None if pod.metadata.controller().is_none() && change.new.is_some() => {
                for job in jobs.store().namespace(pod.metadata.ns()) {
                    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                    if selector.is_some_and(|selector| {
                        !selector::is_empty(selector) && selector::matches(selector, pod.metadata.labels.as_ref())
                    }) {
                        queue.add(ObjectKey::of(&job.metadata));
                    }
                }
            }
            None => {}
        }
    });
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            return self.release_orphans(key).await;
        };
        let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
        if manager.is_some_and(|manager| manager != "kubernetes.io/job-controller") {
            return Ok(Next::Event);
        }
        let satisfied = self.expectations.satisfied(key);
        let owned = self.claim(&job).await?;
        if plan::is_finished(&job) {
            self.backoffs.lock().remove(job.metadata.uid());
            self.release(owned.iter().filter(|pod| pod.metadata.has_finalizer(TRACKING))).await?;
            return Ok(Next::Event);
        }
        let backoff = self.backoffs.lock().get(job.metadata.uid()).copied().unwrap_or_default();
        let observed = Observed { job: &job, pods: &owned, backoff, satisfied };
        let plan = plan::plan(self.ctx.clock.now(), &observed);
        self.perform(key, &job, plan).await
    }
}

impl Driver {
    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>> {
        let store = self.pods.store();
        let owned = store.indexed(pods::INDEX_CONTROLLER, job.metadata.uid());
        let Some(selector) = job.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
            return Ok(owned.collect());
        };
        let orphans = pods::orphans_of(job.metadata.ns());
        let candidates = owned.chain(store.indexed(pods::INDEX_CONTROLLER, &orphans));
        let claimant = Claimant { owner: job, selector };
        claimant.perform(&self.ctx.client, claimant.plan(candidates)).await
    }

    async fn perform(&self, key: &ObjectKey, job: &Job, mut plan: Plan) -> Result<Next> {
        plan.create.truncate(BURST_PODS);
        plan.delete.truncate(BURST_PODS);
        let created = self.create(key, job, &plan.create).await;
        let deleted = self.delete(key, job, &plan.delete).await;
        let active = plan.status.active.unwrap_or(0) + created.done_count - deleted.done_count;
        plan.status.active = Some(active).filter(|active| *active > 0);
        self.write_status(job, plan.status).await?;
        // Only now: a failure counts towards the pause once it is in the books.
        self.backoffs.lock().insert(job.metadata.uid().to_owned(), plan.backoff);
        self.release(plan.release.iter()).await?;
        for outcome in [created.error, deleted.error].into_iter().flatten() {
            if !outcome.is_namespace_terminating() {
                return Err(outcome);
            }
        }
        // Times of the API are cut to seconds.
        Ok(plan.again.map_or(Next::Event, |again| Next::After(again + Duration::from_millis(1_000))))
    }

    async fn create(&self, key: &ObjectKey, job: &Job, wanted: &[NewPod]) -> Done {
        self.expectations.expect_creations(key, wanted.len());
        let outcome = slow_start(wanted.len(), |at| {
            let pod = pod(job, wanted[at]);
            async move { template::create(&self.ctx.client, &self.ctx.events, job, &pod).await }
        })
        .await;
        self.expectations.created_many(key, wanted.len() - outcome.done);
        Done { done_count: crate::shared::int(outcome.done), error: outcome.error }
    }

    async fn delete(&self, key: &ObjectKey, job: &Job, pods: &[Arc<Pod>]) -> Done {
        self.expectations.expect_deletions(key, pods.iter().map(|pod| pod.metadata.uid().to_owned()));
        let outcome = batch::all(pods, |pod| async move {
            let outcome = template::delete(&self.ctx.client, &self.ctx.events, job, pod).await;
            if outcome.is_err() {
                self.expectations.deleted(key, pod.metadata.uid());
            }
            outcome
        });
        let error = outcome.await.err();
        Done { done_count: if error.is_none() { crate::shared::int(pods.len()) } else { 0 }, error }
    }

    async fn write_status(&self, job: &Job, status: JobStatus) -> Result<()> {
        if job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.record_conditions(job, &status);
        let mut changed = job.clone();
        changed.status = Some(status);
        match self.ctx.client.replace_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn record_conditions(&self, job: &Job, status: &JobStatus) {
        let before = job.status.clone().unwrap_or_default();
        let is_new = |kind: &str| plan::condition(status, kind).is_some() && plan::condition(&before, kind).is_none();
        let events = &self.ctx.events;
        if is_new("Complete") {
            events.record(job, Severity::Normal, "Completed", "Job completed");
        }
        if let Some(failed) = plan::condition(status, "Failed").filter(|_| is_new("Failed")) {
            let (reason, message) = (failed.reason.as_deref(), failed.message.clone());
            events.record(job, Severity::Warning, reason.unwrap_or("Failed"), message.unwrap_or_default());
        }
        if is_new("Suspended") {
            events.record(job, Severity::Normal, "Suspended", "Job suspended");
        }
        if plan::condition(&before, "Suspended").is_some() && plan::condition(status, "Suspended").is_none() {
            events.record(job, Severity::Normal, "Resumed", "Job resumed");
        }
    }

    /// Lets counted pods go.
    async fn release(&self, pods: impl Iterator<Item = &Arc<Pod>>) -> Result<()> {
        batch::all(pods, |pod| self.remove_finalizer(pod)).await
    }

    async fn remove_finalizer(&self, pod: &Pod) -> Result<()> {
        let patch = json!({"metadata": {"uid": pod.metadata.uid(), "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
        let (namespace, name) = (pod.metadata.ns(), pod.metadata.id());
        match self.ctx.client.patch::<Pod>(namespace, name, &Patch::Strategic(patch)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// The Job is gone; its pods must not be kept by its finalizer.
    async fn release_orphans(&self, key: &ObjectKey) -> Result<Next> {
        let store = self.pods.store();
        let kept: Vec<_> = store
            .namespace(&key.namespace)
            .filter(|pod| pods::controller_key(pod, "Job").as_ref() == Some(key))
            .filter(|pod| pod.metadata.has_finalizer(TRACKING))
            .collect();
        // The cache may be behind: a Job made a moment ago is no reason to uncount its pods.
        if kept.is_empty() || self.ctx.client.find::<Job>(&key.namespace, &key.name).await?.is_some() {
            return Ok(Next::Event);
        }
        batch::all(&kept, |pod| self.remove_finalizer(pod)).await.map(|()| Next::Event)
    }
}

struct Done {
    done_count: i32,
    error: Option<skiff_client::Error>,
}

/// The pod for `wanted`.
fn pod(job: &Job, wanted: NewPod) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = template::pod(job, &template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    let Some(index) = wanted.index else { return pod };
    let name = format!("{}-{index}", job.metadata.id());
    pod.metadata.generate_name = Some(format!("{name}-"));
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if job.spec.as_ref().is_some_and(|spec| spec.backoff_limit_per_index.is_some()) {
        annotations.insert(FAILURE_COUNT.into(), wanted.failures.to_string());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|variable| variable.name != "JOB_COMPLETION_INDEX") {
            env.push(EnvVar {
                name: "JOB_COMPLETION_INDEX".into(),
                value_from: Some(EnvVarSource {
                    field_ref: Some(ObjectFieldSelector {
                        api_version: None,
                        field_path: format!("metadata.labels['{INDEX}']"),
                    }),
                    ..EnvVarSource::default()
                }),
                ..EnvVar::default()
            });
        }
    }
    pod
}
