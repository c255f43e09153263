//! Namespaces that are being deleted lose their content, pods first, and then their finalizer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use skiff_base::Timestamp;
use skiff_client::time::to_time;
use skiff_client::{
    DeleteOptions, Discovered, Error, Informer, ListOptions, Next, ObjectKey, Propagation, Reconcile, Resource, Result,
    WorkQueue, run_controller,
};

use crate::Context;
use crate::shared::Meta;

pub(crate) const NAME: &str = "namespace-controller";

const FINALIZER: &str = "kubernetes";

/// Content that waits for finalizers or for pods to end is looked at again after this.
const CONTENT_RETRY: Duration = Duration::from_secs(5);

/// Whether objects may still be made in `namespace`.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    !namespace.metadata.is_deleting() && phase != Some("Terminating")
}

struct Driver {
    ctx: Context,
    namespaces: Informer<Namespace>,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let namespaces = ctx.informers.of::<Namespace>();
    let added = queue.clone();
    namespaces.subscribe(move |change| {
        if change.new.as_ref().is_some_and(|namespace| namespace.metadata.is_deleting()) {
            added.add(change.key());
        }
    });
    let ready = namespaces.clone();
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    run_controller(&tasks, NAME, queue, workers, Arc::new(Driver { ctx, namespaces }), async move {
        ready.synced().await;
    });
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Remaining {
    /// Objects left, by resource.
    objects: BTreeMap<String, usize>,
    /// Objects left that wait for a finalizer, by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// What could not be deleted or counted.
    failures: Vec<String>,
    /// Groups whose resources are unknown.
    undiscovered: Vec<String>,
    /// The longest time a pod still has to end, in seconds.
    grace_secs: u64,
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(namespace) = self.ctx.client.find::<Namespace>("", &key.name).await? else {
            return Ok(Next::Event);
        };
        if !namespace.metadata.is_deleting() || self.namespaces.get("", &key.name).is_none() {
            return Ok(Next::Event);
        }
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
        let namespace = if phase == Some("Terminating") {
            namespace
        } else {
            let mut changed = namespace;
            changed.status.get_or_insert_default().phase = Some("Terminating".into());
            self.ctx.client.replace_status(&changed).await?
        };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Next::Event);
        }
        self.empty(namespace).await
    }
}

impl Driver {
    async fn empty(&self, namespace: Namespace) -> Result<Next> {
        let name = namespace.metadata.id().to_owned();
        let remaining = self.delete_content(&name).await?;
        let status = plan_status(self.ctx.clock.now(), &namespace, &remaining);
        let namespace = if namespace.status.as_ref() == Some(&status) {
            namespace
        } else {
            let mut changed = namespace;
            changed.status = Some(status);
            match self.ctx.client.replace_status(&changed).await {
                Ok(namespace) => namespace,
                Err(error) if error.is_not_found() => return Ok(Next::Event),
                Err(error) => return Err(error),
            }
        };
        if !remaining.failures.is_empty() || !remaining.undiscovered.is_empty() {
            tracing::debug!(namespace = name, ?remaining, "namespace content not deleted");
            return Ok(Next::Backoff);
        }
        if !remaining.objects.is_empty() {
            // Half of what the pods have at most: they mostly end sooner.
            let pods = Duration::from_secs(remaining.grace_secs / 2 + 1);
            return Ok(Next::After(if remaining.grace_secs > 0 { pods.min(CONTENT_RETRY * 3) } else { CONTENT_RETRY }));
        }
        self.finalize(namespace).await.map(|()| Next::Event)
    }

    async fn finalize(&self, mut namespace: Namespace) -> Result<()> {
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        match self.ctx.client.replace_subresource(&namespace, "finalize").await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_content(&self, namespace: &str) -> Result<Remaining> {
        let discovery = self.ctx.client.discover().await?;
        let mut remaining = Remaining {
            undiscovered: discovery.failed.iter().map(|(path, error)| format!("{path}: {error}")).collect(),
            ..Remaining::default()
        };
        let mut resources: Vec<&Discovered> = discovery
            .resources
            .iter()
            .filter(|found| found.resource.namespaced && found.supports(&["delete"]))
            // Evidence of what happened is deleted with the rest, but nothing waits for it twice.
            .filter(|found| !(found.resource.group == "events.k8s.io" && found.resource.plural == "events"))
            .collect();
        resources.sort_by(|one, other| one.resource.cmp(&other.resource));
        let is_pods = |found: &&Discovered| found.resource.group.is_empty() && found.resource.plural == "pods";
        // Pods first, alone: what they use (network policies, secrets, volumes) must outlive them
        // (KEP-5080).
        if let Some(pods) = resources.iter().find(|found| is_pods(found)) {
            self.delete_all(pods, namespace, &mut remaining).await;
            if !remaining.objects.is_empty() || !remaining.failures.is_empty() {
                return Ok(remaining);
            }
        }
        for found in resources.into_iter().filter(|found| !is_pods(found)) {
            self.delete_all(found, namespace, &mut remaining).await;
        }
        Ok(remaining)
    }

    async fn delete_all(&self, found: &Discovered, namespace: &str, remaining: &mut Remaining) {
        if let Err(error) = self.try_delete_all(found, namespace, remaining).await
            && !error.is_not_found()
            && !error.is_method_not_allowed()
        {
            remaining.failures.push(format!("{}: {error}", found.resource));
        }
    }

    async fn try_delete_all(&self, found: &Discovered, namespace: &str, remaining: &mut Remaining) -> Result<()> {
        let resource = &found.resource;
        if !found.supports(&["list"]) {
            return Ok(());
        }
        let options = DeleteOptions::default().propagation(Propagation::Background);
        let before = self.ctx.client.list_metadata(resource, namespace, &ListOptions::default()).await?;
        if before.items.is_empty() {
            return Ok(());
        }
        if found.supports(&["deletecollection"]) {
            let everything = ListOptions::default();
            self.ctx.client.delete_collection_raw(resource, namespace, &everything, &options).await?;
        } else {
            for item in &before.items {
                ignore_gone(self.ctx.client.delete_raw(resource, namespace, item.metadata.id(), &options).await)?;
            }
        }
        self.count(resource, namespace, remaining).await
    }

    async fn count(&self, resource: &Resource, namespace: &str, remaining: &mut Remaining) -> Result<()> {
        let left = self.ctx.client.list_metadata(resource, namespace, &ListOptions::default()).await?;
        for item in &left.items {
            let meta = &item.metadata;
            for finalizer in meta.finalizers.iter().flatten() {
                *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
            }
            let grace = meta.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            if resource.plural == "pods" && resource.group.is_empty() {
                remaining.grace_secs = remaining.grace_secs.max(grace.unwrap_or(0));
            }
        }
        if !left.items.is_empty() {
            let name = if resource.group.is_empty() { format!("{resource}.") } else { resource.to_string() };
            *remaining.objects.entry(name).or_default() += left.items.len();
        }
        Ok(())
    }
}

fn ignore_gone(outcome: std::result::Result<(), Error>) -> Result<()> {
    match outcome {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

/// The status that tells why the namespace still exists.
fn plan_status(now: Timestamp, namespace: &Namespace, remaining: &Remaining) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".into());
    let mut conditions = status.conditions.take().unwrap_or_default();
    let text = |map: &BTreeMap<String, usize>, what: &dyn Fn(&str, usize) -> String| {
        map.iter().map(|(name, count)| what(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let found = |reason: &'static str, failed: bool, message: String, fine: (&'static str, &'static str)| {
        if failed { ("True", reason, message) } else { ("False", fine.0, fine.1.to_owned()) }
    };
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            found(
                "DiscoveryFailed",
                !remaining.undiscovered.is_empty(),
                format!(
                    "Discovery failed for some groups, {} failing: {}",
                    remaining.undiscovered.len(),
                    remaining.undiscovered.join(", ")
                ),
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            found("", false, String::new(), ("ParsedGroupVersions", "All legacy kube types successfully parsed")),
        ),
        (
            "NamespaceDeletionContentFailure",
            found(
                "ContentDeletionFailed",
                !remaining.failures.is_empty(),
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    remaining.failures.len(),
                    remaining.failures.join(", ")
                ),
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
        ),
        (
            "NamespaceContentRemaining",
            found(
                "SomeResourcesRemain",
                !remaining.objects.is_empty(),
                format!(
                    "Some resources are remaining: {}",
                    text(&remaining.objects, &|name, count| format!("{name} has {count} resource instances"))
                ),
                ("ContentRemoved", "All content successfully removed"),
            ),
        ),
        (
            "NamespaceFinalizersRemaining",
            found(
                "SomeFinalizersRemain",
                !remaining.finalizers.is_empty(),
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    text(&remaining.finalizers, &|name, count| format!("{name} in {count} resource instances"))
                ),
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ),
    ];
    for (kind, (state, reason, message)) in rows {
        set_condition(now, &mut conditions, kind, state, reason, message);
    }
    status.conditions = Some(conditions);
    status
}

fn set_condition(
    now: Timestamp,
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    state: &str,
    reason: &str,
    message: String,
) {
    let condition = NamespaceCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(to_time(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        None => conditions.push(condition),
        Some(present) => {
            let same = present.status == condition.status
                && present.reason == condition.reason
                && present.message == condition.message;
            if !same {
                let since = present.last_transition_time.take().filter(|_| present.status == state);
                *present = condition;
                present.last_transition_time = since.or_else(|| Some(to_time(now)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(remaining: Remaining, expected: Expect) {
        let status = plan_status(Timestamp::from_secs(1), &Namespace::default(), &remaining);
        let lines: Vec<_> = status
            .conditions
            .into_iter()
            .flatten()
            .filter(|condition| condition.status == "True")
            .map(|c| format!("{} {}: {}\n", c.type_, c.reason.unwrap_or_default(), c.message.unwrap_or_default()))
            .collect();
        expected.assert_eq(&lines.concat());
    }

    #[test]
    fn the_conditions_tell_what_remains() {
        check(Remaining::default(), expect![[""]]);
        check(
            Remaining {
                objects: [("pods.".into(), 2)].into(),
                finalizers: [("example.com/f".into(), 1)].into(),
                ..Remaining::default()
            },
            expect![[r#"
                NamespaceContentRemaining SomeResourcesRemain: Some resources are remaining: pods. has 2 resource instances
                NamespaceFinalizersRemaining SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/f in 1 resource instances
            "#]],
        );
    }
}
