//! What a few resources need beyond their kind: allocations, holds, leases.

use bytes::Bytes;
use skiff_kinds::Kind;
use skiff_object::Tree;
use skiff_store::{Error, Expect, LeaseId, Revision};

use crate::admission::resource_quota;
use crate::errors::ApiResult;
use crate::meta;
use crate::server::ApiServer;
use crate::write::Writer;

pub mod addresses;
pub mod certificates;
mod families;
pub mod rbac;
pub mod repair;
pub mod services;

/// Records that were made for a write, to take back when it does not happen after all.
#[derive(Debug, Default)]
#[must_use]
pub struct Undo {
    made: Vec<(Bytes, Revision)>,
}

impl Undo {
    /// Takes the records back.
    pub async fn run(self, server: &ApiServer) {
        for (key, revision) in self.made {
            match server.config.store.delete(key, Expect::Revision(revision)).await {
                // A conflict: somebody else needed the record after all and has made it theirs.
                Ok(_) | Err(Error::Conflict { .. }) => {}
                // Whatever cannot be taken back now is found unused later.
                Err(error) => tracing::warn!(%error, "could not take an allocation back"),
            }
        }
    }

    /// Nothing is to be taken back.
    pub fn keep(self) {}

    /// Remembers a record as it was written.
    pub fn add(&mut self, key: Bytes, revision: Revision) {
        self.made.push((key, revision));
    }
}

/// Before a new object is validated and stored.
///
/// # Errors
/// 422 when what is asked for cannot be allocated.
pub async fn before_create(writer: &Writer<'_>, object: &mut Tree) -> ApiResult<Undo> {
    if is(writer.kind(), "", "services") {
        return services::before_create(writer, object).await;
    }
    if is(writer.kind(), "certificates.k8s.io", "certificatesigningrequests") {
        certificates::before_create(writer, object);
    }
    if rbac::concerns(writer) {
        rbac::before_write(writer, object, None).await?;
    }
    Ok(Undo::default())
}

/// Before a changed object is validated and stored.
///
/// # Errors
/// 422 when what is asked for cannot be allocated.
pub async fn before_update(writer: &Writer<'_>, new: &mut Tree, old: &Tree) -> ApiResult<Undo> {
    if is(writer.kind(), "", "services") && writer.subject.subresource.is_empty() {
        return services::before_update(writer, new, old).await;
    }
    if is(writer.kind(), "certificates.k8s.io", "certificatesigningrequests") {
        certificates::before_update(writer, new);
    }
    if rbac::concerns(writer) {
        rbac::before_write(writer, new, Some(old)).await?;
    }
    Ok(Undo::default())
}

/// A new object has been stored.
pub async fn after_create(server: &ApiServer, kind: &dyn Kind, object: &Tree) {
    if is(kind, "", "resourcequotas") {
        recount(server, meta::namespace(object)).await;
    }
}

/// An object has been changed by revision `written`.
pub async fn after_update(server: &ApiServer, kind: &dyn Kind, new: &Tree, old: &Tree, written: Revision) {
    if is(kind, "", "services") {
        services::release(server, old, Some(new), written).await;
    }
    let ended = |pod: &Tree| matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed");
    let limits = is(kind, "", "resourcequotas") && new.get("spec") != old.get("spec");
    let shrinks = (is(kind, "", "services") || is(kind, "", "persistentvolumeclaims"))
        && resource_quota::usage::is_less(kind.facts().plural.as_str(), new, old);
    if limits || shrinks || (is(kind, "", "pods") && ended(new) && !ended(old)) {
        recount(server, meta::namespace(new)).await;
    }
}

/// Brings the quotas of a namespace up to date. A failure leaves them counting too much, until
/// the next object goes.
async fn recount(server: &ApiServer, namespace: &str) {
    if let Err(error) = resource_quota::recount(server, namespace).await {
        tracing::warn!(%error, namespace, "could not recount the quotas");
    }
}

/// Whether the kind itself holds an object that has no finalizers left: a namespace stays while
/// `spec.finalizers` has entries.
pub fn holds(kind: &dyn Kind, object: &Tree) -> bool {
    is(kind, "", "namespaces") && !object.list_at(&["spec", "finalizers"]).is_empty()
}

/// An object is about to be deleted; what must be done first holds it with a finalizer.
pub fn before_delete(server: &ApiServer, kind: &dyn Kind, object: &mut Tree) {
    if is(kind, "apiextensions.k8s.io", "customresourcedefinitions") && !meta::is_deleting(object) {
        crate::custom::mark(object, &meta::time(server.clock().now()));
    }
}

/// An object has just been marked for deletion.
pub fn on_marked(kind: &dyn Kind, object: &mut Tree) {
    if is(kind, "", "namespaces") {
        object.set(&["status", "phase"], "Terminating");
    }
}

/// An object is gone since revision `written`.
pub async fn after_delete(server: &ApiServer, kind: &dyn Kind, object: &Tree, written: Revision) {
    if is(kind, "", "services") {
        services::release(server, object, None, written).await;
    }
    if kind.facts().namespaced && !is(kind, "", "resourcequotas") {
        recount(server, meta::namespace(object)).await;
    }
}

/// The lease that ends a new version of an object of this kind, if there is one.
///
/// # Errors
/// When the store makes none.
pub async fn lease(server: &ApiServer, kind: &dyn Kind) -> ApiResult<Option<LeaseId>> {
    if kind.facts().plural.as_str() != "events" {
        return Ok(None);
    }
    server.event_lease(server.config.limits.event_ttl).await
}

/// Whether a kind is this resource.
pub fn is(kind: &dyn Kind, group: &str, plural: &str) -> bool {
    kind.facts().group == *group && kind.facts().plural == *plural
}
