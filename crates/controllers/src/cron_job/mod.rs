//! CronJobs: Jobs when they are due.

mod schedule;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff;
use k8s_openapi::jiff::tz::TimeZone;
use skiff_base::Timestamp;
use skiff_client::time::{from_time, to_time};
use skiff_client::{
    DeleteOptions, INDEX_OWNER, Informer, Next, ObjectKey, Propagation, Reconcile, Result, Severity, View, WorkQueue,
    run_controller,
};

use crate::Context;
use crate::shared::{Meta, controller_reference};
use schedule::Schedule;

pub(crate) const NAME: &str = "cronjob-controller";

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// More missed starts than this are told: a clock may have jumped.
const MISSED_MAX: usize = 100;

/// Jobs are due to the second; a timer may fire a little early.
const TIMER_SLACK: Duration = Duration::from_millis(100);

struct Driver {
    ctx: Context,
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let cron_jobs = ctx.informers.of::<CronJob>();
    let jobs = ctx.informers.of::<Job>().with_owner_index();
    let added = queue.clone();
    cron_jobs.subscribe(move |change| added.add(change.key()));
    let changed = queue.clone();
    jobs.subscribe(move |change| {
        let owner = change.object().and_then(|job| job.metadata.controller().cloned());
        if let Some(owner) = owner.filter(|owner| owner.kind == "CronJob") {
            changed.add(ObjectKey::new(change.key().namespace, owner.name));
        }
    });
    let ready = (cron_jobs.clone(), jobs.clone());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    run_controller(&tasks, NAME, queue, workers, Arc::new(Driver { ctx, cron_jobs, jobs }), async move {
        ready.0.synced().await;
        ready.1.synced().await;
    });
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    /// The newest start that has not been made.
    start: Option<Timestamp>,
    /// How many were missed before it.
    missed: usize,
    /// The next one in the future.
    next: Option<Timestamp>,
}

/// Finds the starts after `since`; `zone` gives the calendar.
fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Due {
    let mut due = Due { start: None, missed: 0, next: None };
    let mut at = since;
    loop {
        let Some(next) = following(schedule, zone, at, now) else { return due };
        if next > now {
            due.next = Some(next);
            return due;
        }
        due.missed += usize::from(due.start.is_some());
        due.start = Some(next);
        at = next;
    }
}

fn following(schedule: &Schedule, zone: &TimeZone, at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    match schedule {
        Schedule::Every(every) => {
            // Long gaps are jumped over: only the newest start matters.
            let gaps = now.since(at).as_nanos() / every.as_nanos().max(1);
            let jump = u32::try_from(gaps.saturating_sub(1)).unwrap_or(u32::MAX);
            Some(at.plus(every.saturating_mul(jump)).plus(*every))
        }
        Schedule::Calendar(calendar) => {
            let civil = jiff::Timestamp::from_second(at.as_secs()).ok()?.to_zoned(zone.clone()).datetime();
            let mut next = calendar.next(civil)?;
            // At the end of summer time the hour comes twice: the first passage may lie behind.
            for _ in 0..2 {
                let moment = next.to_zoned(zone.clone()).ok()?.timestamp();
                let moment = Timestamp::from_secs(moment.as_second());
                if moment > at {
                    return Some(moment);
                }
                next = calendar.next(next)?;
            }
            None
        }
    }
}

/// The time zone called `name`; UTC without a name.
fn zone(name: Option<&str>) -> std::result::Result<TimeZone, String> {
    let name = match name {
        None | Some("" | "UTC" | "Etc/UTC") => return Ok(TimeZone::UTC),
        Some(name) => name,
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/_+-".contains(letter);
    if !name.chars().all(plain) || name.starts_with('/') {
        return Err(format!("unknown time zone {name}"));
    }
    let bytes = std::fs::read(format!("/usr/share/zoneinfo/{name}"))
        .map_err(|error| format!("unknown time zone {name}: {error}"))?;
    TimeZone::tzif(name, &bytes).map_err(|error| error.to_string())
}

fn is_finished(job: &Job) -> Option<&'static str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().filter(|condition| condition.status == "True").find_map(|condition| {
        match condition.type_.as_str() {
            "Complete" => Some("Complete"),
            "Failed" => Some("Failed"),
            _ => None,
        }
    })
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(cron) = self.cron_jobs.get(&key.namespace, &key.name) else { return Ok(Next::Event) };
        let spec = &cron.spec;
        let jobs: Vec<Arc<Job>> = self.jobs.store().indexed(INDEX_OWNER, cron.metadata.uid()).collect();
        let mut status = self.settle(&cron, &jobs);
        self.trim(&cron, &jobs).await?;
        if cron.metadata.is_deleting() || spec.suspend == Some(true) {
            self.write_status(&cron, status).await?;
            return Ok(Next::Event);
        }
        let (schedule, zone) = match (schedule::parse(&spec.schedule), zone(spec.time_zone.as_deref())) {
            (Ok(schedule), Ok(zone)) => (schedule, zone),
            (Err(cause), _) => {
                let message = format!("unparseable schedule: {:?} : {cause}", spec.schedule);
                self.ctx.events.record(&*cron, Severity::Warning, "UnparseableSchedule", message);
                self.write_status(&cron, status).await?;
                return Ok(Next::Event);
            }
            (_, Err(cause)) => {
                self.ctx.events.record(&*cron, Severity::Warning, "UnknownTimeZone", cause);
                self.write_status(&cron, status).await?;
                return Ok(Next::Event);
            }
        };
        let now = self.ctx.clock.now();
        let due = due(&schedule, &zone, self.since(&cron, now), now);
        if due.missed > MISSED_MAX {
            let message = format!(
                "too many missed start times: {}. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
                due.missed
            );
            self.ctx.events.record(&*cron, Severity::Warning, "TooManyMissedTimes", message);
        }
        let outcome = match due.start {
            Some(start) => self.start(&cron, &jobs, start, now, &zone, &mut status).await,
            None => Ok(()),
        };
        self.write_status(&cron, status).await?;
        outcome?;
        Ok(due.next.map_or(Next::Event, |next| Next::After(next.since(now) + TIMER_SLACK)))
    }
}

impl Driver {
    /// The status with its list of active Jobs brought up to date.
    fn settle(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> CronJobStatus {
        let mut status = cron.status.clone().unwrap_or_default();
        let mut active = status.active.take().unwrap_or_default();
        let running =
            |uid: Option<&str>| jobs.iter().any(|job| Some(job.metadata.uid()) == uid && is_finished(job).is_none());
        active.retain(|reference| running(reference.uid.as_deref()));
        for job in jobs.iter().filter(|job| is_finished(job).is_none()) {
            if active.iter().all(|reference| reference.uid.as_deref() != Some(job.metadata.uid())) {
                active.push(reference(job));
            }
        }
        let ended = jobs.iter().filter_map(|job| job.status.as_ref()?.completion_time.clone());
        status.last_successful_time = ended.chain(status.last_successful_time.take()).max();
        status.active = Some(active).filter(|active| !active.is_empty());
        status
    }

    /// Deletes the oldest ended Jobs beyond the history that is to be kept.
    async fn trim(&self, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<()> {
        let spec = &cron.spec;
        let limits = [
            ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let mut ended: Vec<_> = jobs.iter().filter(|job| is_finished(job) == Some(kind)).collect();
            ended.sort_by_key(|job| (job.metadata.creation_timestamp.clone(), job.metadata.name.clone()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in &ended[..surplus] {
                self.delete(cron, job).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &CronJob, job: &Job) -> Result<()> {
        let options = DeleteOptions::uid(job.metadata.uid()).propagation(Propagation::Background);
        match self.ctx.client.delete::<Job>(job.metadata.ns(), job.metadata.id(), &options).await {
            Ok(()) => {
                let message = format!("Deleted job {}", job.metadata.id());
                self.ctx.events.record(cron, Severity::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// After which moment a missed start still counts.
    fn since(&self, cron: &CronJob, now: Timestamp) -> Timestamp {
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let created = cron.metadata.creation_timestamp.as_ref();
        let since = last.or(created).map_or(now, from_time);
        let deadline = cron.spec.starting_deadline_seconds;
        match deadline.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) => since.max(now.minus(Duration::from_secs(seconds))),
            None => since,
        }
    }

    async fn start(
        &self,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        start: Timestamp,
        now: Timestamp,
        zone: &TimeZone,
        status: &mut CronJobStatus,
    ) -> Result<()> {
        let spec = &cron.spec;
        let active = status.active.as_ref().map_or(0, Vec::len);
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if active > 0 => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.ctx.events.record(cron, Severity::Normal, "JobAlreadyActive", message);
                return Ok(());
            }
            Some("Replace") => {
                for job in jobs.iter().filter(|job| is_finished(job).is_none()) {
                    self.delete(cron, job).await?;
                }
                status.active = None;
            }
            _ => {}
        }
        let job = job(cron, start, zone);
        let created = match self.ctx.client.create(&job).await {
            Ok(created) => {
                let message = format!("Created job {}", created.metadata.id());
                self.ctx.events.record(cron, Severity::Normal, "SuccessfulCreate", message);
                Some(created)
            }
            // Made in an earlier round that could not write the status.
            Err(error) if error.is_already_exists() => None,
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            Err(error) => {
                self.ctx.events.record(cron, Severity::Warning, "FailedCreate", format!("Error creating job: {error}"));
                return Err(error);
            }
        };
        status.active.get_or_insert_default().extend(created.as_ref().map(reference));
        status.active = status.active.take().filter(|active| !active.is_empty());
        status.last_schedule_time = Some(to_time(start.min(now)));
        Ok(())
    }

    async fn write_status(&self, cron: &CronJob, status: CronJobStatus) -> Result<()> {
        if cron.status.clone().unwrap_or_default() == status {
            return Ok(());
        }
        let mut changed = cron.clone();
        changed.status = Some(status);
        match self.ctx.client.replace_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::RESOURCE.api_version()),
        kind: Some(Job::RESOURCE.kind.to_string()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The Job for the start at `start`. Its name follows from that moment, so that none is made twice.
fn job(cron: &CronJob, start: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let moment = jiff::Timestamp::from_second(start.as_secs()).unwrap_or_default().to_zoned(zone.clone());
    let text = match moment.offset().seconds() {
        0 => moment.timestamp().to_string(),
        _ => moment.timestamp().display_with_offset(moment.offset()).to_string(),
    };
    annotations.insert(SCHEDULED_AT.into(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.metadata.id(), start.as_secs().div_euclid(60))),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_missed_start_counts() {
        let schedule = schedule::parse("*/5 * * * *").unwrap();
        let found = due(&schedule, &TimeZone::UTC, Timestamp::from_secs(0), Timestamp::from_secs(1_000));
        let secs = |at: Option<Timestamp>| at.map(Timestamp::as_secs);
        assert_eq!((secs(found.start), found.missed, secs(found.next)), (Some(900), 2, Some(1_200)));
        let every = schedule::parse("@every 7m").unwrap();
        let found = due(&every, &TimeZone::UTC, Timestamp::from_secs(0), Timestamp::from_secs(1_000));
        assert_eq!((secs(found.start), secs(found.next)), (Some(840), Some(1_260)));
    }

    #[test]
    fn a_job_is_named_after_its_start() {
        let cron =
            CronJob { metadata: ObjectMeta { name: Some("c".into()), ..Default::default() }, ..Default::default() };
        let job = job(&cron, Timestamp::from_secs(1_800_000_060), &TimeZone::UTC);
        assert_eq!(job.metadata.id(), "c-30000001");
        assert_eq!(job.metadata.annotation(SCHEDULED_AT), Some("2027-01-15T08:01:00Z"));
    }
}
