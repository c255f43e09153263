//! `DefaultStorageClass`: a claim that names no class gets the default one.

use async_trait::async_trait;
use skiff_object::{Tree, json};

use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct DefaultStorageClass;

const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "persistentvolumeclaims")
    }

    async fn mutate(
        &self,
        server: &ApiServer,
        _attributes: &Attributes<'_>,
        claim: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        let named = claim.at(&["spec", "storageClassName"]).is_some_and(|class| !class.is_null())
            || meta::annotation(claim, "volume.beta.kubernetes.io/storage-class").is_some();
        if named {
            return Ok(());
        }
        // The newest default counts; of equally new ones the first by name.
        let mut best: Option<(String, String)> = None;
        for item in server.collection("storage.k8s.io", "storageclasses").known_list("").await? {
            let class = json::decode_untyped(&item.stored.value).map_err(ApiError::internal)?;
            if !IS_DEFAULT.iter().any(|key| meta::annotation(&class, key) == Some("true")) {
                continue;
            }
            let made = class.str_at(&["metadata", "creationTimestamp"]).to_owned();
            if best.as_ref().is_none_or(|(newest, _)| made > *newest) {
                best = Some((made, meta::name(&class).to_owned()));
            }
        }
        if let Some((_, name)) = best {
            claim.set(&["spec", "storageClassName"], name);
        }
        Ok(())
    }
}
