//! Keeps the objects that every cluster has, follows all of them, and says in their status what is
//! missing.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use skiff_object::{Tree, json};
use skiff_store::cache::{Scope, Snapshot, Watcher};

use super::bootstrap::{self, AUTOUPDATE, Kept};
use super::{Object, shares};
use crate::authn::{MASTERS, UserInfo};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::{ApiServer, Local};
use crate::storage::Item;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations";
const SCHEMAS: &str = "flowschemas";
/// Who keeps the objects, and who writes their status, as field managers.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Between two attempts after the store failed.
const RETRY: std::time::Duration = std::time::Duration::from_millis(500);

/// Makes what is absent, uses what is there, and keeps following it until the server stops.
///
/// # Errors
/// When the objects cannot be read or made.
pub(crate) async fn start(server: &Arc<ApiServer>) -> ApiResult<()> {
    if !server.flow_control.enabled {
        return Ok(());
    }
    let local = server.local(UserInfo::new("system:apiserver", &[MASTERS]));
    ensure(server, &local).await?;
    digest(server, &local).await?;
    let follower = Arc::clone(server);
    server.config.tasks.spawn("flow-control", async move {
        loop {
            if let Err(error) = follow(&follower, &local).await {
                tracing::debug!(%error, "following the flow schemas anew");
            }
            follower.clock().sleep(RETRY).await;
        }
    });
    let lender = Arc::clone(server);
    server.config.tasks.spawn("flow-control-lending", async move {
        loop {
            lender.clock().sleep(shares::PERIOD).await;
            lender.flow_control.lend();
        }
    });
    Ok(())
}

async fn follow(server: &Arc<ApiServer>, local: &Local) -> ApiResult<()> {
    let (mut levels, mut schemas) = (watch(server, LEVELS).await?, watch(server, SCHEMAS).await?);
    loop {
        ensure(server, local).await?;
        digest(server, local).await?;
        let changed = tokio::select! {
            biased;
            changed = levels.next() => changed.map(drop),
            changed = schemas.next() => changed.map(drop),
        };
        changed.map_err(ApiError::internal)?;
        // What came together is digested together.
        while levels.try_next().is_some() || schemas.try_next().is_some() {}
    }
}

async fn snapshot(server: &ApiServer, plural: &str) -> ApiResult<Snapshot<Item>> {
    let collection = server.collection(GROUP, plural);
    collection.cache().current().await.map_err(|error| collection.failure(error))
}

async fn watch(server: &ApiServer, plural: &str) -> ApiResult<Watcher<Item>> {
    let collection = server.collection(GROUP, plural);
    let failure = |error| collection.failure(error);
    let snapshot = collection.cache().current().await.map_err(failure)?;
    let scope = Scope::prefix(&collection.prefix());
    collection.cache().watch(scope, snapshot.revision()).await.map_err(failure)
}

fn trees(snapshot: &Snapshot<Item>) -> Vec<Tree> {
    snapshot.range(b"", None).filter_map(|(_, item)| json::decode_untyped(&item.stored.value).ok()).collect()
}

/// Makes and mends the objects that the server keeps, and removes those that it kept and that are
/// no longer among them.
async fn ensure(server: &ApiServer, local: &Local) -> ApiResult<()> {
    let kept = bootstrap::objects();
    for plural in [LEVELS, SCHEMAS] {
        let present = trees(&snapshot(server, plural).await?);
        for wanted in kept.iter().filter(|one| one.plural == plural) {
            let found = present.iter().find(|object| meta::name(object) == wanted.name);
            match found {
                None => make(local, wanted).await?,
                Some(found) => mend(local, wanted, found).await?,
            }
        }
        for left in present.iter().filter(|object| annotation(object) == "true") {
            let name = meta::name(left);
            if kept.iter().all(|one| one.plural != plural || one.name != name) {
                send(local, Method::DELETE, &format!("{}/{name}", path(plural)), None, &[StatusCode::NOT_FOUND])
                    .await?;
            }
        }
    }
    Ok(())
}

fn annotation(object: &Tree) -> &str {
    object.str_at(&["metadata", "annotations", AUTOUPDATE])
}

fn path(plural: &str) -> String {
    format!("/apis/{GROUP}/v1/{plural}")
}

async fn make(local: &Local, wanted: &Kept) -> ApiResult<()> {
    let mut object = Tree::map();
    object.set(&["apiVersion"], "flowcontrol.apiserver.k8s.io/v1");
    object.set(&["kind"], if wanted.plural == LEVELS { "PriorityLevelConfiguration" } else { "FlowSchema" });
    object.set(&["metadata", "name"], wanted.name);
    object.set(&["metadata", "annotations", AUTOUPDATE], "true");
    object.set(&["spec"], wanted.spec.clone());
    let path = format!("{}?fieldManager={PRODUCER}", path(wanted.plural));
    send(local, Method::POST, &path, Some(&object), &[StatusCode::CONFLICT]).await
}

/// Gives an object its spec back, unless its annotation says that somebody else looks after it.
async fn mend(local: &Local, wanted: &Kept, found: &Tree) -> ApiResult<()> {
    // Without the annotation, an object that was never changed is the server's.
    let untouched = annotation(found).is_empty() && found.int_at(&["metadata", "generation"]) == Some(1);
    let keeps = wanted.is_mandatory || annotation(found) == "true" || untouched;
    let annotated = if keeps { "true" } else { "false" };
    let mut object = found.clone();
    object.set(&["metadata", "annotations", AUTOUPDATE], annotated);
    if keeps {
        object.set(&["spec"], mended_spec(wanted, found));
    }
    if object == *found {
        return Ok(());
    }
    let path = format!("{}/{}?fieldManager={PRODUCER}", path(wanted.plural), wanted.name);
    // Somebody else was faster, or it is gone: the change comes back here.
    send(local, Method::PUT, &path, Some(&object), &[StatusCode::CONFLICT, StatusCode::NOT_FOUND]).await
}

/// The wanted spec, with the fields that may be chosen for `exempt` as they are.
fn mended_spec(wanted: &Kept, found: &Tree) -> Tree {
    let mut spec = wanted.spec.clone();
    if wanted.plural == LEVELS && wanted.name == "exempt" {
        for field in ["nominalConcurrencyShares", "lendablePercent"] {
            if let Some(value) = found.at(&["spec", "exempt", field]) {
                spec.set(&["exempt", field], value.clone());
            }
        }
    }
    if same(&spec, found.get("spec").unwrap_or(&Tree::Null)) {
        found.get("spec").cloned().unwrap_or(spec)
    } else {
        spec
    }
}

/// Whether two trees say the same, in whatever order their keys stand.
fn same(one: &Tree, other: &Tree) -> bool {
    match (one, other) {
        (Tree::Map(one), Tree::Map(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key.as_str()).is_some_and(|other| same(value, other)))
        }
        (Tree::List(one), Tree::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => one == other,
    }
}

/// Uses the objects as they are now, and says in the schemas' status whether their level is there.
async fn digest(server: &ApiServer, local: &Local) -> ApiResult<()> {
    let objects = |trees: &[Tree]| {
        trees
            .iter()
            .map(|tree| Object {
                name: meta::name(tree).to_owned(),
                uid: meta::uid(tree).to_owned(),
                spec: tree.get("spec").cloned().unwrap_or_else(Tree::map),
            })
            .collect::<Vec<_>>()
    };
    let levels = objects(&trees(&snapshot(server, LEVELS).await?));
    let schemas = trees(&snapshot(server, SCHEMAS).await?);
    server.flow_control.configure(&levels, &objects(&schemas));
    for schema in &schemas {
        let level = schema.str_at(&["spec", "priorityLevelConfiguration", "name"]);
        let found = levels.iter().any(|one| one.name == level);
        if let Some(status) = dangling(server, schema, level, found) {
            let path = format!("{}/{}/status?fieldManager={CONSUMER}&force=true", path(SCHEMAS), meta::name(schema));
            send(local, Method::PATCH, &path, Some(&status), &[StatusCode::NOT_FOUND, StatusCode::CONFLICT]).await?;
        }
    }
    Ok(())
}

/// The status a schema should have; nothing when it has it.
fn dangling(server: &ApiServer, schema: &Tree, level: &str, found: bool) -> Option<Tree> {
    let (status, reason, what) =
        if found { ("False", "Found", "and it exists") } else { ("True", "NotFound", "but there is no such object") };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {what}");
    let conditions = schema.list_at(&["status", "conditions"]);
    let present = conditions.iter().find(|one| one.str_at(&["type"]) == "Dangling");
    if present.is_some_and(|one| {
        one.str_at(&["status"]) == status && one.str_at(&["reason"]) == reason && one.str_at(&["message"]) == message
    }) {
        return None;
    }
    let since = present
        .filter(|one| one.str_at(&["status"]) == status)
        .map(|one| one.str_at(&["lastTransitionTime"]).to_owned())
        .unwrap_or_else(|| meta::time(server.clock().now()).to_string());
    let mut condition = Tree::map();
    for (key, text) in [
        ("type", "Dangling"),
        ("status", status),
        ("lastTransitionTime", &since),
        ("reason", reason),
        ("message", &message),
    ] {
        condition.set(&[key], text);
    }
    let mut object = Tree::map();
    object.set(&["apiVersion"], "flowcontrol.apiserver.k8s.io/v1");
    object.set(&["kind"], "FlowSchema");
    object.set(&["metadata", "name"], meta::name(schema));
    object.set(&["status", "conditions"], vec![condition]);
    Some(object)
}

async fn send(local: &Local, method: Method, path: &str, body: Option<&Tree>, fine: &[StatusCode]) -> ApiResult<()> {
    let content = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, content)
        .header(http::header::USER_AGENT, "kube-apiserver")
        .body(body.map_or_else(Bytes::new, |tree| Bytes::from(json::encode_untyped(tree))))
        .map_err(ApiError::internal)?;
    let response = local.call(request).await;
    let status = response.status();
    if status.is_success() || fine.contains(&status) {
        return Ok(());
    }
    let body = response.into_body().collect().await.unwrap_or_default();
    Err(ApiError::internal(format!("{path}: {status} {}", String::from_utf8_lossy(&body))))
}
