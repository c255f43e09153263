//! `NamespaceLifecycle`: no objects in namespaces that are absent or on their way out, and the
//! namespaces of the system stay.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::meta;
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
            Operation::Create => {
                attributes.subject.kind.facts().namespaced && attributes.subject.subresource.is_empty()
            }
            Operation::Delete => attributes.is("", "namespaces"),
            _ => false,
        }
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        _object: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let facts = attributes.subject.kind.facts();
        let namespaces = server.collection("", "namespaces");
        let namespace = attributes.subject.namespace.as_str();
        let Some(stored) = namespaces.get("", namespace).await? else {
            return Err(ApiError::not_found(Qualified { group: "", name: "namespaces" }, namespace));
        };
        let object = json::decode_untyped(&stored.value).map_err(|error| ApiError::internal(error.to_string()))?;
        if object.str_at(&["status", "phase"]) == "Terminating" || meta::is_deleting(&object) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let resource = Qualified { group: facts.group.as_str(), name: facts.plural.as_str() };
            return Err(ApiError::forbidden(resource, attributes.name, &why).with_cause(
                "NamespaceTerminating",
                format!("namespace {namespace} is being terminated"),
                "metadata.namespace",
            ));
        }
        Ok(())
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        _object: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        if attributes.operation == Operation::Delete && IMMORTAL.contains(&attributes.name) {
            return Err(ApiError::forbidden(
                attributes.subject.resource(),
                attributes.name,
                "this namespace may not be deleted",
            ));
        }
        Ok(())
    }
}
