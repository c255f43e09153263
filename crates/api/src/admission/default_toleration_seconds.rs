//! `DefaultTolerationSeconds`: a pod stays five minutes on a node that has gone quiet.

use async_trait::async_trait;
use skiff_object::{Map, Tree};

use super::{Attributes, Operation, Plugin};
use crate::errors::ApiResult;
use crate::server::ApiServer;

/// See the [module](self).
pub struct DefaultTolerationSeconds;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    async fn mutate(
        &self,
        _server: &ApiServer,
        _attributes: &Attributes<'_>,
        pod: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        for taint in TAINTS {
            let tolerated = pod.list_at(&["spec", "tolerations"]).iter().any(|toleration| {
                let key = toleration.str_at(&["key"]);
                (key.is_empty() || key == taint) && matches!(toleration.str_at(&["effect"]), "" | "NoExecute")
            });
            if tolerated {
                continue;
            }
            let mut toleration = Map::new();
            toleration.insert("key", taint);
            toleration.insert("operator", "Exists");
            toleration.insert("effect", "NoExecute");
            toleration.insert("tolerationSeconds", SECONDS);
            let spec = pod.ensure_map().entry_or("spec", Tree::map).ensure_map();
            match spec.entry_or("tolerations", Tree::list) {
                Tree::List(items) => items.push(Tree::Map(toleration)),
                other => *other = Tree::List(vec![Tree::Map(toleration)]),
            }
        }
        Ok(())
    }
}
