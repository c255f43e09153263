//! What a Job needs next. Pure.
//!
//! Ended pods are counted exactly once although neither the Job nor the pods can be written
//! together: an ended pod keeps a finalizer until its uid stands in the Job's status
//! (`uncountedTerminatedPods`), and the uid moves into the count once the finalizer is seen gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use skiff_base::Timestamp;
use skiff_client::time::{from_time, to_time};

use super::indexes;
use super::policy::{self, Verdict};
use super::{FAILURE_COUNT, INDEX, TRACKING};
use crate::shared::{Meta, int, pods, rank};

/// After a failure the next pod waits 10 s, doubling to 10 minutes.
const BACKOFF_MIN: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Uids in the status at a time; more ended pods wait for the next round.
const UNCOUNTED_MAX: usize = 500;

const FAILURE_TARGET: &str = "FailureTarget";
const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

/// Failures in a row, and when the last was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) failures: u32,
    pub(super) last: Timestamp,
}

impl Backoff {
    fn rest(self, now: Timestamp) -> Duration {
        let Some(exponent) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let pause = BACKOFF_MIN.saturating_mul(1 << exponent.min(10)).min(BACKOFF_MAX);
        self.last.plus(pause).since(now)
    }
}

/// What the driver has seen.
pub(super) struct Observed<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) backoff: Backoff,
    /// Whether the cache shows all that was asked for before.
    pub(super) satisfied: bool,
}

/// A pod to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NewPod {
    pub(super) index: Option<i32>,
    pub(super) failures: i32,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<NewPod>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that are counted (in `status`): their finalizer goes once the status is written.
    pub(super) release: Vec<Arc<Pod>>,
    pub(super) status: JobStatus,
    pub(super) backoff: Backoff,
    pub(super) again: Option<Duration>,
}

pub(super) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether the Job has ended for good.
pub(super) fn is_finished(job: &Job) -> bool {
    let ended = |status: &JobStatus| condition(status, "Complete").or(condition(status, "Failed")).is_some();
    job.status.as_ref().is_some_and(ended)
}

pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotation(INDEX).or_else(|| pod.metadata.label(INDEX))?.parse().ok()
}

/// A pod that is being deleted counts as failed at once, unless only ended ones shall be replaced.
fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.is_deleting() && !replaces_only_failed(spec),
    }
}

fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
}

struct Round<'a> {
    now: Timestamp,
    job: &'a Job,
    spec: &'a JobSpec,
    completions: Option<i32>,
    status: JobStatus,
    done: BTreeSet<i32>,
    given_up: BTreeSet<i32>,
    /// Ended pods that are in the status but not yet in its counts.
    pending: (i32, i32),
    /// The job's end as decided in this round: kind, reason, message.
    verdict: Option<(&'static str, String, String)>,
    plan: Plan,
}

/// Plans one round.
pub(super) fn plan(now: Timestamp, observed: &Observed<'_>) -> Plan {
    let default = JobSpec::default();
    let job = observed.job;
    let spec = job.spec.as_ref().unwrap_or(&default);
    let status = job.status.clone().unwrap_or_default();
    let bound = spec.completions.unwrap_or(0);
    let mut round = Round {
        now,
        job,
        spec,
        completions: spec.completions,
        done: indexes::parse(status.completed_indexes.as_deref().unwrap_or(""), bound),
        given_up: indexes::parse(status.failed_indexes.as_deref().unwrap_or(""), bound),
        status,
        pending: (0, 0),
        verdict: None,
        plan: Plan { backoff: observed.backoff, ..Plan::default() },
    };
    round.count(observed.pods);
    round.suspend_or_start();
    round.judge(observed.pods);
    round.manage(observed);
    round.report(observed.pods);
    round.plan.status = round.status;
    round.plan
}

impl Round<'_> {
    /// Counts what has ended, keeping the books described above.
    fn count(&mut self, observed: &[Arc<Pod>]) {
        let tracked: BTreeSet<&str> =
            observed.iter().filter(|pod| pod.metadata.has_finalizer(TRACKING)).map(|pod| pod.metadata.uid()).collect();
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let settle = |list: &mut Option<Vec<String>>, count: &mut Option<i32>| {
            let list = list.get_or_insert_default();
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            *count = Some(count.unwrap_or(0) + int(before - list.len())).filter(|count| *count > 0);
        };
        settle(&mut uncounted.succeeded, &mut self.status.succeeded);
        settle(&mut uncounted.failed, &mut self.status.failed);
        let known: BTreeSet<String> = uncounted.succeeded.iter().chain(&uncounted.failed).flatten().cloned().collect();
        let indexed = is_indexed(self.job);
        let (mut new_failures, mut new_success) = (0, false);
        for pod in observed.iter().filter(|pod| pod.metadata.has_finalizer(TRACKING)) {
            let uid = pod.metadata.uid();
            if self.job.metadata.is_deleting() || known.contains(uid) {
                self.plan.release.push(pod.clone());
                continue;
            }
            if self.plan.release.len() >= UNCOUNTED_MAX {
                continue;
            }
            if pods::phase(pod) == "Succeeded" {
                new_success = true;
                match index_of(pod).filter(|_| indexed) {
                    Some(index) => {
                        self.done.insert(index);
                    }
                    None => uncounted.succeeded.get_or_insert_default().push(uid.to_owned()),
                }
                self.plan.release.push(pod.clone());
            } else if has_failed(self.spec, pod) {
                self.note_failure(pod, &mut uncounted, &mut new_failures);
                self.plan.release.push(pod.clone());
            }
        }
        if new_success {
            self.plan.backoff = Backoff::default();
        } else if new_failures > 0 {
            let failures = self.plan.backoff.failures.saturating_add(new_failures);
            self.plan.backoff = Backoff { failures, last: self.now };
        }
        self.pending =
            (int(uncounted.succeeded.as_ref().map_or(0, Vec::len)), int(uncounted.failed.as_ref().map_or(0, Vec::len)));
        uncounted.succeeded = uncounted.succeeded.filter(|list| !list.is_empty());
        uncounted.failed = uncounted.failed.filter(|list| !list.is_empty());
        self.status.uncounted_terminated_pods = Some(uncounted);
    }

    fn note_failure(&mut self, pod: &Pod, uncounted: &mut UncountedTerminatedPods, new_failures: &mut u32) {
        match policy::judge(self.job, pod) {
            Verdict::Ignore => return,
            Verdict::Count => {}
            Verdict::FailIndex => self.given_up.extend(index_of(pod)),
            Verdict::FailJob(message) => {
                self.verdict = Some((FAILURE_TARGET, "PodFailurePolicy".into(), message));
            }
        }
        if let (Some(limit), Some(index)) = (self.spec.backoff_limit_per_index, index_of(pod))
            && failures_of(pod) >= limit
        {
            self.given_up.insert(index);
        }
        *new_failures += 1;
        uncounted.failed.get_or_insert_default().push(pod.metadata.uid().to_owned());
    }

    fn succeeded(&self) -> i32 {
        if is_indexed(self.job) { int(self.done.len()) } else { self.status.succeeded.unwrap_or(0) + self.pending.0 }
    }

    fn failed(&self) -> i32 {
        self.status.failed.unwrap_or(0) + self.pending.1
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn suspend_or_start(&mut self) {
        let suspended = condition(&self.status, "Suspended").is_some();
        let ending = condition(&self.status, FAILURE_TARGET).or(condition(&self.status, SUCCESS_CRITERIA_MET));
        if ending.is_some() {
            return;
        }
        if self.is_suspended() {
            if !suspended {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                self.status.start_time = None;
            }
        } else {
            if suspended {
                self.set("Suspended", "False", "JobResumed", "Job resumed");
                self.status.start_time = Some(to_time(self.now));
            }
            self.status.start_time.get_or_insert_with(|| to_time(self.now));
        }
    }

    /// Decides whether the Job is over.
    fn judge(&mut self, observed: &[Arc<Pod>]) {
        if let Some(target) = condition(&self.status, FAILURE_TARGET) {
            let (reason, message) = texts(target);
            self.verdict = Some((FAILURE_TARGET, reason, message));
            return;
        }
        if let Some(target) = condition(&self.status, SUCCESS_CRITERIA_MET) {
            let (reason, message) = texts(target);
            self.verdict = Some((SUCCESS_CRITERIA_MET, reason, message));
            return;
        }
        if self.verdict.is_some() {
            return;
        }
        let verdict = |kind, reason: &str, message: &str| Some((kind, reason.to_owned(), message.to_owned()));
        self.verdict = if self.exceeds_backoff(observed) {
            verdict(FAILURE_TARGET, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        } else if self.deadline().is_some_and(|rest| rest.is_zero()) {
            verdict(FAILURE_TARGET, "DeadlineExceeded", "Job was active longer than specified deadline")
        } else if let Some(rule) = policy::succeeded_early(self.job, &self.done) {
            verdict(SUCCESS_CRITERIA_MET, "SuccessPolicy", &format!("Matched rules at index {rule}"))
        } else if self.spec.max_failed_indexes.is_some_and(|max| int(self.given_up.len()) > max) {
            verdict(
                FAILURE_TARGET,
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            )
        } else if self.all_indexes_ended() {
            verdict(FAILURE_TARGET, "FailedIndexes", "Job has failed indexes")
        } else if self.is_complete(observed) {
            verdict(SUCCESS_CRITERIA_MET, "CompletionsReached", "Reached expected number of succeeded pods")
        } else {
            None
        };
        if self.verdict.is_none() {
            self.plan.again = self.deadline();
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.spec.active_deadline_seconds?).ok()?;
        let start = self.status.start_time.as_ref().filter(|_| !self.is_suspended())?;
        Some(from_time(start).plus(Duration::from_secs(seconds)).since(self.now))
    }

    fn exceeds_backoff(&self, observed: &[Arc<Pod>]) -> bool {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed() > limit {
            return true;
        }
        let restart = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if restart != Some("OnFailure") {
            return false;
        }
        let live = observed.iter().filter(|pod| pods::is_active(pod));
        let restarts: i32 = live.map(|pod| restarts(pod)).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn all_indexes_ended(&self) -> bool {
        let Some(completions) = self.completions.filter(|_| is_indexed(self.job)) else { return false };
        !self.given_up.is_empty() && int(self.done.union(&self.given_up).count()) >= completions
    }

    fn is_complete(&self, observed: &[Arc<Pod>]) -> bool {
        match self.completions {
            Some(completions) => self.succeeded() >= completions,
            // A work queue: one pod that succeeded says that the work is done.
            None => self.succeeded() > 0 && !observed.iter().any(|pod| pods::is_active(pod)),
        }
    }

    /// Creates and deletes pods.
    fn manage(&mut self, observed: &Observed<'_>) {
        let mut active: Vec<Arc<Pod>> = observed.pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        if !observed.satisfied || self.job.metadata.is_deleting() {
            return;
        }
        if self.verdict.is_some() || self.is_suspended() {
            self.plan.delete = active;
            return;
        }
        if is_indexed(self.job) {
            self.drop_duplicates(&mut active);
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.completions {
            None if self.succeeded() > 0 => int(active.len()),
            None => parallelism,
            Some(completions) => parallelism.min((completions - self.succeeded()).max(0)),
        };
        let surplus = usize::try_from(int(active.len()) - wanted).unwrap_or(0);
        if surplus > 0 {
            rank::by_deletion(&mut active, |_| 0, self.now);
            self.plan.delete.extend(active.into_iter().take(surplus));
            return;
        }
        let terminating = if replaces_only_failed(self.spec) { self.terminating(observed.pods) } else { 0 };
        let missing = usize::try_from(wanted - int(active.len()) - terminating).unwrap_or(0);
        if missing == 0 {
            return;
        }
        let rest = self.plan.backoff.rest(self.now);
        if !rest.is_zero() && self.spec.backoff_limit_per_index.is_none() {
            self.plan.again = Some(self.plan.again.map_or(rest, |again| again.min(rest)));
            return;
        }
        self.plan.create = if is_indexed(self.job) {
            self.new_indexes(observed.pods, &active, missing)
        } else {
            vec![NewPod { index: None, failures: 0 }; missing]
        };
    }

    fn terminating(&self, observed: &[Arc<Pod>]) -> i32 {
        int(observed.iter().filter(|pod| pod.metadata.is_deleting() && !pods::is_finished(pod)).count())
    }

    /// Two pods of one index, or pods of an index that is over, serve nothing.
    fn drop_duplicates(&mut self, active: &mut Vec<Arc<Pod>>) {
        active.sort_by_key(|pod| (index_of(pod), pods::created(pod)));
        let mut seen = BTreeSet::new();
        let completions = self.completions.unwrap_or(0);
        active.retain(|pod| {
            let fits = index_of(pod).is_some_and(|index| {
                index < completions
                    && !self.done.contains(&index)
                    && !self.given_up.contains(&index)
                    && seen.insert(index)
            });
            if !fits {
                self.plan.delete.push(pod.clone());
            }
            fits
        });
    }

    fn new_indexes(&self, observed: &[Arc<Pod>], active: &[Arc<Pod>], missing: usize) -> Vec<NewPod> {
        let mut taken: BTreeSet<i32> = active.iter().filter_map(|pod| index_of(pod)).collect();
        if replaces_only_failed(self.spec) {
            let ending = observed.iter().filter(|pod| pod.metadata.is_deleting() && !pods::is_finished(pod));
            taken.extend(ending.filter_map(|pod| index_of(pod)));
        }
        let free = (0..self.completions.unwrap_or(0))
            .filter(|index| !taken.contains(index) && !self.done.contains(index) && !self.given_up.contains(index));
        let failures = |index: i32| {
            let failed = observed.iter().filter(|pod| index_of(pod) == Some(index) && has_failed(self.spec, pod));
            failed.map(|pod| failures_of(pod) + i32::from(policy::judge(self.job, pod) != Verdict::Ignore)).max()
        };
        free.take(missing).map(|index| NewPod { index: Some(index), failures: failures(index).unwrap_or(0) }).collect()
    }

    /// Completes the status.
    fn report(&mut self, observed: &[Arc<Pod>]) {
        let active: Vec<_> = observed.iter().filter(|pod| pods::is_active(pod)).collect();
        let positive = |count: usize| Some(int(count)).filter(|count| *count > 0);
        self.status.active = positive(active.len());
        self.status.ready = Some(int(active.iter().filter(|pod| pods::is_ready(pod)).count()));
        self.status.terminating = Some(self.terminating(observed));
        if is_indexed(self.job) {
            self.status.succeeded = positive(self.done.len());
            self.status.completed_indexes = Some(indexes::format(&self.done)).filter(|text| !text.is_empty());
            if self.spec.backoff_limit_per_index.is_some() {
                self.status.failed_indexes = Some(indexes::format(&self.given_up));
            }
        }
        let Some((kind, reason, message)) = self.verdict.clone() else { return };
        self.set(kind, "True", &reason, &message);
        let waiting = !active.is_empty()
            || self.status.terminating != Some(0)
            || observed.iter().any(|pod| pod.metadata.has_finalizer(TRACKING))
            || self.pending != (0, 0);
        if waiting {
            return;
        }
        if kind == FAILURE_TARGET {
            self.set("Failed", "True", &reason, &message);
        } else {
            self.set("Complete", "True", &reason, &message);
            self.status.completion_time = Some(to_time(self.now));
        }
    }

    fn set(&mut self, kind: &str, state: &str, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        let same = |found: &JobCondition| found.type_ == kind && found.status == state;
        if conditions.iter().any(same) {
            return;
        }
        conditions.retain(|condition| condition.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: state.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(to_time(self.now)),
            last_transition_time: Some(to_time(self.now)),
        });
    }
}

fn texts(condition: &JobCondition) -> (String, String) {
    (condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default())
}

fn failures_of(pod: &Pod) -> i32 {
    pod.metadata.annotation(FAILURE_COUNT).and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    let containers = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    containers.map(|container| container.restart_count).sum()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// `name phase [index] [counted] [deleting]`; counted pods have lost their finalizer.
    fn pod(text: &str) -> Arc<Pod> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let index = words.iter().find(|word| word.parse::<i32>().is_ok());
        Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(words[0].into()),
                uid: Some(words[0].into()),
                finalizers: (!words.contains(&"counted")).then(|| vec![TRACKING.to_owned()]),
                annotations: index.map(|index| [(INDEX.to_owned(), (*index).to_owned())].into()),
                deletion_timestamp: words.contains(&"deleting").then(|| to_time(Timestamp::from_secs(90))),
                ..ObjectMeta::default()
            },
            spec: None,
            status: Some(PodStatus { phase: Some(words[1].into()), ..PodStatus::default() }),
        })
    }

    fn job(change: impl FnOnce(&mut JobSpec), status: impl FnOnce(&mut JobStatus)) -> Job {
        let mut job = Job {
            spec: Some(JobSpec {
                parallelism: Some(2),
                completions: Some(3),
                backoff_limit: Some(1),
                ..JobSpec::default()
            }),
            status: Some(JobStatus { start_time: Some(to_time(Timestamp::from_secs(50))), ..JobStatus::default() }),
            ..Job::default()
        };
        change(job.spec.as_mut().unwrap());
        status(job.status.as_mut().unwrap());
        job
    }

    fn check(job: &Job, pods: &[&str], expected: Expect) {
        let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        let observed = Observed { job, pods: &pods, backoff: Backoff::default(), satisfied: true };
        let plan = plan(Timestamp::from_secs(100), &observed);
        let names =
            |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.metadata.id().to_owned()).collect::<Vec<_>>().join(" ");
        let create: Vec<_> =
            plan.create.iter().map(|new| new.index.map_or("pod".into(), |index| index.to_string())).collect();
        let conditions: Vec<_> = plan.status.conditions.iter().flatten().map(|c| c.type_.clone()).collect();
        let status = &plan.status;
        let text = format!(
            "create [{}] delete [{}] release [{}] succeeded {} failed {} indexes {} {}\n",
            create.join(" "),
            names(&plan.delete),
            names(&plan.release),
            status.succeeded.unwrap_or(0),
            status.failed.unwrap_or(0),
            status.completed_indexes.as_deref().unwrap_or("-"),
            conditions.join(" "),
        );
        expected.assert_eq(&text);
    }

    #[test]
    fn pods_run_in_parallel_until_enough_have_succeeded() {
        let fresh = job(|_| {}, |_| {});
        check(
            &fresh,
            &[],
            expect![[r#"
            create [pod pod] delete [] release [] succeeded 0 failed 0 indexes - 
        "#]],
        );
        check(
            &fresh,
            &["a Running", "b Succeeded"],
            expect![[r#"
            create [pod] delete [] release [b] succeeded 0 failed 0 indexes - 
        "#]],
        );
        let two = job(|_| {}, |status| status.succeeded = Some(2));
        check(
            &two,
            &["a Running"],
            expect![[r#"
            create [] delete [] release [] succeeded 2 failed 0 indexes - 
        "#]],
        );
    }

    #[test]
    fn an_ended_pod_is_counted_once_its_finalizer_is_gone() {
        let noted = job(
            |_| {},
            |status| {
                let succeeded = Some(vec!["b".to_owned()]);
                status.uncounted_terminated_pods = Some(UncountedTerminatedPods { succeeded, failed: None });
            },
        );
        check(
            &noted,
            &["a Running", "b Succeeded"],
            expect![[r#"
            create [pod] delete [] release [b] succeeded 0 failed 0 indexes - 
        "#]],
        );
        check(
            &noted,
            &["a Running", "b Succeeded counted"],
            expect![[r#"
            create [pod] delete [] release [] succeeded 1 failed 0 indexes - 
        "#]],
        );
    }

    #[test]
    fn a_complete_job_waits_for_its_books() {
        let two = job(|_| {}, |status| status.succeeded = Some(2));
        check(
            &two,
            &["c Succeeded"],
            expect![[r#"
            create [] delete [] release [c] succeeded 2 failed 0 indexes - SuccessCriteriaMet
        "#]],
        );
        let three = job(|_| {}, |status| status.succeeded = Some(3));
        check(
            &three,
            &["c Succeeded counted"],
            expect![[r#"
            create [] delete [] release [] succeeded 3 failed 0 indexes - SuccessCriteriaMet Complete
        "#]],
        );
    }

    #[test]
    fn failures_wait_and_then_end_the_job() {
        let fresh = job(|_| {}, |_| {});
        check(
            &fresh,
            &["a Failed"],
            expect![[r#"
            create [] delete [] release [a] succeeded 0 failed 0 indexes - 
        "#]],
        );
        let failed = job(|_| {}, |status| status.failed = Some(1));
        check(
            &failed,
            &["b Failed", "c Running"],
            expect![[r#"
            create [] delete [c] release [b] succeeded 0 failed 1 indexes - FailureTarget
        "#]],
        );
        let deadline = job(|spec| spec.active_deadline_seconds = Some(50), |_| {});
        check(
            &deadline,
            &[],
            expect![[r#"
            create [] delete [] release [] succeeded 0 failed 0 indexes - FailureTarget Failed
        "#]],
        );
    }

    #[test]
    fn indexed_jobs_fill_every_index_once() {
        let indexed = job(|spec| spec.completion_mode = Some("Indexed".into()), |_| {});
        check(
            &indexed,
            &["a Running 0"],
            expect![[r#"
            create [1] delete [] release [] succeeded 0 failed 0 indexes - 
        "#]],
        );
        check(
            &indexed,
            &["a Succeeded 0", "b Running 1", "c Running 1"],
            expect![[r#"
            create [2] delete [c] release [a] succeeded 1 failed 0 indexes 0 
        "#]],
        );
    }

    #[test]
    fn a_suspended_job_has_no_pods() {
        let suspended = job(|spec| spec.suspend = Some(true), |_| {});
        check(
            &suspended,
            &["a Running"],
            expect![[r#"
            create [] delete [a] release [] succeeded 0 failed 0 indexes - Suspended
        "#]],
        );
    }
}
