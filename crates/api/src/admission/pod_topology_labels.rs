//! `PodTopologyLabels`: a pod carries zone and region of its node, for whoever reads only the pod.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::registry;
use crate::server::ApiServer;

/// See the [module](self).
pub struct PodTopologyLabels;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create
            && registry::is(attributes.subject.kind.as_ref(), "", "pods")
            && matches!(attributes.subject.subresource.as_str(), "" | "binding")
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let node = match attributes.subject.subresource.as_str() {
            "" => object.str_at(&["spec", "nodeName"]),
            _ if object.str_at(&["target", "kind"]) == "Node" => object.str_at(&["target", "name"]),
            _ => "",
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(stored) = server.collection("", "nodes").get("", node).await? else { return Ok(()) };
        let node = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
        for key in LABELS {
            let Some(value) = meta::label(&node, key) else { continue };
            if meta::label(object, key).is_none() {
                let metadata = object.ensure_map().entry_or("metadata", Tree::map).ensure_map();
                metadata.entry_or("labels", Tree::map).ensure_map().insert(key, value);
            }
        }
        Ok(())
    }
}
