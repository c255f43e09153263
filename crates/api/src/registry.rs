//! What a few resources need beyond their kind: allocations, holds, leases.

use std::time::Duration;

use skiff_kinds::Kind;
use skiff_object::Tree;
use skiff_store::LeaseId;

use crate::errors::ApiResult;
use crate::server::ApiServer;
use crate::write::Writer;

/// Events are forgotten after this long, upstream's `--event-ttl`.
const EVENT_TTL: Duration = Duration::from_secs(3_600);

/// What to take back when a write does not happen after all.
#[derive(Debug, Default)]
pub struct Undo {}

impl Undo {
    /// Takes it back.
    pub fn run(self, _server: &ApiServer) {}
}

/// Before a new object is validated and stored.
pub async fn before_create(writer: &Writer<'_>, object: &mut Tree) -> ApiResult<Undo> {
    if is(writer.kind(), "", "namespaces") {
        add_namespace_finalizer(object);
    }
    Ok(Undo::default())
}

/// Before a changed object is validated and stored.
pub async fn before_update(_writer: &Writer<'_>, _new: &mut Tree, _old: &Tree) -> ApiResult<Undo> {
    Ok(Undo::default())
}

/// Whether the kind itself holds an object that has no finalizers left: a namespace stays while
/// `spec.finalizers` has entries.
pub fn holds(kind: &dyn Kind, object: &Tree) -> bool {
    is(kind, "", "namespaces") && !object.list_at(&["spec", "finalizers"]).is_empty()
}

/// An object has just been marked for deletion.
pub fn on_marked(kind: &dyn Kind, object: &mut Tree) {
    if is(kind, "", "namespaces") {
        object.set(&["status", "phase"], "Terminating");
    }
}

/// An object is gone.
pub async fn after_delete(_server: &ApiServer, _kind: &dyn Kind, _object: &Tree) {}

/// The lease that ends a new version of an object of this kind, if there is one.
pub async fn lease(server: &ApiServer, kind: &dyn Kind) -> ApiResult<Option<LeaseId>> {
    if kind.facts().plural.as_str() != "events" {
        return Ok(None);
    }
    server.event_lease(EVENT_TTL).await
}

/// Whether a kind is this resource.
pub fn is(kind: &dyn Kind, group: &str, plural: &str) -> bool {
    kind.facts().group == *group && kind.facts().plural == *plural
}

fn add_namespace_finalizer(object: &mut Tree) {
    let has = object.list_at(&["spec", "finalizers"]).iter().any(|one| one.as_str() == Some("kubernetes"));
    if !has {
        let mut finalizers = object.list_at(&["spec", "finalizers"]).to_vec();
        finalizers.push("kubernetes".into());
        object.set(&["spec", "finalizers"], finalizers);
    }
}
