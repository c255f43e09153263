//! The spec of a job, in a job or in a cron job.

use std::collections::HashSet;

use skiff_object::errors::{BadValue, FieldError};
use skiff_object::path::Path;
use skiff_object::{Tree, name};

use super::{
    Found, at_most, counts, each, formed, given, not_longer, not_negative, one_of, only, only_if_given, shaped, within,
};
use crate::pod_spec;

/// How many pods an indexed job may run at once, and how many of its indexes may fail.
const PARALLELISM_MAX: i64 = 100_000;
/// How many indexes may fail when there are more than [`PARALLELISM_MAX`].
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;
/// How many rules a policy may have.
const RULES_MAX: usize = 20;
/// How many exit codes a rule may name.
const EXIT_CODES_MAX: usize = 255;
/// How much text may name the indexes that count.
const INDEXES_BYTES_MAX: usize = 64 * 1_024;
/// How long the name of a foreign controller may be.
const MANAGER_BYTES_MAX: usize = 63;

/// Everything wrong with the spec of a job.
pub(crate) fn job_spec(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    counts(found, spec, &numbers, path);
    only_if_given(found, spec, "completionMode", path, &["NonIndexed", "Indexed"]);
    if spec.str_at(&["completionMode"]) == "Indexed" {
        indexed(found, spec, path);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(number) = spec.int_at(&[field]) {
                found.push(FieldError::invalid(path.child(field), number, "requires indexed completion mode"));
            }
        }
    }
    if given(spec, "maxFailedIndexes").is_some() && given(spec, "backoffLimitPerIndex").is_none() {
        let why = "when maxFailedIndexes is specified";
        found.push(FieldError::required(path.child("backoffLimitPerIndex"), why));
    }
    within(spec, "podFailurePolicy", path, |policy, path| failure_policy(found, policy, spec, path));
    within(spec, "successPolicy", path, |policy, path| success_policy(found, policy, spec, path));
    let fails = given(spec, "podFailurePolicy").is_some();
    let policies: &[&str] = if fails { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    only_if_given(found, spec, "podReplacementPolicy", path, policies);
    formed(found, spec, "managedBy", path, name::domain_prefixed_path);
    not_longer(found, spec, "managedBy", path, MANAGER_BYTES_MAX);
    template(found, spec, path.child("template"));
}

fn indexed(found: &mut Found, spec: &Tree, path: Path<'_>) {
    let number = |field: &str| spec.int_at(&[field]);
    let Some(completions) = number("completions") else {
        found.push(FieldError::required(path.child("completions"), "when completion mode is Indexed"));
        return;
    };
    if let Some(parallelism) = number("parallelism").filter(|parallelism| *parallelism > PARALLELISM_MAX) {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        found.push(FieldError::invalid(path.child("parallelism"), parallelism, why));
    }
    let many = completions > PARALLELISM_MAX;
    let per_index = given(spec, "backoffLimitPerIndex").is_some();
    let path = path.child("maxFailedIndexes");
    match number("maxFailedIndexes") {
        None if many && per_index => {
            let why = format!("must be specified when completions is above {PARALLELISM_MAX}");
            found.push(FieldError::required(path, why));
        }
        Some(failed) if failed > completions => {
            found.push(FieldError::invalid(path, failed, "must be less than or equal to completions"));
        }
        Some(failed) if failed > PARALLELISM_MAX => {
            let why = format!("must be less than or equal to {PARALLELISM_MAX}");
            found.push(FieldError::invalid(path, failed, why));
        }
        Some(failed) if many && failed > FAILED_INDEXES_OF_MANY_MAX => {
            let why = format!(
                "must be less than or equal to {FAILED_INDEXES_OF_MANY_MAX} when completions are above {PARALLELISM_MAX}"
            );
            found.push(FieldError::invalid(path, failed, why));
        }
        _ => {}
    }
}

fn template(found: &mut Found, spec: &Tree, path: Path<'_>) {
    pod_spec::validate::template(found, spec.get("template").unwrap_or(&Tree::Null), path);
    let path = path.child("spec");
    let path = path.child("restartPolicy");
    let policy = spec.str_at(&["template", "spec", "restartPolicy"]);
    match policy {
        "OnFailure" | "Never" => {}
        "" | "Always" => {
            let why = r#"valid values: "OnFailure", "Never""#;
            found.push(FieldError::required(path, why));
        }
        other => found.push(FieldError::not_supported(path, other, &["OnFailure", "Never"])),
    }
    if given(spec, "podFailurePolicy").is_some() && policy != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        found.push(FieldError::invalid(path, policy, why));
    }
}

fn failure_policy(found: &mut Found, policy: &Tree, spec: &Tree, path: Path<'_>) {
    let rules = policy.list_at(&["rules"]);
    if rules.len() > RULES_MAX {
        found.push(FieldError::too_many(path.child("rules"), rules.len(), RULES_MAX));
        return;
    }
    each(policy, "rules", path, |rule, path| {
        let action = rule.str_at(&["action"]);
        match action {
            "" => {
                let why = r#"valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#;
                found.push(FieldError::required(path.child("action"), why));
            }
            "FailIndex" if given(spec, "backoffLimitPerIndex").is_none() => {
                let why = "requires the backoffLimitPerIndex to be set";
                found.push(FieldError::invalid(path.child("action"), action, why));
            }
            _ => only(found, rule, "action", path, &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        let conditions = !rule.list_at(&["onPodConditions"]).is_empty();
        match (given(rule, "onExitCodes"), conditions) {
            (Some(_), true) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                found.push(FieldError::invalid(path, BadValue::from(rule), why));
            }
            (None, false) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                found.push(FieldError::invalid(path, BadValue::from(rule), why));
            }
            _ => {}
        }
        within(rule, "onExitCodes", path, |codes, path| exit_codes(found, codes, spec, path));
        at_most(found, rule, "onPodConditions", path, RULES_MAX);
        each(rule, "onPodConditions", path, |condition, path| {
            shaped(found, condition, "type", path, name::qualified_name);
            one_of(found, condition, "status", path, &["False", "True", "Unknown"]);
        });
    });
}

fn exit_codes(found: &mut Found, codes: &Tree, spec: &Tree, path: Path<'_>) {
    let operator = codes.str_at(&["operator"]);
    if operator.is_empty() {
        found.push(FieldError::required(path.child("operator"), r#"valid values: ["In" "NotIn"]"#));
    } else {
        only(found, codes, "operator", path, &["In", "NotIn"]);
    }
    let container = codes.str_at(&["containerName"]);
    let known = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.list_at(&["template", "spec", list]))
        .any(|one| one.str_at(&["name"]) == container);
    if given(codes, "containerName").is_some() && !known {
        let why = "must be one of the container or initContainer names in the pod template";
        found.push(FieldError::invalid(path.child("containerName"), container, why));
    }
    let values = codes.list_at(&["values"]);
    let list = path.child("values");
    let whole = || BadValue::from(codes.get("values"));
    if values.is_empty() {
        found.push(FieldError::invalid(list, whole(), "at least one value is required"));
    }
    at_most(found, codes, "values", path, EXIT_CODES_MAX);
    let numbers: Vec<i64> = values.iter().filter_map(Tree::as_int).collect();
    let mut seen = HashSet::new();
    for (index, number) in numbers.iter().enumerate() {
        if operator == "In" && *number == 0 {
            found.push(FieldError::invalid(list.index(index), 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(number) {
            found.push(FieldError::duplicate(list.index(index), *number));
        }
    }
    if !numbers.is_sorted() {
        found.push(FieldError::invalid(list, whole(), "must be ordered"));
    }
}

fn success_policy(found: &mut Found, policy: &Tree, spec: &Tree, path: Path<'_>) {
    if spec.str_at(&["completionMode"]) != "Indexed" {
        found.push(FieldError::invalid(path, BadValue::from(policy), "requires indexed completion mode"));
        return;
    }
    if policy.list_at(&["rules"]).is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        found.push(FieldError::required(path.child("rules"), why));
    }
    at_most(found, policy, "rules", path, RULES_MAX);
    let completions = spec.int_at(&["completions"]).unwrap_or(0);
    each(policy, "rules", path, |rule, path| {
        if ["succeededCount", "succeededIndexes"].iter().all(|field| given(rule, field).is_none()) {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            found.push(FieldError::required(path, why));
        }
        let mut named = completions;
        if given(rule, "succeededIndexes").is_some() {
            let text = rule.str_at(&["succeededIndexes"]);
            not_longer(found, rule, "succeededIndexes", path, INDEXES_BYTES_MAX);
            match count_indexes(text, completions) {
                Ok(count) => named = count,
                Err(why) => found.push(FieldError::invalid(
                    path.child("succeededIndexes"),
                    text,
                    format!("error parsing succeededIndexes: {why}"),
                )),
            }
        }
        not_negative(found, rule, "succeededCount", path);
        let Some(count) = rule.int_at(&["succeededCount"]) else { return };
        let path = path.child("succeededCount");
        if count > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            found.push(FieldError::invalid(path, count, why));
        } else if count > named {
            let why = format!(
                "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            );
            found.push(FieldError::invalid(path, count, why));
        }
    });
}

/// How many indexes `0,2-4` names.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut last = -1;
    let mut count = 0;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| -> Result<i64, String> {
            let number = text.parse::<i64>().ok().filter(|number| *number >= 0);
            number.ok_or_else(|| format!("cannot convert string to integer for index: \"{text}\""))
        };
        let (first, end) = (number(first)?, number(end)?);
        for index in [first, end] {
            if index >= completions {
                return Err(format!("too large index: \"{index}\""));
            }
        }
        if first <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if end < first {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        count += end - first + 1;
        last = end;
    }
    Ok(count)
}
