//! `StorageObjectInUseProtection`: claims, volumes and their classes carry a finalizer, so that none
//! goes while somebody uses it. Controllers take the finalizer away.

use async_trait::async_trait;
use skiff_object::Tree;

use super::{Attributes, Operation, Plugin};
use crate::errors::ApiResult;
use crate::meta;
use crate::server::ApiServer;

/// See the [module](self).
pub struct StorageObjectInUseProtection;

const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    FINALIZERS.iter().find(|(group, plural, _)| attributes.is(group, plural)).map(|(_, _, finalizer)| *finalizer)
}

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && finalizer(attributes).is_some()
    }

    async fn mutate(
        &self,
        _server: &ApiServer,
        attributes: &Attributes<'_>,
        object: &mut Tree,
        _old: Option<&Tree>,
    ) -> ApiResult<()> {
        if let Some(finalizer) = finalizer(attributes) {
            meta::add_finalizer(object, finalizer);
        }
        Ok(())
    }
}
