//! The garbage collector: objects whose owners are gone follow them; owners that are deleted in
//! the foreground wait for their dependents; orphaning cuts the references.
//!
//! It watches the metadata of every listable resource. Before it deletes anything it looks the
//! owners up live: the graph may be behind.

mod graph;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use serde_json::json;
use skiff_client::{
    DeleteOptions, Discovery, Next, ObjectKey, PartialObject, Patch, Propagation, Reconcile, Resource, Result, View,
    WorkQueue, run_controller,
};

use crate::Context;
use crate::shared::Meta;
use graph::{FOREGROUND, Graph, Node, ORPHAN, Task};

pub(crate) const NAME: &str = "generic-garbage-collector";

/// Resources appear and vanish with custom resource definitions; how often that is looked at when
/// no definition changes (aggregated servers come and go without one).
const DISCOVERY_EVERY: Duration = Duration::from_secs(300);

/// After a failed discovery, or while definitions change.
const DISCOVERY_RETRY: Duration = Duration::from_secs(2);

/// An owner that exists but has not come through its watch yet is looked at again after this.
const VIRTUAL_RETRY: Duration = Duration::from_secs(1);

const DELETE: &str = "delete";
const ORPHAN_TASK: &str = "orphan";

/// The little that the graph needs of an object.
#[derive(Clone)]
struct Slim {
    meta: ObjectMeta,
}

impl View for Slim {
    const RESOURCE: Resource = PartialObject::RESOURCE;

    fn decode(bytes: &[u8]) -> std::result::Result<Self, String> {
        let meta = PartialObject::decode(bytes)?.metadata;
        Ok(Self {
            meta: ObjectMeta {
                name: meta.name,
                namespace: meta.namespace,
                uid: meta.uid,
                resource_version: meta.resource_version,
                owner_references: meta.owner_references,
                finalizers: meta.finalizers,
                deletion_timestamp: meta.deletion_timestamp,
                ..ObjectMeta::default()
            },
        })
    }

    fn encode(&self) -> std::result::Result<Vec<u8>, String> {
        Err("metadata without its object cannot be written".into())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The resources by group and kind.
type Kinds = BTreeMap<(String, String), Arc<Resource>>;

#[derive(Default)]
struct Shared {
    graph: Mutex<Graph>,
    kinds: Mutex<Arc<Kinds>>,
}

impl Shared {
    fn resolve(&self, owner: &OwnerReference) -> Option<Arc<Resource>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.kinds.lock().get(&(group.to_owned(), owner.kind.clone())).cloned()
    }
}

struct Driver {
    ctx: Context,
    shared: Arc<Shared>,
    queue: WorkQueue,
}

/// Starts the controller.
pub(crate) fn start(ctx: Context) {
    let queue = WorkQueue::new();
    let shared = Arc::new(Shared::default());
    let (tasks, workers) = (ctx.tasks.clone(), ctx.config.workers);
    let synced = tokio::sync::watch::Sender::new(false);
    let mut ready = synced.subscribe();
    let monitors = Monitors { ctx: ctx.clone(), shared: shared.clone(), queue: queue.clone() };
    tasks.spawn("monitors", monitors.run(synced));
    let driver = Driver { ctx, shared, queue: queue.clone() };
    run_controller(&tasks, NAME, queue, workers, Arc::new(driver), async move {
        let _ = ready.wait_for(|ready| *ready).await;
    });
}

/// Watches every resource that can be collected.
struct Monitors {
    ctx: Context,
    shared: Arc<Shared>,
    queue: WorkQueue,
}

impl Monitors {
    async fn run(self, synced: tokio::sync::watch::Sender<bool>) {
        let definitions = Resource::fixed(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            false,
        );
        let mut watched: BTreeMap<Resource, ()> = BTreeMap::new();
        let mut changes = None;
        loop {
            let mut wait = DISCOVERY_EVERY;
            match self.ctx.client.discover().await {
                Ok(found) => {
                    self.watch_new(&found, &mut watched).await;
                    synced.send_replace(true);
                    if watched.contains_key(&definitions) && changes.is_none() {
                        changes = Some(self.ctx.informers.metadata_as::<Slim>(&definitions).changes());
                    }
                    if !found.failed.is_empty() {
                        wait = DISCOVERY_RETRY * 15;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed");
                    wait = DISCOVERY_RETRY;
                }
            }
            match &mut changes {
                // A definition's names are accepted and served a moment after it changes.
                Some(changes) => {
                    if matches!(tokio::time::timeout(wait, changes.changed()).await, Ok(Ok(()))) {
                        self.ctx.clock.sleep(DISCOVERY_RETRY).await;
                    }
                }
                None => self.ctx.clock.sleep(wait).await,
            }
        }
    }

    async fn watch_new(&self, found: &Discovery, watched: &mut BTreeMap<Resource, ()>) {
        let mut kinds = Kinds::new();
        let mut fresh = Vec::new();
        for found in &found.resources {
            let resource = Arc::new(found.resource.clone());
            kinds.entry((resource.group.to_string(), resource.kind.to_string())).or_insert_with(|| resource.clone());
            // Events are many, expire by themselves and own nothing.
            let collected = found.supports(&["list", "watch", "delete"]) && resource.plural != "events";
            if collected && watched.insert((*resource).clone(), ()).is_none() {
                fresh.push(resource);
            }
        }
        // Groups that did not answer keep what was known of them.
        {
            let mut known = self.shared.kinds.lock();
            for (kind, resource) in known.iter() {
                kinds.entry(kind.clone()).or_insert_with(|| resource.clone());
            }
            *known = Arc::new(kinds);
        }
        let informers: Vec<_> = fresh.iter().map(|resource| self.ctx.informers.metadata_as::<Slim>(resource)).collect();
        for (resource, informer) in fresh.into_iter().zip(&informers) {
            let (shared, queue) = (self.shared.clone(), self.queue.clone());
            informer.subscribe(move |change| {
                let tasks = match (&change.old, &change.new) {
                    (old, Some(new)) => {
                        let mut graph = shared.graph.lock();
                        let mut tasks = Vec::new();
                        // Deleted and made again between two looks.
                        if let Some(old) = old.as_ref().filter(|old| old.meta.uid != new.meta.uid) {
                            tasks.extend(graph.forget(old.meta.uid()));
                        }
                        tasks.extend(graph.observe(&resource, &new.meta, |owner| shared.resolve(owner)));
                        tasks
                    }
                    (Some(old), None) => shared.graph.lock().forget(old.meta.uid()),
                    (None, None) => Vec::new(),
                };
                enqueue(&queue, tasks);
            });
        }
        for informer in informers {
            // A resource that cannot be listed (its webhook or aggregated server is down) must not
            // keep all others from being collected: owners are looked up live anyway.
            let _ = tokio::time::timeout(Duration::from_secs(30), informer.synced()).await;
        }
    }
}

fn enqueue(queue: &WorkQueue, tasks: Vec<Task>) {
    for task in tasks {
        queue.add(match task {
            Task::Delete(uid) => ObjectKey::new(DELETE, uid),
            Task::Orphan(uid) => ObjectKey::new(ORPHAN_TASK, uid),
        });
    }
}

#[async_trait]
impl Reconcile for Driver {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next> {
        let Some(node) = self.shared.graph.lock().get(&key.name).cloned() else { return Ok(Next::Event) };
        if key.namespace == ORPHAN_TASK { self.orphan(&node).await } else { self.delete(&node).await }
    }
}

/// What the owners of an object are.
#[derive(Debug, Default, PartialEq)]
struct Owners {
    /// They exist.
    solid: Vec<String>,
    /// They are gone.
    dangling: Vec<String>,
    /// They are being deleted and wait for their dependents.
    waiting: Vec<String>,
}

impl Driver {
    async fn delete(&self, node: &Node) -> Result<Next> {
        if node.deleting && !node.deleting_dependents {
            return Ok(Next::Event);
        }
        let Some(live) = self.live(node).await? else {
            let tasks = self.shared.graph.lock().forget(&node.uid);
            enqueue(&self.queue, tasks);
            return Ok(Next::Event);
        };
        if node.is_virtual {
            // It exists; its own event is on its way.
            return Ok(Next::After(VIRTUAL_RETRY));
        }
        if node.deleting_dependents {
            return self.wait_for_dependents(node).await;
        }
        let references = live.metadata.owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(Next::Event);
        }
        let owners = self.classify(node, &references).await?;
        if owners.solid.is_empty() {
            self.collect(node, &live.metadata, &owners).await?;
        } else if !owners.dangling.is_empty() || !owners.waiting.is_empty() {
            let kept = references.into_iter().filter(|reference| owners.solid.contains(&reference.uid));
            self.set_owners(node, &live.metadata, kept.collect()).await?;
        }
        Ok(Next::Event)
    }

    async fn live(&self, node: &Node) -> Result<Option<PartialObject>> {
        match self.ctx.client.get_metadata(&node.resource, &node.namespace, &node.name).await {
            Ok(live) => Ok(Some(live).filter(|live| live.metadata.uid() == node.uid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn wait_for_dependents(&self, node: &Node) -> Result<Next> {
        let blocking: Vec<(String, bool)> = {
            let graph = self.shared.graph.lock();
            graph.blocking(&node.uid).iter().map(|node| (node.uid.clone(), node.deleting_dependents)).collect()
        };
        if blocking.is_empty() {
            self.remove_finalizer(node, FOREGROUND).await?;
            return Ok(Next::Event);
        }
        for (uid, deleting_dependents) in blocking {
            if !deleting_dependents {
                self.queue.add(ObjectKey::new(DELETE, uid));
            }
        }
        Ok(Next::Event)
    }

    async fn classify(&self, node: &Node, references: &[OwnerReference]) -> Result<Owners> {
        let mut owners = Owners::default();
        for reference in references {
            let uid = reference.uid.clone();
            if self.shared.graph.lock().is_absent(&uid) {
                owners.dangling.push(uid);
                continue;
            }
            let Some(resource) = self.shared.resolve(reference) else {
                // Unknown kinds may be served again: never delete for them.
                owners.solid.push(uid);
                continue;
            };
            if resource.namespaced && node.namespace.is_empty() {
                // Cluster-scoped objects cannot have owners in a namespace: which one would it be?
                tracing::warn!(object = node.name, owner = reference.name, "owner reference into a namespace");
                owners.solid.push(uid);
                continue;
            }
            let namespace = if resource.namespaced { node.namespace.as_str() } else { "" };
            let owner = match self.ctx.client.get_metadata(&resource, namespace, &reference.name).await {
                Ok(owner) => Some(owner.metadata).filter(|owner| owner.uid() == uid),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            match owner {
                None => {
                    self.shared.graph.lock().note_absent(&uid);
                    owners.dangling.push(uid);
                }
                Some(owner) if owner.is_deleting() && owner.has_finalizer(FOREGROUND) => owners.waiting.push(uid),
                Some(_) => owners.solid.push(uid),
            }
        }
        Ok(owners)
    }

    /// No owner is left: the object goes too.
    async fn collect(&self, node: &Node, live: &ObjectMeta, owners: &Owners) -> Result<()> {
        let propagation = if owners.waiting.is_empty() {
            if live.has_finalizer(ORPHAN) {
                Propagation::Orphan
            } else if live.has_finalizer(FOREGROUND) {
                Propagation::Foreground
            } else {
                Propagation::Background
            }
        } else {
            let (has_dependents, is_circular) = {
                let graph = self.shared.graph.lock();
                let mut dependents = graph.dependents(&node.uid);
                let mut any = false;
                let circular = dependents.any(|dependent| {
                    any = true;
                    dependent.deleting_dependents
                });
                (any, circular)
            };
            if is_circular {
                // Each would wait for the other.
                let mut references = live.owner_references.clone().unwrap_or_default();
                references.iter_mut().for_each(|reference| reference.block_owner_deletion = Some(false));
                self.set_owners(node, live, references).await?;
            }
            if has_dependents { Propagation::Foreground } else { Propagation::Background }
        };
        let options = DeleteOptions::uid(&node.uid).propagation(propagation);
        tracing::debug!(resource = %node.resource, namespace = node.namespace, name = node.name, "collecting");
        match self.ctx.client.delete_raw(&node.resource, &node.namespace, &node.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    async fn orphan(&self, node: &Node) -> Result<Next> {
        let dependents: Vec<Node> = self.shared.graph.lock().dependents(&node.uid).cloned().collect();
        for dependent in dependents {
            let Some(live) = self.live(&dependent).await? else { continue };
            let references = live.metadata.owner_references.clone().unwrap_or_default();
            if references.iter().any(|reference| reference.uid == node.uid) {
                let kept = references.into_iter().filter(|reference| reference.uid != node.uid);
                self.set_owners(&dependent, &live.metadata, kept.collect()).await?;
            }
        }
        self.remove_finalizer(node, ORPHAN).await?;
        Ok(Next::Event)
    }

    async fn set_owners(&self, node: &Node, live: &ObjectMeta, references: Vec<OwnerReference>) -> Result<()> {
        self.patch_metadata(node, live, json!({"ownerReferences": references})).await
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> Result<()> {
        let Some(live) = self.live(node).await? else { return Ok(()) };
        if !live.metadata.has_finalizer(finalizer) {
            return Ok(());
        }
        let kept: Vec<_> = live.metadata.finalizers.iter().flatten().filter(|found| *found != finalizer).collect();
        self.patch_metadata(node, &live.metadata, json!({"finalizers": kept})).await
    }

    /// A merge patch works for every resource; the version makes it fail when the list changed.
    async fn patch_metadata(&self, node: &Node, live: &ObjectMeta, mut change: serde_json::Value) -> Result<()> {
        change["uid"] = json!(node.uid);
        change["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({"metadata": change}));
        match self.ctx.client.patch_raw(&node.resource, &node.namespace, &node.name, "", &patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
