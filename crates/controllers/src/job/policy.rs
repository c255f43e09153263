//! What a failed pod means for its Job, and when a Job has succeeded early.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::Pod;

use super::indexes;
use crate::shared::{Meta, int, pods};

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts against the limits.
    Count,
    /// It does not count.
    Ignore,
    /// Its index is given up.
    FailIndex,
    /// The whole Job is given up, for this reason.
    FailJob(String),
}

/// The verdict of the Job's pod failure policy: that of the first rule that matches.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    let Some(policy) = policy.filter(|_| pods::phase(pod) == "Failed") else { return Verdict::Count };
    for (at, rule) in policy.rules.iter().enumerate() {
        let Some(found) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{found} matching FailJob rule at index {at}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    if let Some(requirement) = &rule.on_exit_codes {
        return exit_code(requirement, pod);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let holds = |pattern: &&PodFailurePolicyOnPodConditionsPattern| {
        let status = pattern.status.as_deref().unwrap_or("True");
        pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == status)
    };
    let pattern = patterns.iter().find(holds)?;
    Some(format!("Pod {}/{} has condition {}", pod.metadata.ns(), pod.metadata.id(), pattern.type_))
}

fn exit_code(requirement: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let wanted = requirement.container_name.as_deref();
    for container in containers.filter(|container| wanted.is_none_or(|name| name == container.name)) {
        let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
        let Some(code) = ended.map(|ended| ended.exit_code).filter(|code| *code != 0) else { continue };
        if requirement.values.contains(&code) == (requirement.operator == "In") {
            let (name, namespace, pod) = (&container.name, pod.metadata.ns(), pod.metadata.id());
            return Some(format!("Container {name} for pod {namespace}/{pod} failed with exit code {code}"));
        }
    }
    None
}

/// The first rule of the success policy that the `succeeded` indexes fulfil.
pub(super) fn succeeded_early(job: &Job, succeeded: &BTreeSet<i32>) -> Option<usize> {
    let spec = job.spec.as_ref()?;
    let completions = spec.completions.unwrap_or(0);
    let rules = &spec.success_policy.as_ref()?.rules;
    rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| indexes::parse(text, completions));
        let reached = match &wanted {
            Some(wanted) => int(wanted.intersection(succeeded).count()),
            None => int(succeeded.len()),
        };
        match (rule.succeeded_count, &wanted) {
            (Some(count), _) => reached >= count,
            (None, Some(wanted)) => reached == int(wanted.len()) && reached > 0,
            (None, None) => false,
        }
    })
}
