//! Which hooks a write is for, and in which version each sees it.

use std::sync::Arc;

use skiff_kinds::Kind;
use skiff_object::selector::label::{LabelSelectorError, Selector};
use skiff_object::{Tree, json};

use super::conditions::Verdict;
use super::configuration::{Hook, Rule};
use crate::admission::{Attributes, Operation};
use crate::custom;
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::registry;
use crate::server::ApiServer;

/// A hook that is to be called.
pub struct Invocation {
    /// The hook.
    pub hook: Arc<Hook>,
    /// The kind whose version the hook sees: the one that was asked for, or an equivalent.
    pub kind: Arc<dyn Kind>,
}

impl Invocation {
    /// Whether the hook sees another version than the client sent.
    pub fn is_converted(&self, attributes: &Attributes<'_>) -> bool {
        self.kind.facts().api_version != attributes.subject.kind.facts().api_version
    }
}

/// The call that a write means for a hook; `None` when it is not for it.
///
/// # Errors
/// When a selector or a condition cannot be told and the hook's rules match.
pub async fn invocation(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Arc<Hook>,
    object: &Tree,
    old: Option<&Tree>,
) -> ApiResult<Option<Invocation>> {
    // Rules first: they cost nothing, and what they rule out must not fail for another reason.
    let Some(kind) = kind_for(server, attributes, &hook.rules, hook.is_equivalent) else { return Ok(None) };
    if !namespace_matches(server, attributes, &hook.namespace_selector, object).await? {
        return Ok(None);
    }
    if !object_matches(&hook.object_selector, object, old)? {
        return Ok(None);
    }
    let invocation = Invocation { hook: Arc::clone(hook), kind };
    match conditions(server, attributes, &invocation, object, old).await? {
        Verdict::Ask => Ok(Some(invocation)),
        Verdict::Skip => Ok(None),
        Verdict::Error(why) => {
            tracing::warn!(webhook = hook.name, why, "match conditions cannot be told; refusing");
            Err(ApiError::forbidden(attributes.subject.resource(), attributes.name, &why))
        }
    }
}

async fn conditions(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    object: &Tree,
    old: Option<&Tree>,
) -> ApiResult<Verdict> {
    let conditions = &invocation.hook.conditions;
    if conditions.is_empty() {
        return Ok(Verdict::Ask);
    }
    let object = seen(server, attributes, invocation, object).await?;
    let old = seen(server, attributes, invocation, old.unwrap_or(&Tree::Null)).await?;
    Ok(conditions.verdict(server, attributes, &invocation.kind, &object, &old).await)
}

/// Whether the labels of the object, as it is or as it was, are selected.
pub(in crate::admission) fn object_matches(
    selector: &Result<Selector, LabelSelectorError>,
    object: &Tree,
    old: Option<&Tree>,
) -> ApiResult<bool> {
    let selector = selector.as_ref().map_err(ApiError::internal)?;
    Ok(selector.is_everything() || has_labels(selector, object) || old.is_some_and(|old| has_labels(selector, old)))
}

fn has_labels(selector: &Selector, object: &Tree) -> bool {
    !object.is_null() && selector.matches_labels(object.at(&["metadata", "labels"]))
}

/// The kind in which rules match the write.
pub(in crate::admission) fn kind_for(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    rules: &[Rule],
    is_equivalent: bool,
) -> Option<Arc<dyn Kind>> {
    let own = &attributes.subject.kind;
    if rules.iter().any(|rule| rule_matches(rule, attributes, own.as_ref())) {
        return Some(Arc::clone(own));
    }
    if !is_equivalent {
        return None;
    }
    let registry = server.registry();
    let facts = own.facts();
    let is_equivalent = |other: &&Arc<dyn Kind>| {
        let other = other.facts();
        other.storage.group == facts.storage.group
            && other.plural == facts.plural
            && other.api_version != facts.api_version
            && (attributes.subject.subresource.is_empty()
                || other.subresource(&attributes.subject.subresource).is_some())
    };
    let equivalents: Vec<&Arc<dyn Kind>> = registry.iter().filter(is_equivalent).collect();
    rules.iter().find_map(|rule| {
        equivalents.iter().find(|kind| rule_matches(rule, attributes, kind.as_ref())).map(|kind| Arc::clone(kind))
    })
}

fn rule_matches(rule: &Rule, attributes: &Attributes<'_>, kind: &dyn Kind) -> bool {
    let facts = kind.facts();
    let any = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
    // A namespace counts as cluster-wide although it is in itself.
    let in_namespace = !attributes.namespace().is_empty() && !registry::is(kind, "", "namespaces");
    let in_scope = match rule.scope.as_str() {
        "Namespaced" => in_namespace,
        "Cluster" => !in_namespace,
        _ => true,
    };
    in_scope
        && (rule.names.is_empty() || rule.names.iter().any(|name| name == attributes.name))
        && any(&rule.operations, attributes.operation.as_str())
        && any(&rule.groups, facts.group.as_str())
        && any(&rule.versions, facts.version.as_str())
        && rule.resources.iter().any(|resource| {
            let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
            (plural == "*" || plural == facts.plural.as_str()) && (sub == "*" || sub == attributes.subject.subresource)
        })
}

/// Whether the labels of the write's namespace are selected.
pub(in crate::admission) async fn namespace_matches(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    selector: &Result<Selector, LabelSelectorError>,
    object: &Tree,
) -> ApiResult<bool> {
    let is_namespace = registry::is(attributes.subject.kind.as_ref(), "", "namespaces");
    let namespace = attributes.namespace();
    // What is in no namespace is never exempted by one.
    if namespace.is_empty() && !is_namespace {
        return Ok(true);
    }
    let selector = selector.as_ref().map_err(ApiError::internal)?;
    if selector.is_everything() {
        return Ok(true);
    }
    let is_written = matches!(attributes.operation, Operation::Create | Operation::Update);
    if is_namespace && is_written && attributes.subject.subresource.is_empty() {
        return Ok(has_labels(selector, object));
    }
    let found = server.collection("", "namespaces").known_get("", namespace).await?;
    let found = found.ok_or_else(|| ApiError::not_found(Qualified { group: "", name: "namespaces" }, namespace))?;
    let found = json::decode_untyped(&found.value).map_err(ApiError::internal)?;
    Ok(has_labels(selector, &found))
}

/// An object of one kind as an equivalent kind shows it.
///
/// # Errors
/// When the object cannot be converted, or the conversion webhook of its definition fails.
pub async fn convert(server: &ApiServer, from: &Arc<dyn Kind>, to: &Arc<dyn Kind>, object: &Tree) -> ApiResult<Tree> {
    if let Some(converted) = custom::convert::between(server, to.as_ref(), object).await? {
        return Ok(converted);
    }
    let mut converted = object.clone();
    from.to_stored(&mut converted);
    to.to_served(&mut converted);
    let facts = to.facts();
    converted.set(&["apiVersion"], facts.api_version.as_str());
    converted.set(&["kind"], facts.kind.as_str());
    Ok(converted)
}

/// As [`convert`], for what a write carries: null stays null, and what is not the object itself
/// (a scale) is the same in every version.
///
/// # Errors
/// When the object cannot be converted.
pub async fn seen(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    object: &Tree,
) -> ApiResult<Tree> {
    if object.is_null() || !invocation.is_converted(attributes) || is_foreign(attributes) {
        return Ok(object.clone());
    }
    convert(server, &attributes.subject.kind, &invocation.kind, object).await
}

/// Whether what is exchanged is of another type than the resource's objects.
pub fn is_foreign(attributes: &Attributes<'_>) -> bool {
    let facts = attributes.subject.kind.facts();
    let sub = facts.subresource(&attributes.subject.subresource).filter(|_| !attributes.subject.subresource.is_empty());
    sub.is_some_and(|sub| sub.ty != Some(facts.ty))
}
