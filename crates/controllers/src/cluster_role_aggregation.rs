//! ClusterRoles with an aggregation rule have the rules of the ClusterRoles that it selects.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use skiff_client::{Informer, Next, ObjectKey, Reconcile, Result, WorkQueue, run_controller};

use crate::Context;
use crate::shared::{Meta, selector};

pub(crate) const NAME: &str = "clusterrole-aggregation-controller";

struct Driver {
    ctx: Context,
    roles: Informer<ClusterRole>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let roles = ctx.informers.of::<ClusterRole>();
    let (all, changed) = (roles.clone(), queue.clone());
    // Any role may be part of any that aggregates.
    roles.subscribe(move |_| {
        for role in all.store().iter() {
            if role.aggregation_rule.is_some() {
                changed.add(ObjectKey::of(&role.metadata));
            }
        }
    });
    let ready = roles.clone();
    let tasks = ctx.tasks.clone();
    run_controller(&tasks, NAME, queue, 1, Arc::new(Driver { ctx, roles }), async move { ready.synced().await });
}

/// The rules that `role` should have, those of the roles it selects in order of their names;
/// `None` when it has them or aggregates nothing.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut parts: Vec<&Arc<ClusterRole>> = all
        .iter()
        .filter(|other| other.metadata.name != role.metadata.name)
        .filter(|other| selectors.iter().any(|one| selector::matches(one, other.metadata.labels.as_ref())))
        .collect();
    parts.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.iter().flat_map(|part| part.rules.as_deref().unwrap_or_default()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(role) = self.roles.get("", &key.name) else { return Ok(Next::Event) };
        if role.metadata.is_deleting() {
            return Ok(Next::Event);
        }
        let all: Vec<_> = self.roles.store().iter().collect();
        let Some(rules) = plan(&role, &all) else { return Ok(Next::Event) };
        let mut role = ClusterRole::clone(&role);
        role.rules = Some(rules);
        match self.ctx.client.replace(&role).await {
            Err(error) if error.is_conflict() => Ok(Next::Backoff),
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Event),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::rbac::v1::AggregationRule;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;

    fn role(name: &str, label: &str, resource: &str) -> Arc<ClusterRole> {
        let mut role = ClusterRole::default();
        role.metadata.name = Some(name.into());
        role.metadata.labels = Some(BTreeMap::from([("to".to_owned(), label.to_owned())]));
        role.rules = Some(vec![rule(resource)]);
        Arc::new(role)
    }

    fn rule(resource: &str) -> PolicyRule {
        PolicyRule { verbs: vec!["get".into()], resources: Some(vec![resource.into()]), ..PolicyRule::default() }
    }

    #[test]
    fn rules_are_gathered_by_name_without_repetition() {
        let labels = BTreeMap::from([("to".to_owned(), "x".to_owned())]);
        let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
        let mut all = ClusterRole::default();
        all.metadata.name = Some("all".into());
        all.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
        let parts =
            [role("b", "x", "pods"), role("a", "x", "nodes"), role("c", "y", "secrets"), role("d", "x", "pods")];
        let rules = plan(&all, &parts).unwrap();
        assert_eq!(rules, [rule("nodes"), rule("pods")]);
        all.rules = Some(rules);
        assert_eq!(plan(&all, &parts), None);
        assert_eq!(plan(&role("e", "x", "pods"), &parts), None);
    }
}
