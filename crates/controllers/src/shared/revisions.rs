//! ControllerRevisions: the history of templates of DaemonSets and StatefulSets.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use skiff_client::{Client, DeleteOptions, Informer, Result, View};

use super::claim::Claimant;
use super::{Meta, controller_reference, template};

/// The label by which pods and revisions name their revision.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";

/// The history of one owner.
pub(crate) struct History {
    /// Every revision, oldest first.
    pub(crate) all: Vec<Arc<ControllerRevision>>,
    /// The one of the present template; `all` holds it too.
    pub(crate) current: Arc<ControllerRevision>,
}

/// What is remembered: a strategic patch that puts the template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template that `revision` remembers.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    serde_json::from_value(revision.data.as_ref()?.0.pointer("/spec/template")?.clone()).ok()
}

/// The name of the revision in the labels of pods.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    revision.metadata.label(HASH_LABEL).unwrap_or("")
}

/// Reads the history of `owner`, and adds or renumbers the revision of the present `template`.
/// `None` when its name is taken by another content: then `collisions` must grow.
///
/// # Errors
/// The request that failed.
pub(crate) async fn sync<K: View>(
    client: &Client,
    revisions: &Informer<ControllerRevision>,
    owner: &K,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    collisions: i32,
) -> Result<Option<History>> {
    let claimant = Claimant { owner, selector };
    let store = revisions.store();
    let mut all = claimant.perform(client, claimant.plan(store.namespace(owner.meta().ns()))).await?;
    all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    let data = data(template);
    let equal = all.iter().rposition(|revision| revision.data.as_ref().is_some_and(|found| found.0 == data));
    let highest = all.last().map_or(0, |revision| revision.revision);
    match equal {
        Some(at) if at + 1 == all.len() => {
            let current = all[at].clone();
            Ok(Some(History { all, current }))
        }
        Some(at) => {
            let mut current = ControllerRevision::clone(&all[at]);
            current.revision = highest + 1;
            let current = Arc::new(client.replace(&current).await?);
            all.remove(at);
            all.push(current.clone());
            Ok(Some(History { all, current }))
        }
        None => {
            let wanted = new(owner, template, data, highest + 1, collisions);
            let current = match client.create(&wanted).await {
                Ok(created) => created,
                Err(error) if error.is_already_exists() => {
                    let name = wanted.metadata.id();
                    let found: ControllerRevision = client.get(owner.meta().ns(), name).await?;
                    if found.data.as_ref().map(|data| &data.0) != wanted.data.as_ref().map(|data| &data.0) {
                        return Ok(None);
                    }
                    found
                }
                Err(error) => return Err(error),
            };
            let current = Arc::new(current);
            all.retain(|revision| revision.metadata.name != current.metadata.name);
            all.push(current.clone());
            Ok(Some(History { all, current }))
        }
    }
}

fn new<K: View>(
    owner: &K,
    template: &PodTemplateSpec,
    data: Value,
    revision: i64,
    collisions: i32,
) -> ControllerRevision {
    let mut bytes = data.to_string().into_bytes();
    if collisions > 0 {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let hash = template::safe_encode(template::fnv32a(&bytes));
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", owner.meta().id())),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// Deletes the oldest revisions beyond `limit` that neither are current nor `used` by pods.
///
/// # Errors
/// The request that failed.
pub(crate) async fn truncate(
    client: &Client,
    history: &History,
    limit: i32,
    used: impl Fn(&str) -> bool,
) -> Result<()> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let idle: Vec<_> = history
        .all
        .iter()
        .filter(|revision| revision.metadata.name != history.current.metadata.name && !used(hash_of(revision)))
        .collect();
    for revision in idle.iter().take(idle.len().saturating_sub(limit)) {
        let options = DeleteOptions::uid(revision.metadata.uid());
        let (namespace, name) = (revision.metadata.ns(), revision.metadata.id());
        match client.delete::<ControllerRevision>(namespace, name, &options).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
