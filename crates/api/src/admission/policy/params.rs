//! The params of a binding.

use std::sync::Arc;

use skiff_kinds::Kind;
use skiff_object::Tree;
use skiff_object::selector::label::Selector;

use super::compiled::{Binding, Policy};
use crate::admission::Attributes;
use crate::respond;
use crate::server::ApiServer;

/// What the policy is evaluated with, one after the other: null where it has no params or the binding gives none.
///
/// # Errors
/// Why the params cannot be told, in upstream's words.
pub async fn collect(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    policy: &Policy,
    binding: &Binding,
) -> Result<Vec<Tree>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(vec![Tree::Null]) };
    let reference = &binding.param_ref;
    if reference.is_null() {
        return Ok(vec![Tree::Null]);
    }
    let registry = server.registry();
    let Some(kind) = registry.kind(api_version, kind) else {
        return Err(format!("paramKind kind `{}` not known", shown(api_version, kind)));
    };
    let namespace = namespace(attributes, kind, reference)?;
    let name = reference.str_at(&["name"]);
    let selector = reference.get("selector").filter(|selector| !selector.is_null());
    let found = match (name, selector) {
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        ("", Some(selector)) => selected(server, kind, &namespace, selector).await?,
        (_, Some(_)) => return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned()),
        (name, None) => named(server, kind, &namespace, name).await?,
    };
    if found.is_empty() && reference.str_at(&["parameterNotFoundAction"]) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

/// A `ParamKind` as Go prints it.
fn shown(api_version: &str, kind: &str) -> String {
    format!("&ParamKind{{APIVersion:{api_version},Kind:{kind},}}")
}

fn namespace(attributes: &Attributes<'_>, kind: &Arc<dyn Kind>, reference: &Tree) -> Result<String, String> {
    let given = reference.str_at(&["namespace"]);
    if !kind.facts().namespaced {
        return match given {
            "" => Ok(String::new()),
            _ => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        };
    }
    match (given, attributes.namespace()) {
        ("", "") => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned())
        }
        ("", own) => Ok(own.to_owned()),
        (given, _) => Ok(given.to_owned()),
    }
}

async fn named(server: &ApiServer, kind: &Arc<dyn Kind>, namespace: &str, name: &str) -> Result<Vec<Tree>, String> {
    let storage = &kind.facts().storage;
    let collection = server.collection(storage.group.as_str(), kind.facts().plural.as_str());
    let found = collection.get(namespace, name).await.map_err(|error| error.message)?;
    let found = found.map(|stored| respond::served(kind.as_ref(), &stored)).transpose();
    Ok(found.map_err(|error| error.message)?.into_iter().collect())
}

async fn selected(
    server: &ApiServer,
    kind: &Arc<dyn Kind>,
    namespace: &str,
    selector: &Tree,
) -> Result<Vec<Tree>, String> {
    let selector = Selector::from_object(Some(selector)).map_err(|error| error.to_string())?;
    let storage = &kind.facts().storage;
    let collection = server.collection(storage.group.as_str(), kind.facts().plural.as_str());
    let mut found = Vec::new();
    for item in collection.list(namespace).await.map_err(|error| error.message)? {
        let object = respond::served(kind.as_ref(), &item.stored).map_err(|error| error.message)?;
        if selector.matches_labels(object.at(&["metadata", "labels"])) {
            found.push(object);
        }
    }
    Ok(found)
}
