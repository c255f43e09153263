//! A definition that is deleted takes its objects along: they are deleted like by any client, and only when the last
//! is gone the definition goes.

use std::sync::Arc;

use skiff_kinds::Kind;
use skiff_kinds::custom::definition::status::{CLEANUP_FINALIZER, set_condition};
use skiff_object::Tree;
use skiff_store::cache::Scope;

use super::{GROUP, PLURAL, change, definition_kind};
use crate::authn::{MASTERS, UserInfo};
use crate::errors::ApiResult;
use crate::request::options::DeleteOptions;
use crate::server::ApiServer;
use crate::verbs::{Subject, delete};
use crate::write::encode_stored;
use crate::{meta, registry, respond};

/// What a definition says from the moment it is marked.
pub(super) const PENDING: (&str, &str) = (
    "InstanceDeletionPending",
    "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
);

/// Marks a definition that is about to be deleted: its objects go first.
pub(crate) fn mark(definition: &mut Tree, now: &str) {
    meta::add_finalizer(definition, CLEANUP_FINALIZER);
    set_condition(definition, "Terminating", "True", PENDING.0, PENDING.1, now);
}

/// Deletes the objects of a definition, waits until they are gone, and lets the definition go.
pub(super) async fn run(server: &Arc<ApiServer>, name: &str, uid: &str, established: bool) -> ApiResult<()> {
    let ours = |definition: &Tree| meta::uid(definition) == uid && meta::is_deleting(definition);
    let now = || meta::time(server.clock().now());
    let begun = change(server, name, |definition| {
        let mut planned = ours(definition).then(|| definition.clone())?;
        let message = "CustomResource deletion is in progress";
        set_condition(&mut planned, "Terminating", "True", "InstanceDeletionInProgress", message, &now());
        Some(planned)
    });
    let Some(definition) = begun.await?.filter(ours) else { return Ok(()) };
    let group = definition.str_at(&["spec", "group"]);
    let plural = definition.str_at(&["spec", "names", "plural"]);
    let builtin = skiff_kinds::builtin().preferred(group, plural).is_some();
    let (reason, message) = if builtin {
        ("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
    } else if established {
        delete_objects(server, group, plural).await?;
        ("InstanceDeletionCompleted", "removed all instances")
    } else {
        ("NeverEstablished", "resource was never established")
    };
    let ended = change(server, name, |definition| {
        let mut planned = ours(definition).then(|| definition.clone())?;
        set_condition(&mut planned, "Terminating", "False", reason, message, &now());
        meta::remove_finalizer(&mut planned, CLEANUP_FINALIZER);
        Some(planned)
    });
    let Some(definition) = ended.await?.filter(ours) else { return Ok(()) };
    remove(server, name, &definition).await
}

/// Removes a definition that nothing holds any more.
async fn remove(server: &ApiServer, name: &str, definition: &Tree) -> ApiResult<()> {
    let kind = definition_kind(server)?;
    let definitions = server.collection(GROUP, PLURAL);
    let Some(current) = definitions.get("", name).await? else { return Ok(()) };
    let same = encode_stored(kind.as_ref(), definition)? == current.value;
    if same
        && delete::is_complete(kind.as_ref(), definition)
        && let Some(revision) = definitions.remove("", name, current.revision).await?
    {
        registry::after_delete(server, kind.as_ref(), definition, revision).await;
    }
    // Whoever changed it meanwhile wakes the follower, and this runs again if it has to.
    Ok(())
}

async fn delete_objects(server: &Arc<ApiServer>, group: &str, plural: &str) -> ApiResult<()> {
    let registry = server.registry();
    let found = registry
        .iter()
        .find(|kind| kind.custom().is_some() && kind.facts().group == *group && kind.facts().plural == *plural);
    // Without a served version there is no way to look at objects; upstream leaves them in the store.
    let Some(kind) = found.cloned() else { return Ok(()) };
    let collection = server.collection(group, plural);
    let failure = |error| collection.failure(error);
    let mut snapshot = collection.cache().current().await.map_err(failure)?;
    let scope = Scope::prefix(&collection.prefix());
    let mut changes = collection.cache().watch(scope, snapshot.revision()).await.map_err(failure)?;
    loop {
        let mut left = false;
        for (_, item) in snapshot.range(b"", None) {
            left = true;
            let (namespace, object) = item.place();
            if !meta::is_deleting(&respond::decode_stored(kind.as_ref(), &item.stored.value)?) {
                delete_one(server, &kind, namespace, object).await?;
            }
        }
        if !left {
            return Ok(());
        }
        // Finalizers of objects are somebody's to take away.
        changes.next().await.map_err(failure)?;
        while changes.try_next().is_some() {}
        snapshot = collection.cache().current().await.map_err(failure)?;
    }
}

async fn delete_one(server: &Arc<ApiServer>, kind: &Arc<dyn Kind>, namespace: &str, name: &str) -> ApiResult<()> {
    let user = UserInfo::new("system:apiserver", &[MASTERS]);
    let subject = Subject::internal(server, kind, namespace, name);
    let asking = delete::Asking { user: &user, call: None };
    match delete::remove(server, &subject, &DeleteOptions::default(), Some(asking)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
