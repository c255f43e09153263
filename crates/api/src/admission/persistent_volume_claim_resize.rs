//! `PersistentVolumeClaimResize`: a claim grows only when it is bound and its class allows it.

use async_trait::async_trait;
use skiff_object::quantity::Quantity;
use skiff_object::{Tree, json};

use super::pod_resources::quantity;
use super::{Attributes, Operation, Plugin};
use crate::errors::{ApiError, ApiResult};
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct PersistentVolumeClaimResize;

fn size(claim: &Tree) -> Quantity {
    claim.at(&["spec", "resources", "requests", "storage"]).and_then(quantity).unwrap_or(Quantity::ZERO)
}

/// The class of a claim: the annotation from before there was a field comes first.
pub(super) fn class(claim: &Tree) -> &str {
    meta::annotation(claim, "volume.beta.kubernetes.io/storage-class")
        .unwrap_or_else(|| claim.str_at(&["spec", "storageClassName"]))
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims")
    }

    async fn validate(
        &self,
        server: &ApiServer,
        attributes: &Attributes<'_>,
        claim: &Tree,
        old: Option<&Tree>,
    ) -> ApiResult<()> {
        let Some(old) = old.filter(|old| size(claim) > size(old)) else { return Ok(()) };
        if old.str_at(&["status", "phase"]) != "Bound" {
            return Err(attributes.forbidden(claim, "Only bound persistent volume claims can be expanded"));
        }
        let named = class(claim);
        let mut allows = false;
        if !named.is_empty()
            && named == class(old)
            && let Some(stored) = server.collection("storage.k8s.io", "storageclasses").get("", named).await?
        {
            let class = json::decode_untyped(&stored.value).map_err(ApiError::internal)?;
            allows = class.bool_at(&["allowVolumeExpansion"]) == Some(true);
        }
        if allows {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(attributes.forbidden(claim, why))
    }
}
