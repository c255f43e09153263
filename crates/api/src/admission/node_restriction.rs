//! `NodeRestriction`: a kubelet writes its own node and the pods bound to it, nothing else.

use async_trait::async_trait;
use skiff_object::Tree;

use super::service_account::MIRROR;
use super::{Attributes, Operation, Plugin};
use crate::authn::UserInfo;
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::registry;
use crate::server::ApiServer;

/// See the [module](self).
pub struct NodeRestriction;

/// The node that a user is the kubelet of.
fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes"))
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        node_of(attributes.user).is_some()
    }

    async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let kind = attributes.subject.kind.as_ref();
        let refuse = |why: String| Err(ApiError::forbidden(attributes.subject.resource(), attributes.name, &why));
        if registry::is(kind, "", "nodes") && attributes.name != node {
            return refuse(format!("node {node:?} is not allowed to modify node {:?}", attributes.name));
        }
        if registry::is(kind, "coordination.k8s.io", "leases")
            && attributes.subject.namespace == "kube-node-lease"
            && attributes.name != node
        {
            return refuse("can only access node lease with the same name as the requesting node".into());
        }
        if !registry::is(kind, "", "pods") {
            return Ok(());
        }
        match attributes.operation {
            Operation::Create if meta::annotation(object, MIRROR).is_none() => {
                refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"))
            }
            Operation::Create if object.str_at(&["spec", "nodeName"]) != node => {
                refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
            }
            Operation::Update | Operation::Delete if old.unwrap_or(object).str_at(&["spec", "nodeName"]) != node => {
                refuse(format!("node {node:?} can only update or delete pods with spec.nodeName set to itself"))
            }
            _ => Ok(()),
        }
    }
}
