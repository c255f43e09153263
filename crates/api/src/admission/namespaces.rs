//! `NamespaceExists` and `NamespaceAutoProvision`: two ways to deal with a namespace that is not there.
//! Neither runs by itself; `NamespaceLifecycle` does all that most clusters want.

use async_trait::async_trait;
use skiff_object::Tree;

use super::{Attributes, Operation, Plugin};
use crate::authn::{MASTERS, UserInfo};
use crate::errors::{ApiError, ApiResult, Qualified};
use crate::registry;
use crate::request::options::WriteOptions;
use crate::server::ApiServer;
use crate::verbs::Subject;
use crate::verbs::create::write_new;
use crate::verbs::update::ChangeKind;
use crate::write::Writer;

/// Refuses what is to be in a namespace that is not there.
pub struct NamespaceExists;

/// Makes the namespace of what is created.
pub struct NamespaceAutoProvision;

fn is_namespaced(attributes: &Attributes<'_>) -> bool {
    attributes.subject.kind.facts().namespaced && !attributes.subject.namespace.is_empty()
}

async fn exists(server: &ApiServer, namespace: &str) -> ApiResult<bool> {
    let namespaces = server.collection("", "namespaces");
    let known = namespaces.cache().latest();
    if known.is_some_and(|known| known.get(&namespaces.key("", namespace)).is_some()) {
        return Ok(true);
    }
    Ok(namespaces.get("", namespace).await?.is_some())
}

#[async_trait]
impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Connect && is_namespaced(attributes)
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        _object: &Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let namespace = attributes.subject.namespace.as_str();
        if exists(server, namespace).await? {
            return Ok(());
        }
        Err(ApiError::not_found(Qualified { group: "", name: "namespaces" }, namespace))
    }
}

#[async_trait]
impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // What is only tried makes nothing, and a review must not either.
        attributes.operation == Operation::Create
            && !attributes.dry_run
            && is_namespaced(attributes)
            && !registry::is(attributes.subject.kind.as_ref(), "authorization.k8s.io", "localsubjectaccessreviews")
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        _object: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let namespace = attributes.subject.namespace.as_str();
        if exists(server, namespace).await? {
            return Ok(());
        }
        let registry = server.registry();
        let Some(kind) = registry.resource("", "v1", "namespaces") else { return Ok(()) };
        let subject = Subject::internal(server, kind, "", "");
        let (user, options) = (UserInfo::new("system:apiserver", &[MASTERS]), WriteOptions::default());
        let writer = Writer {
            server,
            subject: &subject,
            user: &user,
            options: &options,
            manager: "kube-apiserver".to_owned(),
            call: None,
            is_admitted: false,
            recorded: "",
        };
        let mut object = Tree::map();
        object.set(&["apiVersion"], "v1");
        object.set(&["kind"], "Namespace");
        object.set(&["metadata", "name"], namespace);
        match write_new(&writer, object, ChangeKind::Update).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }
}
