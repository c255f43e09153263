//! `DefaultIngressClass`: an Ingress that names no class gets the default one.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct DefaultIngressClass;

const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("networking.k8s.io", "ingresses")
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        _attributes: &Attributes<'_>,
        ingress: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let named = ingress.at(&["spec", "ingressClassName"]).is_some_and(|class| !class.is_null())
            || meta::annotation(ingress, "kubernetes.io/ingress.class").is_some();
        if named {
            return Ok(());
        }
        // The newest default counts; of equally new ones the first by name.
        let mut best: Option<(String, String)> = None;
        for item in server.collection("networking.k8s.io", "ingressclasses").known_list("").await? {
            let class = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            let made = class.str_at(&["metadata", "creationTimestamp"]).to_owned();
            if meta::annotation(&class, IS_DEFAULT) == Some("true")
                && best.as_ref().is_none_or(|(newest, _)| made > *newest)
            {
                best = Some((made, meta::name(&class).to_owned()));
            }
        }
        if let Some((_, name)) = best {
            ingress.set(&["spec", "ingressClassName"], name);
        }
        Ok(())
    }
}
