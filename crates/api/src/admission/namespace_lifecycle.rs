//! `NamespaceLifecycle`: no objects in namespaces that are absent or on their way out, and the
//! namespaces of the system stay.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::meta;
use crate::registry;
use crate::server::ApiServer;

/// See the [module](self).
pub struct NamespaceLifecycle;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        match attributes.operation {
            Operation::Create | Operation::Update => {
                // A review says nothing about what is there: its answer must not either.
                attributes.subject.kind.facts().namespaced && !is_access_review(attributes)
            }
            Operation::Delete => attributes.is("", "namespaces"),
            Operation::Connect => false,
        }
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        if attributes.operation == Operation::Delete {
            return keep(attributes);
        }
        // A namespace that is made or marked by a request that has been answered counts.
        let namespace = attributes.subject.namespace.as_str();
        let namespaces = server.collection("", "namespaces");
        if attributes.operation == Operation::Update
            && namespaces.cache().latest().is_some_and(|known| known.get(&namespaces.key("", namespace)).is_some())
        {
            return Ok(());
        }
        let Some(stored) = namespaces.known_get("", namespace).await? else {
            return Err(ApiError::not_found(Qualified { group: "", name: "namespaces" }, namespace));
        };
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        // Both say so in words of their own; a namespace without them is not worth decoding for every create.
        let says = |word: &str| memchr::memmem::find(&stored.value, word.as_bytes()).is_some();
        if !says("Terminating") && !says("deletionTimestamp") {
            return Ok(());
        }
        let found = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
        if found.str_at(&["status", "phase"]) == "Terminating" || meta::is_deleting(&found) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(attributes.forbidden(object, &why).with_cause(
                "NamespaceTerminating",
                format!("namespace {namespace} is being terminated"),
                "metadata.namespace",
            ));
        }
        Ok(())
    }
}

fn keep(attributes: &Attributes<'_>) -> ApiResult<()> {
    if IMMORTAL.contains(&attributes.name) {
        let resource = attributes.subject.resource();
        return Err(ApiError::forbidden(resource, attributes.name, "this namespace may not be deleted"));
    }
    Ok(())
}

fn is_access_review(attributes: &Attributes<'_>) -> bool {
    registry::is(attributes.subject.kind.as_ref(), "authorization.k8s.io", "localsubjectaccessreviews")
}
