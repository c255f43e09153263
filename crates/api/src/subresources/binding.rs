//! `pods/binding` and `bindings`: a pod gets its node.

use http::{Response, StatusCode};
use skiff_kinds::Kind;
use skiff_object::{Map, Tree};

use crate::admission::exchanged;
use crate::body::Body;
use crate::chain::Call;
use crate::errors::{self, ApiError, ApiResult, Qualified};
use crate::negotiate::{self, Offer};
use crate::request::options::WriteOptions;
use crate::server::ApiServer;
use crate::verbs::Subject;
use crate::verbs::update::CONFLICT_RETRIES_MAX;
use crate::write::{self, Expected, encode_stored};
use crate::{meta, respond};

/// Binds the pod that the path or the body names.
///
/// # Errors
/// 409 when the pod has a node already or is on its way out.
pub async fn bind(server: &ApiServer, call: &mut Call, subject: &Subject) -> ApiResult<Response<Body>> {
    let form = negotiate::accept(&call.headers, &call.query, Offer::PLAIN)?;
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let ty = respond::type_named("v1", "Binding").ok_or_else(|| ApiError::internal("Binding is not in the schema"))?;
    let expected = Expected { api_version: "v1", kind: "Binding", schema: skiff_kinds::schema(), ty };
    let mut binding = write::decode_body(call, Offer::PLAIN, expected, options.field_validation).await?;
    let name = if subject.name.is_empty() { meta::name(&binding) } else { subject.name.as_str() }.to_owned();
    let name = name.as_str();
    if name.is_empty() || (!meta::name(&binding).is_empty() && meta::name(&binding) != name) {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            meta::name(&binding)
        )));
    }
    exchanged::create(server, call, subject, name, &options, &mut binding).await?;
    check_target(&binding, name)?;
    let registry = server.registry();
    let pods = registry.resource("", "v1", "pods").ok_or_else(|| ApiError::internal("pods are not served"))?;
    let pod = Subject::internal(server, pods, &subject.namespace, name);
    assign(server, &pod, &binding, options.dry_run).await?;
    Ok(respond::status(StatusCode::CREATED, &errors::success_status(), form))
}

fn check_target(binding: &Tree, name: &str) -> ApiResult<()> {
    let kind = Qualified { group: "", name: "Binding" };
    let target = binding.str_at(&["target", "kind"]);
    if !matches!(target, "" | "Node") {
        return Err(ApiError::invalid_field(
            kind,
            name,
            "FieldValueNotSupported",
            "target.kind",
            format!("Unsupported value: {target:?}: supported values: \"Node\", \"<empty>\""),
        ));
    }
    if binding.str_at(&["target", "name"]).is_empty() {
        return Err(ApiError::invalid_field(kind, name, "FieldValueRequired", "target.name", "Required value".into()));
    }
    Ok(())
}

async fn assign(server: &ApiServer, pod: &Subject, binding: &Tree, dry_run: bool) -> ApiResult<()> {
    let kind: &dyn Kind = pod.kind.as_ref();
    for _ in 0..CONFLICT_RETRIES_MAX {
        let current = pod.collection.get(&pod.namespace, &pod.name).await?.ok_or_else(|| pod.not_found())?;
        let mut object = respond::decode_stored(kind, &current.value)?;
        let conflict =
            |why: String| Err(ApiError::conflict(Qualified { group: "", name: "pods/binding" }, &pod.name, &why));
        let uid = meta::uid(binding);
        if !uid.is_empty() && uid != meta::uid(&object) {
            return conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta::uid(&object)
            ));
        }
        if meta::is_deleting(&object) {
            return conflict(format!("pod {} is being deleted, cannot be assigned to a host", pod.name));
        }
        let node = object.str_at(&["spec", "nodeName"]);
        if !node.is_empty() {
            return conflict(format!("pod {} is already assigned to node {node:?}", pod.name));
        }
        if !object.list_at(&["spec", "schedulingGates"]).is_empty() {
            return conflict(format!("pod {} has non-empty .spec.schedulingGates", pod.name));
        }
        object.set(&["spec", "nodeName"], binding.str_at(&["target", "name"]));
        for part in ["annotations", "labels"] {
            let given = binding.at(&["metadata", part]).and_then(Tree::as_map);
            for (key, value) in given.into_iter().flat_map(Map::iter) {
                let metadata = object.ensure_map().entry_or("metadata", Tree::map).ensure_map();
                metadata.entry_or(part, Tree::map).ensure_map().insert(key.clone(), value.clone());
            }
        }
        set_scheduled(&mut object, &meta::time(server.clock().now()));
        let value = encode_stored(kind, &object)?;
        if dry_run {
            return Ok(());
        }
        let stored = pod.collection.replace(&pod.namespace, &pod.name, value, current.revision, None).await?;
        if stored.is_some() {
            return Ok(());
        }
    }
    Err(ApiError::stale(pod.resource(), &pod.name))
}

fn set_scheduled(pod: &mut Tree, now: &str) {
    set_condition(pod, "PodScheduled", now, "", "");
}

/// Sets a pod condition to `True`.
pub fn set_condition(pod: &mut Tree, condition: &str, now: &str, reason: &str, message: &str) {
    let status = pod.ensure_map().entry_or("status", Tree::map).ensure_map();
    let Tree::List(conditions) = status.entry_or("conditions", Tree::list) else { return };
    let found = conditions.iter().position(|one| one.str_at(&["type"]) == condition);
    let index = found.unwrap_or_else(|| {
        let mut fresh = Tree::map();
        fresh.set(&["type"], condition);
        conditions.push(fresh);
        conditions.len() - 1
    });
    let slot = &mut conditions[index];
    if slot.str_at(&["status"]) != "True" {
        slot.set(&["lastTransitionTime"], now);
    }
    slot.set(&["status"], "True");
    slot.set(&["lastProbeTime"], Tree::Null);
    for (key, value) in [("reason", reason), ("message", message)] {
        if value.is_empty() {
            slot.unset(&[key]);
        } else {
            slot.set(&[key], value);
        }
    }
}
