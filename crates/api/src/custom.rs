//! CustomResourceDefinitions become kinds as they come and go.
//!
//! One task follows the definitions and swaps the registry's custom half; a definition that cannot
//! be served says so in its status. There is no second server for custom resources.

use std::sync::Arc;
use std::time::Duration;

use skiff_kinds::{Kind, custom};
use skiff_object::{Map, Tree, json};
use skiff_store::cache::{Scope, Snapshot};

use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;
use crate::storage::Item;
use crate::verbs::Subject;
use crate::write::encode_stored;
use crate::{meta, respond};

/// Between two attempts after the store failed.
const RETRY: Duration = Duration::from_millis(500);

/// Serves what is defined now, and keeps following until the server stops.
///
/// # Errors
/// When the definitions cannot be read.
pub async fn start(server: &Arc<ApiServer>) -> ApiResult<()> {
    let definitions = server.collection("apiextensions.k8s.io", "customresourcedefinitions");
    let failure = |error| definitions.failure(error);
    let snapshot = definitions.cache().current().await.map_err(failure)?;
    serve_all(server, &snapshot).await;
    let follower = Arc::clone(server);
    server.config.tasks.spawn("custom-kinds", async move {
        loop {
            if let Err(error) = follow(&follower).await {
                tracing::debug!(%error, "following the definitions anew");
            }
            follower.clock().sleep(RETRY).await;
        }
    });
    Ok(())
}

async fn follow(server: &Arc<ApiServer>) -> ApiResult<()> {
    let definitions = server.collection("apiextensions.k8s.io", "customresourcedefinitions");
    let failure = |error| definitions.failure(error);
    let snapshot = definitions.cache().current().await.map_err(failure)?;
    serve_all(server, &snapshot).await;
    let scope = Scope::prefix(&definitions.prefix());
    let mut changes = definitions.cache().watch(scope, snapshot.revision()).await.map_err(failure)?;
    loop {
        changes.next().await.map_err(failure)?;
        let snapshot = definitions.cache().current().await.map_err(failure)?;
        serve_all(server, &snapshot).await;
    }
}

async fn serve_all(server: &Arc<ApiServer>, snapshot: &Snapshot<Item>) {
    let mut kinds: Vec<Arc<dyn Kind>> = Vec::new();
    let mut judged = Vec::new();
    for (_, item) in snapshot.range(b"", None) {
        let Ok(definition) = json::decode_untyped(&item.stored.value) else { continue };
        if meta::is_deleting(&definition) {
            continue;
        }
        let compiled = custom::kinds(&definition);
        judged.push((meta::name(&definition).to_owned(), compiled.as_ref().err().map(ToString::to_string)));
        kinds.extend(compiled.unwrap_or_default());
    }
    server.set_custom_kinds(kinds);
    for (name, problem) in judged {
        if let Err(error) = establish(server, &name, problem.as_deref()).await {
            tracing::warn!(%error, name, "could not write the status of a definition");
        }
    }
}

/// Says in a definition's status whether it is served.
async fn establish(server: &Arc<ApiServer>, name: &str, problem: Option<&str>) -> ApiResult<()> {
    let registry = server.registry();
    let kind = registry
        .resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .ok_or_else(|| ApiError::internal("definitions are not served"))?;
    let subject = Subject::internal(server, kind, "", name);
    let Some(current) = subject.collection.get("", name).await? else { return Ok(()) };
    let mut definition = respond::decode_stored(kind.as_ref(), &current.value)?;
    let now = meta::time(server.clock().now());
    let established = problem.is_none();
    let names = definition.at(&["spec", "names"]).cloned().unwrap_or_else(Tree::map);
    definition.set(&["status", "acceptedNames"], names);
    condition(&mut definition, "NamesAccepted", true, "NoConflicts", "no conflicts found", &now);
    let (reason, message) = match problem {
        None => ("InitialNamesAccepted", "the initial names have been accepted"),
        Some(problem) => ("NotServable", problem),
    };
    condition(&mut definition, "Established", established, reason, message, &now);
    let stored = definition.list_at(&["spec", "versions"]).iter().find(|one| one.bool_at(&["storage"]) == Some(true));
    if let Some(version) = stored.map(|one| one.str_at(&["name"]).to_owned()) {
        let mut versions = definition.list_at(&["status", "storedVersions"]).to_vec();
        if !versions.iter().any(|one| one.as_str() == Some(&version)) {
            versions.push(version.into());
            definition.set(&["status", "storedVersions"], versions);
        }
    }
    let value = encode_stored(kind.as_ref(), &definition)?;
    if value != current.value {
        // Whoever was faster wakes the follower again.
        subject.collection.replace("", name, value, current.revision, None).await?;
    }
    Ok(())
}

fn condition(definition: &mut Tree, ty: &'static str, is: bool, reason: &str, message: &str, now: &str) {
    let status = definition.ensure_map().entry_or("status", Tree::map).ensure_map();
    let conditions = status.entry_or("conditions", Tree::list);
    if !matches!(conditions, Tree::List(_)) {
        *conditions = Tree::list();
    }
    let Tree::List(conditions) = conditions else { return };
    let value = if is { "True" } else { "False" };
    let found = conditions.iter_mut().find(|one| one.str_at(&["type"]) == ty);
    if let Some(found) = found {
        if found.str_at(&["status"]) != value {
            found.set(&["lastTransitionTime"], now);
        }
        for (key, text) in [("status", value), ("reason", reason), ("message", message)] {
            found.set(&[key], text);
        }
        return;
    }
    let mut fresh = Map::new();
    for (key, text) in
        [("type", ty), ("status", value), ("lastTransitionTime", now), ("reason", reason), ("message", message)]
    {
        fresh.insert(key, text);
    }
    conditions.push(Tree::Map(fresh));
}
