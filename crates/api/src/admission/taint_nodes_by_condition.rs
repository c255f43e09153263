//! `TaintNodesByCondition`: a node begins as not ready, so that nothing is bound to it too early.

use async_trait::async_trait;
use skiff_object::{Map, Tree};

use super::{Attributes, Operation, Plugin};
use crate::errors::ApiResult;
use crate::server::ApiServer;

/// See the [module](self).
pub struct TaintNodesByCondition;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "nodes")
    }

    async fn mutate(
        &self,
        _server: &ApiServer,
        _attributes: &Attributes<'_>,
        node: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let tainted = node
            .list_at(&["spec", "taints"])
            .iter()
            .any(|taint| taint.str_at(&["key"]) == NOT_READY && taint.str_at(&["effect"]) == "NoSchedule");
        if tainted {
            return Ok(());
        }
        let mut taint = Map::new();
        taint.insert("key", NOT_READY);
        taint.insert("effect", "NoSchedule");
        let spec = node.ensure_map().entry_or("spec", Tree::map).ensure_map();
        match spec.entry_or("taints", Tree::list) {
            Tree::List(items) => items.push(Tree::Map(taint)),
            other => *other = Tree::List(vec![Tree::Map(taint)]),
        }
        Ok(())
    }
}
