//! CustomResourceDefinitions become kinds as they come and go.
//!
//! One task follows the definitions: it grants names, says in the status what is served, and swaps the registry's
//! custom half. Only definitions that changed are looked at, and nothing is compiled before an object needs it, so
//! that a change is served at once however many definitions there are. There is no second server for custom
//! resources.
//!
//! Map: `cleanup` (a definition that goes takes its objects along), [`convert`] (versions by webhook).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use skiff_kinds::Kind;
use skiff_kinds::custom::definition::status::{self, Names};
use skiff_kinds::custom::{self, Source, compare_versions};
use skiff_object::{Tree, json};
use skiff_store::cache::{Scope, Snapshot};

use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;
use crate::storage::{Collection, Item};
use crate::write::encode_stored;
use crate::{meta, respond};

mod cleanup;
pub(crate) use cleanup::mark;
pub mod convert;

/// Between two attempts after the store failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often a status is written again when somebody else was faster.
const STATUS_ATTEMPTS_MAX: usize = 5;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";

/// Serves what is defined now, and keeps following until the server stops.
///
/// # Errors
/// When the definitions cannot be read.
pub async fn start(server: &Arc<ApiServer>) -> ApiResult<()> {
    let definitions = server.collection(GROUP, PLURAL);
    let snapshot = definitions.cache().current().await.map_err(|error| definitions.failure(error))?;
    let mut known = Known::default();
    known.take(server, &snapshot);
    known.write(server).await;
    let follower = Arc::clone(server);
    server.config.tasks.spawn("custom-kinds", async move {
        loop {
            if let Err(error) = follow(&follower, &mut known).await {
                tracing::debug!(%error, "following the definitions anew");
            }
            follower.clock().sleep(RETRY).await;
        }
    });
    Ok(())
}

async fn follow(server: &Arc<ApiServer>, known: &mut Known) -> ApiResult<()> {
    let definitions = server.collection(GROUP, PLURAL);
    let failure = |error| definitions.failure(error);
    let mut snapshot = definitions.cache().current().await.map_err(failure)?;
    let scope = Scope::prefix(&definitions.prefix());
    let mut changes = definitions.cache().watch(scope, snapshot.revision()).await.map_err(failure)?;
    loop {
        known.take(server, &snapshot);
        known.write(server).await;
        changes.next().await.map_err(failure)?;
        // A burst of changes is one change.
        while changes.try_next().is_some() {}
        snapshot = definitions.cache().current().await.map_err(failure)?;
    }
}

/// The storage version hash of discovery (`k8s.io/apiserver/pkg/endpoints/discovery/storageversionhash.go`).
pub fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    STANDARD.encode(&Sha256::digest(format!("{group}/{version}/{kind}"))[..8])
}

/// The definitions as they were last seen, and what was made of them.
#[derive(Default)]
struct Known {
    entries: BTreeMap<String, Entry>,
    /// Definitions (by uid) whose objects are being deleted.
    cleaning: Arc<parking_lot::Mutex<HashSet<String>>>,
}

struct Entry {
    revision: u64,
    group: String,
    /// `status.acceptedNames`, which other definitions of the group cannot have.
    accepted: Tree,
    /// Whether some of its names are another's.
    conflict: bool,
    established: bool,
    kinds: Vec<Arc<dyn Kind>>,
    /// What `kinds` were made from; they live as long as it stays the same, and with them their compiled schemas.
    made_of: String,
    /// The status is not what it should be.
    pending: bool,
    deleting: bool,
    uid: String,
}

impl Known {
    /// Takes over what changed, and serves it.
    fn take(&mut self, server: &Arc<ApiServer>, snapshot: &Snapshot<Item>) {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut touched: HashSet<String> = HashSet::new();
        let mut changed = Vec::new();
        for (_, item) in snapshot.range(b"", None) {
            let (_, name) = item.place();
            seen.insert(name);
            if self.entries.get(name).is_none_or(|entry| entry.revision != item.stored.revision) {
                changed.push(Arc::clone(item));
            }
        }
        let gone: Vec<String> = self.entries.keys().filter(|name| !seen.contains(name.as_str())).cloned().collect();
        for name in &gone {
            touched.extend(self.entries.remove(name).map(|entry| entry.group));
        }
        if changed.is_empty() && gone.is_empty() {
            return;
        }
        for item in &changed {
            touched.extend(self.see(server, item));
        }
        // Names that became free are granted to whoever waits for them.
        let waiting: Vec<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.conflict && touched.contains(&entry.group))
            .map(|(name, _)| name.clone())
            .collect();
        for (_, item) in snapshot.range(b"", None) {
            if waiting.iter().any(|name| name == item.place().1) {
                self.see(server, item);
            }
        }
        server.set_custom_kinds(self.kinds());
        self.clean_up(server);
    }

    /// Looks at one definition; gives its group.
    fn see(&mut self, server: &ApiServer, item: &Item) -> Option<String> {
        let definition = json::decode_untyped(&item.stored.value).ok()?;
        let name = meta::name(&definition).to_owned();
        let group = definition.str_at(&["spec", "group"]).to_owned();
        let mut others = Names::default();
        for (other, entry) in &self.entries {
            if entry.group == group && *other != name {
                others.add(&entry.accepted);
            }
        }
        let planned = status::plan(&definition, &others, &meta::time(server.clock().now()));
        let established = status::is_true(&planned, "Established");
        let accepted = planned.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
        let made_of = format!(
            "{} {} {} {}",
            meta::uid(&definition),
            definition.int_at(&["metadata", "generation"]).unwrap_or_default(),
            meta::is_deleting(&definition),
            skiff_object::errors::show(&accepted)
        );
        let previous = self.entries.remove(&name);
        let kinds = match previous {
            _ if !established => Vec::new(),
            Some(entry) if entry.made_of == made_of && entry.established => entry.kinds,
            _ => {
                let source: Source = Arc::new(item.stored.value.clone());
                let kind = accepted.str_at(&["kind"]);
                custom::kinds(&source, &planned, |version| storage_version_hash(&group, version, kind))
            }
        };
        let entry = Entry {
            revision: item.stored.revision,
            group: group.clone(),
            accepted,
            conflict: !status::is_true(&planned, "NamesAccepted"),
            established,
            kinds,
            made_of,
            pending: planned.get("status") != definition.get("status"),
            deleting: meta::is_deleting(&definition) && meta::has_finalizer(&definition, status::CLEANUP_FINALIZER),
            uid: meta::uid(&definition).to_owned(),
        };
        self.entries.insert(name, entry);
        Some(group)
    }

    /// Every kind, in the order of discovery.
    fn kinds(&self) -> Vec<Arc<dyn Kind>> {
        let mut kinds: Vec<Arc<dyn Kind>> = self.entries.values().flat_map(|entry| entry.kinds.clone()).collect();
        kinds.sort_by(|one, other| {
            let (one, other) = (one.facts(), other.facts());
            let versions = || compare_versions(one.version.as_str(), other.version.as_str());
            let plurals = || one.plural.as_str().cmp(other.plural.as_str());
            one.group.as_str().cmp(other.group.as_str()).then_with(versions).then_with(plurals)
        });
        kinds
    }

    /// Writes every status that is not what it should be. Definitions are served by then.
    async fn write(&mut self, server: &Arc<ApiServer>) {
        let names: Vec<String> =
            self.entries.iter().filter(|(_, entry)| entry.pending).map(|(name, _)| name.clone()).collect();
        for name in names {
            let mut others = Names::default();
            let Some(entry) = self.entries.get(&name) else { continue };
            for (other, known) in &self.entries {
                if known.group == entry.group && *other != name {
                    others.add(&known.accepted);
                }
            }
            let now = meta::time(server.clock().now());
            let written = change(server, &name, |definition| Some(status::plan(definition, &others, &now))).await;
            match written {
                Ok(_) => {
                    if let Some(entry) = self.entries.get_mut(&name) {
                        entry.pending = false;
                    }
                }
                Err(error) => tracing::warn!(%error, name, "could not write the status of a definition"),
            }
        }
    }

    /// Begins to delete the objects of every definition that is on its way out.
    fn clean_up(&self, server: &Arc<ApiServer>) {
        for (name, entry) in self.entries.iter().filter(|(_, entry)| entry.deleting) {
            if !self.cleaning.lock().insert(entry.uid.clone()) {
                continue;
            }
            let (server, cleaning) = (Arc::clone(server), Arc::clone(&self.cleaning));
            let (name, uid) = (name.clone(), entry.uid.clone());
            let established = entry.established;
            let tasks = server.config.tasks.clone();
            tasks.spawn("custom-cleanup", async move {
                while let Err(error) = cleanup::run(&server, &name, &uid, established).await {
                    tracing::warn!(%error, name, "could not delete the objects of a definition; trying again");
                    server.clock().sleep(RETRY).await;
                }
                cleaning.lock().remove(&uid);
            });
        }
    }
}

fn definition_kind(server: &ApiServer) -> ApiResult<Arc<dyn Kind>> {
    let registry = server.registry();
    let kind = registry.resource(GROUP, "v1", PLURAL);
    kind.cloned().ok_or_else(|| ApiError::internal("definitions are not served"))
}

/// Changes a definition as it is now; gives what is stored in the end, nothing when there is no such definition.
async fn change(server: &ApiServer, name: &str, plan: impl Fn(&Tree) -> Option<Tree>) -> ApiResult<Option<Tree>> {
    let kind = definition_kind(server)?;
    let definitions: Arc<Collection> = server.collection(GROUP, PLURAL);
    for _ in 0..STATUS_ATTEMPTS_MAX {
        let Some(current) = definitions.get("", name).await? else { return Ok(None) };
        let definition = respond::decode_stored(kind.as_ref(), &current.value)?;
        let Some(planned) = plan(&definition) else { return Ok(Some(definition)) };
        let value = encode_stored(kind.as_ref(), &planned)?;
        if value == current.value || definitions.replace("", name, value, current.revision, None).await?.is_some() {
            return Ok(Some(planned));
        }
    }
    Err(ApiError::stale(definitions.qualified(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_upstream() {
        // From the discovery documents of v1.36.
        assert_eq!(storage_version_hash("apps", "v1", "Deployment"), "8aSe+NMegvE=");
        assert_eq!(storage_version_hash("", "v1", "Pod"), "xPOwRZ+Yhw8=");
    }
}
