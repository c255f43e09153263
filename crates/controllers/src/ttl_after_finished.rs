//! Finished Jobs with `ttlSecondsAfterFinished` are deleted when that time is over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::Job;
use skiff_base::Timestamp;
use skiff_client::time::from_time;
use skiff_client::{
    DeleteOptions, Informer, Next, ObjectKey, Propagation, Reconcile, Result, WorkQueue, run_controller,
};

use crate::Context;
use crate::shared::Meta;

pub(crate) const NAME: &str = "ttl-after-finished-controller";

struct Driver {
    ctx: Context,
    jobs: Informer<Job>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let jobs = ctx.informers.of::<Job>();
    let added = queue.clone();
    jobs.subscribe(move |change| {
        if change.new.as_deref().and_then(expiry).is_some() {
            added.add(change.key());
        }
    });
    let ready = jobs.clone();
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, jobs }), async move { ready.synced().await });
}

/// When the Job is to be deleted.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = u64::try_from(job.spec.as_ref()?.ttl_seconds_after_finished?).ok()?;
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let ended = conditions
        .iter()
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")?;
    Some(from_time(ended.last_transition_time.as_ref()?).plus(Duration::from_secs(ttl)))
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let due = |job: &Job| expiry(job).filter(|_| !job.metadata.is_deleting());
        let Some(at) = self.jobs.get(&key.namespace, &key.name).as_deref().and_then(due) else {
            return Ok(Next::Event);
        };
        let now = self.ctx.clock.now();
        if at > now {
            return Ok(Next::After(at.since(now)));
        }
        // The cache may lack a longer time to live.
        let Some(live) = self.ctx.client.find::<Job>(&key.namespace, &key.name).await? else {
            return Ok(Next::Event);
        };
        if due(&live).is_none_or(|at| at > now) {
            return Ok(Next::Event);
        }
        let options = DeleteOptions::uid(live.metadata.uid()).propagation(Propagation::Foreground);
        match self.ctx.client.delete::<Job>(&key.namespace, &key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}
