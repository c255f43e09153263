//! `OwnerReferencesPermissionEnforcement` (off unless asked for): who makes an object somebody's
//! dependent can have it deleted, so needs the right to delete it; who makes it hold its owner back
//! needs the right to set the owner's finalizers.

use async_trait::async_trait;
use skiff_kinds::facts::split_api_version;
use skiff_object::Tree;

use super::{Attributes, Operation, Plugin};
use crate::authz::{self, Decision, Target};
use crate::errors::ApiResult;
use crate::registry;
use crate::server::ApiServer;

/// See the [module](self).
pub struct OwnerReferencesPermissionEnforcement;

fn owners(object: &Tree) -> &[Tree] {
    object.list_at(&["metadata", "ownerReferences"])
}

fn blocks(owner: &Tree) -> bool {
    owner.bool_at(&["blockOwnerDeletion"]) == Some(true)
}

async fn ask(server: &ApiServer, attributes: &Attributes<'_>, verb: &str, target: Target<'_>) -> Decision {
    let asked = authz::Attributes::new(attributes.user, verb, target);
    authz::decide(server.config.authorizer.as_ref(), &asked).await
}

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        // A status cannot change owners.
        let is_pod_status =
            attributes.subject.subresource == "status" && registry::is(attributes.subject.kind.as_ref(), "", "pods");
        matches!(attributes.operation, Operation::Create | Operation::Update) && !is_pod_status
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        if owners(object) == old.map_or(&[][..], owners) {
            return Ok(());
        }
        let facts = attributes.subject.kind.facts();
        // Whoever only takes references away makes nothing a dependent; upstream asks all the same.
        if attributes.operation == Operation::Update {
            let target = Target::Resource {
                group: facts.group.as_str(),
                version: facts.version.as_str(),
                resource: facts.plural.as_str(),
                subresource: &attributes.subject.subresource,
                namespace: &attributes.subject.namespace,
                name: attributes.name,
            };
            let decision = ask(server, attributes, "delete", target).await;
            if !decision.is_allowed() {
                let reason = decision.reason();
                let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
                return Err(attributes.forbidden(object, &why));
            }
        }
        let before = old.map_or(&[][..], owners);
        for owner in owners(object).iter().filter(|owner| blocks(owner)) {
            let same = before.iter().find(|old| old.str_at(&["uid"]) == owner.str_at(&["uid"]));
            if same.is_none_or(|old| !blocks(old)) {
                self.may_block(server, attributes, object, owner).await?;
            }
        }
        Ok(())
    }
}

impl OwnerReferencesPermissionEnforcement {
    async fn may_block(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        owner: &Tree,
    ) -> ApiResult<()> {
        let (api_version, kind) = (owner.str_at(&["apiVersion"]), owner.str_at(&["kind"]));
        let registry = server.registry();
        let Some(found) = registry.kind(api_version, kind) else {
            let why = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                 {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
            );
            return Err(attributes.forbidden(object, &why));
        };
        let facts = found.facts();
        let (group, version) = split_api_version(api_version);
        let target = Target::Resource {
            group,
            version,
            resource: facts.plural.as_str(),
            subresource: "finalizers",
            namespace: if facts.namespaced { &attributes.subject.namespace } else { "" },
            name: owner.str_at(&["name"]),
        };
        let decision = ask(server, attributes, "update", target).await;
        if decision.is_allowed() {
            return Ok(());
        }
        let why = format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, \
             <nil>",
            decision.reason()
        );
        Err(attributes.forbidden(object, &why))
    }
}
