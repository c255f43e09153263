//! `cronjobs` in `batch/v1`.

use std::borrow::Cow;

use super::job::job_spec;
use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::cells;
use crate::checks::{self, SPEC};
use crate::facts::Facts;
use crate::fill;
use crate::kind::{Generation, Kind};
use crate::pod_spec;
use crate::table::Column;

/// Makes Jobs on a schedule.
pub(crate) struct CronJob(pub(crate) Facts);

impl Kind for CronJob {
    fn facts(&self) -> &Facts {
        &self.0
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default(&self, object: &mut Tree) {
        let spec = fill::within(object, "spec");
        fill::text(spec, "concurrencyPolicy", "Allow");
        fill::absent(spec, "suspend", false);
        fill::absent(spec, "successfulJobsHistoryLimit", 3);
        fill::absent(spec, "failedJobsHistoryLimit", 1);
        let job = fill::within(fill::within(spec, "jobTemplate"), "spec");
        for rule in fill::items(job, &["podFailurePolicy", "rules"]) {
            for pattern in fill::items(rule, &["onPodConditions"]) {
                fill::text(pattern, "status", "True");
            }
        }
        pod_spec::template(fill::within(job, "template"));
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(COLUMNS)
    }

    fn row(&self, object: &Tree, now: Time) -> Vec<Tree> {
        let [containers, images] = cells::containers(object, &["spec", "jobTemplate", "spec", "template", "spec"]);
        let suspend = match object.bool_at(&["spec", "suspend"]) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = match object.str_at(&["status", "lastScheduleTime"]) {
            "" => "<none>".to_owned(),
            time => cells::since(time, now),
        };
        vec![
            cells::name(object),
            cells::text(object, &["spec", "schedule"]),
            cells::text_or(object, &["spec", "timeZone"], "<none>"),
            suspend.into(),
            cells::size(object, &["status", "active"]),
            last.into(),
            cells::age(object, now),
            containers,
            images,
            cells::selector(object, &["spec", "jobTemplate", "spec", "selector"]),
        ]
    }

    fn validate_create(&self, object: &Tree) -> Vec<FieldError> {
        let mut found = Vec::new();
        let spec = object.get("spec").unwrap_or(&Tree::Null);
        let name = object.str_at(&["metadata", "name"]);
        if name.len() > NAME_BYTES_MAX {
            let why = format!("must be no more than {NAME_BYTES_MAX} characters");
            found.push(FieldError::invalid("metadata.name", name, why));
        }
        if let Some(schedule) = checks::required(&mut found, spec, "schedule", SPEC)
            && !is_schedule(schedule)
        {
            let why = format!("expected exactly 5 fields, found {}: [{schedule}]", schedule.split_whitespace().count());
            found.push(FieldError::invalid(SPEC.child("schedule"), schedule, why));
        }
        checks::one_of(&mut found, spec, "concurrencyPolicy", SPEC, &["Allow", "Forbid", "Replace"]);
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            checks::not_negative(&mut found, spec, field, SPEC);
        }
        let job = spec.at(&["jobTemplate", "spec"]).unwrap_or(&Tree::Null);
        job_spec(&mut found, job, SPEC.child("jobTemplate").child("spec"));
        found
    }

    fn validate_update(&self, new: &Tree, _old: &Tree) -> Vec<FieldError> {
        self.validate_create(new)
    }
}

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Schedule", "string", "When it starts jobs."),
    Column::new("Timezone", "string", "In which time zone."),
    Column::new("Suspend", "boolean", "Whether it is held."),
    Column::new("Active", "integer", "How many of its jobs run."),
    Column::new("Last Schedule", "string", "When it last started a job."),
    cells::AGE,
    cells::CONTAINERS,
    cells::IMAGES,
    cells::SELECTOR,
];

/// The controller adds eleven characters to the names of its jobs.
const NAME_BYTES_MAX: usize = 52;

/// Five fields or one of the named schedules; the controller reads them in detail.
fn is_schedule(text: &str) -> bool {
    text.starts_with('@') || text.split_whitespace().count() == 5
}
