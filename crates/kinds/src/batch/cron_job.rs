//! `cronjobs` in `batch/v1`.

use std::borrow::Cow;

use skiff_object::Tree;
use skiff_object::errors::FieldError;
use skiff_object::time::Time;

use crate::checks::{self, Found, SPEC, jobs};
use crate::facts::Facts;
use crate::kind::{Generation, Kind};
use crate::table::Column;
use crate::{cells, fill, pod_spec};

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
        let mut found = judge(object, true);
        let name = object.str_at(&["metadata", "name"]);
        if name.len() > NAME_BYTES_MAX {
            let why = format!("must be no more than {NAME_BYTES_MAX} characters");
            found.push(FieldError::invalid("metadata.name", name, why));
        }
        found
    }

    fn validate_update(&self, new: &Tree, old: &Tree) -> Vec<FieldError> {
        // A zone in the schedule was allowed once.
        judge(new, !names_a_zone(old.str_at(&["spec", "schedule"])))
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

fn names_a_zone(schedule: &str) -> bool {
    schedule.contains("TZ")
}

fn judge(object: &Tree, strict: bool) -> Found {
    let mut found = Found::new();
    let spec = checks::spec(object);
    if let Some(schedule) = checks::required(&mut found, spec, "schedule", SPEC) {
        let path = SPEC.child("schedule");
        let zoned = names_a_zone(schedule);
        if zoned && strict {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            found.push(FieldError::invalid(path, schedule, why));
        }
        let plain = if zoned { schedule.split_once(' ').map_or("", |(_, rest)| rest) } else { schedule };
        if let Err(why) = judge_schedule(plain.trim()) {
            found.push(FieldError::invalid(path, schedule, why));
        }
        if zoned && checks::given(spec, "timeZone").is_some() {
            let why = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            found.push(FieldError::invalid(path, schedule, why));
        }
    }
    zone(&mut found, spec);
    checks::one_of(&mut found, spec, "concurrencyPolicy", SPEC, &["Allow", "Forbid", "Replace"]);
    let numbers = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    checks::counts(&mut found, spec, &numbers, SPEC);
    let job = spec.at(&["jobTemplate", "spec"]).unwrap_or(&Tree::Null);
    jobs::job_spec(&mut found, job, SPEC.child("jobTemplate").child("spec"));
    found
}

fn zone(found: &mut Found, spec: &Tree) {
    if checks::given(spec, "timeZone").is_none() {
        return;
    }
    let path = SPEC.child("timeZone");
    let zone = spec.str_at(&["timeZone"]);
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'-' | b'+');
    if zone.is_empty() {
        found.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        found.push(FieldError::invalid(path, zone, why));
    } else if !zone.bytes().all(plain) || zone.starts_with('/') || zone.starts_with('-') {
        found.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
    }
}

const DESCRIPTORS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Five fields, or the name of a schedule. The words are those of the library that upstream uses.
fn judge_schedule(text: &str) -> Result<(), String> {
    if let Some(period) = text.strip_prefix("@every ") {
        let wrong = |_| format!("failed to parse duration {text}: time: invalid duration {period:?}");
        return skiff_object::time::parse_duration(period).map(|_| ()).map_err(wrong);
    }
    if text.starts_with('@') {
        let known = DESCRIPTORS.contains(&text);
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!(
            "expected exactly 5 fields, found {}: {}",
            fields.len(),
            skiff_object::errors::go_list(&fields.iter().map(|field| Tree::from(*field)).collect::<Vec<_>>(),)
        ));
    }
    let bounds: [(i64, i64, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];
    for (field, (low, high, names)) in fields.into_iter().zip(bounds) {
        for part in field.split(',') {
            judge_range(part, low, high, names)?;
        }
    }
    Ok(())
}

fn judge_range(text: &str, low: i64, high: i64, names: &[&str]) -> Result<(), String> {
    let number = |part: &str| -> Result<i64, String> {
        if let Some(place) = names.iter().position(|name| part.eq_ignore_ascii_case(name)) {
            return Ok(place as i64 + low);
        }
        let wrong = |_| format!("failed to parse int from {part}: strconv.Atoi: parsing {part:?}: invalid syntax");
        let number = part.parse::<i64>().map_err(wrong)?;
        if number < 0 { Err(format!("negative number ({number}) not allowed: {part}")) } else { Ok(number) }
    };
    let mut halves = text.split('/');
    let range = halves.next().unwrap_or("");
    let step = halves.next();
    if halves.next().is_some() {
        return Err(format!("too many slashes: {text}"));
    }
    let (start, end) = match range {
        "*" | "?" => (low, high),
        range => {
            let ends: Vec<&str> = range.split('-').collect();
            match ends[..] {
                [one] if step.is_some() => (number(one)?, high),
                [one] => (number(one)?, number(one)?),
                [start, end] => (number(start)?, number(end)?),
                _ => return Err(format!("too many hyphens: {text}")),
            }
        }
    };
    if step.map(number).transpose()? == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {text}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}
