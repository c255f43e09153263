//! Taints keep pods away that do not tolerate them.

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use super::{Candidate, Plugin, Refusal, stretch_reversed};
use crate::config::Config;
use crate::snapshot::NodeInfo;

pub(super) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let keeps_away = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        match node.taints().iter().filter(keeps_away).find(|taint| !tolerated(candidate.pod, taint)) {
            Some(taint) => Err(Refusal::permanent(format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }

    fn weight(&self, _: &Config) -> i64 {
        3
    }

    fn score(&self, _: &Config, candidate: &Candidate<'_>, node: &NodeInfo) -> i64 {
        let prefers_not = |taint: &&Taint| taint.effect == "PreferNoSchedule";
        node.taints().iter().filter(prefers_not).filter(|taint| !tolerated(candidate.pod, taint)).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        stretch_reversed(scores);
    }
}

/// Whether the pod tolerates the taint that a cordoned node is taken to have.
pub(super) fn tolerates_cordon(pod: &Pod) -> bool {
    tolerated(
        pod,
        &Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() },
    )
}

fn tolerated(pod: &Pod, taint: &Taint) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default()
        .iter()
        .any(|toleration| tolerates(toleration, taint))
}

/// `k8s.io/api/core/v1` Toleration: an empty effect means all, an empty key with `Exists` too.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_as_documented() {
        let taint = Taint { key: "k".into(), value: Some("v".into()), effect: "NoSchedule".into(), ..Taint::default() };
        let check = |key: &str, operator: &str, value: &str, effect: &str| {
            let field = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let toleration = Toleration {
                key: field(key),
                operator: field(operator),
                value: field(value),
                effect: field(effect),
                ..Toleration::default()
            };
            tolerates(&toleration, &taint)
        };
        assert!(check("k", "", "v", ""));
        assert!(check("k", "Equal", "v", "NoSchedule"));
        assert!(check("k", "Exists", "", ""));
        assert!(check("", "Exists", "", ""));
        assert!(!check("k", "Equal", "w", ""));
        assert!(!check("k", "Equal", "v", "NoExecute"));
        assert!(!check("j", "Exists", "", ""));
        assert!(!check("", "Equal", "v", ""));
        assert!(!check("k", "Lt", "v", ""));
    }
}
