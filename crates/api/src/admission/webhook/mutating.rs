//! Mutating webhooks: one after the other, each sees what those before it made of the object.

use std::sync::Arc;

use skiff_object::patch;
use skiff_object::{Tree, conform, json};

use super::call::{self, Failure};
use super::configuration::Hook;
use super::matching::{self, Invocation};
use super::review::{Answer, Half, Objects};
use crate::admission::Attributes;
use crate::errors::{ApiError, ApiResult};
use crate::server::ApiServer;

/// The plugin's name among those that remember whom they called.
const PLUGIN: &str = "MutatingAdmissionWebhook";

/// Asks every hook that the write is for.
///
/// # Errors
/// The first refusal.
pub(super) async fn dispatch(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hooks: &[Arc<Hook>],
    object: &mut Tree,
    old: Option<&Tree>,
) -> ApiResult<()> {
    let rounds = attributes.rounds;
    if rounds.is_second() {
        rounds.with(PLUGIN, |callees| {
            if callees.is_changed(object) {
                callees.require_previous();
            }
        });
    }
    let mut has_called = false;
    for (index, hook) in hooks.iter().enumerate() {
        let Some(invocation) = matching::invocation(server, attributes, hook, object, old).await? else { continue };
        // A second round calls nobody for the first time.
        if rounds.is_second() && !rounds.with(PLUGIN, |callees| callees.wants(&hook.uid)) {
            continue;
        }
        has_called = true;
        let is_changed = one(server, attributes, &invocation, index, object, old).await?;
        rounds.with(PLUGIN, |callees| {
            if is_changed {
                callees.require_previous();
            }
            if hook.is_reinvoked {
                callees.add_previous(&hook.uid);
            }
        });
        if is_changed {
            rounds.ask();
        }
    }
    if has_called {
        rounds.with(PLUGIN, |callees| callees.leave(object));
    }
    Ok(())
}

/// Asks one hook and does what it says; tells whether it changed anything.
async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    index: usize,
    object: &mut Tree,
    old: Option<&Tree>,
) -> ApiResult<bool> {
    let hook = invocation.hook.as_ref();
    let place = format!("round_{}_index_{index}", u8::from(attributes.rounds.is_second()));
    let seen = matching::seen(server, attributes, invocation, object).await?;
    let seen_old = match old {
        Some(old) => matching::seen(server, attributes, invocation, old).await?,
        None => Tree::Null,
    };
    let began = server.clock().instant();
    let objects = Objects { object: &seen, old: &seen_old };
    let mut outcome = call::call(server, attributes, invocation, Half::Mutating, &objects).await;
    let mut patched = None;
    if let Ok(Answer { patch: Some(patch), .. }) = &outcome {
        match apply(attributes, invocation, &seen, patch) {
            Ok(new) => patched = Some(new),
            Err(error) => outcome = Err(Failure::Refusing(error)),
        }
    }
    let took = server.clock().instant() - began;
    let answer = call::settle(server, attributes, hook, Half::Mutating, took, outcome, || {
        attributes.annotate(&format!("failed-open.mutation.webhook.admission.k8s.io/{place}"), hook.name.as_str());
    })?;
    let is_changed = patched.as_ref().is_some_and(|new| *new != seen);
    let note = annotation(hook, |note| note.set(&["mutated"], is_changed));
    attributes.annotate(&format!("mutation.webhook.admission.k8s.io/{place}"), note);
    if let (Some(new), Some(Answer { patch: Some(patch), .. })) = (patched, answer) {
        let note = annotation(hook, |note| {
            note.set(&["patch"], patch);
            note.set(&["patchType"], "JSONPatch");
        });
        attributes.annotate(&format!("patch.webhook.admission.k8s.io/{place}"), note);
        *object = if invocation.is_converted(attributes) && !matching::is_foreign(attributes) {
            matching::convert(server, &invocation.kind, &attributes.subject.kind, &new).await?
        } else {
            new
        };
        if !matching::is_foreign(attributes) {
            attributes.subject.kind.default(object);
        }
    }
    Ok(is_changed)
}

fn annotation(hook: &Hook, fill: impl FnOnce(&mut Tree)) -> String {
    let mut note = Tree::map();
    note.set(&["configuration"], hook.configuration.as_str());
    note.set(&["webhook"], hook.name.as_str());
    fill(&mut note);
    String::from_utf8_lossy(&json::encode_untyped(&note)).into_owned()
}

/// The object with a patch applied, decoded anew as what it is.
fn apply(attributes: &Attributes<'_>, invocation: &Invocation, seen: &Tree, patch: &Tree) -> ApiResult<Tree> {
    let hook = &invocation.hook.name;
    if seen.is_null() {
        return Err(ApiError::internal(format!(
            "admission webhook {hook:?} attempted to modify the object, which is not supported for this operation"
        )));
    }
    let kind = invocation.kind.as_ref();
    let facts = kind.facts();
    let (schema, ty) = if matching::is_foreign(attributes) {
        (skiff_kinds::schema(), facts.subresource(&attributes.subject.subresource).and_then(|sub| sub.ty))
    } else {
        (kind.schema(), Some(facts.ty))
    };
    let mut document = seen.clone();
    if let Some(ty) = ty {
        conform::fill(&mut document, schema, ty);
    }
    let patched = patch::json::apply(document, patch).map_err(ApiError::internal)?;
    if patched.as_map().is_none() {
        return Err(ApiError::internal(format!("admission webhook {hook:?} left no object behind")));
    }
    let same_type = ["apiVersion", "kind"].iter().all(|field| patched.get(field) == seen.get(field));
    if !same_type {
        return Err(ApiError::internal(format!("admission webhook {hook:?} changed the type of the object")));
    }
    match ty {
        Some(ty) => conform::conform(patched, schema, ty).map(|(tree, _)| tree).map_err(ApiError::internal),
        None => Ok(patched),
    }
}
