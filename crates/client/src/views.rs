//! Typed views: the kinds that components read and write as Rust structs.
//!
//! Each kind's decoder and encoder is instantiated here, once for the whole program; everything
//! generic above works on [`View`] and forwards to non-generic bodies.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::Resource;

/// A kind of the API as a Rust struct.
pub trait View: Clone + Send + Sync + Sized + 'static {
    /// Where its objects are found. For [`PartialObject`] only a name for messages.
    const RESOURCE: Resource;

    /// Reads one object from JSON.
    ///
    /// # Errors
    /// Why the bytes are no object of this kind.
    fn decode(bytes: &[u8]) -> Result<Self, String>;

    /// Writes one object as JSON with its `apiVersion` and `kind`.
    ///
    /// # Errors
    /// Why the object cannot be written.
    fn encode(&self) -> Result<Vec<u8>, String>;

    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;

    /// Its metadata, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
}

#[doc(hidden)]
pub trait ScopeOf {
    const NAMESPACED: bool;
}

impl ScopeOf for k8s_openapi::NamespaceResourceScope {
    const NAMESPACED: bool = true;
}

impl ScopeOf for k8s_openapi::ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// Implements [`View`] for types of `k8s_openapi`.
macro_rules! views {
    ($($($module:ident)::+ { $($kind:ident)* })*) => {$(views!{@ [$($module)::+] $($kind)*})*};
    (@ [$module:path] $($kind:ident)*) => {$(
        const _: () = {
            use $module as module;
            use module::$kind as Kind;
            impl View for Kind {
                const RESOURCE: Resource = Resource {
                    group: Cow::Borrowed(<Kind as k8s_openapi::Resource>::GROUP),
                    version: Cow::Borrowed(<Kind as k8s_openapi::Resource>::VERSION),
                    kind: Cow::Borrowed(<Kind as k8s_openapi::Resource>::KIND),
                    plural: Cow::Borrowed(<Kind as k8s_openapi::Resource>::URL_PATH_SEGMENT),
                    namespaced: <<Kind as k8s_openapi::Resource>::Scope as ScopeOf>::NAMESPACED,
                };

                #[inline(never)]
                fn decode(bytes: &[u8]) -> Result<Self, String> {
                    serde_json::from_slice(bytes).map_err(|error| error.to_string())
                }

                #[inline(never)]
                fn encode(&self) -> Result<Vec<u8>, String> {
                    serde_json::to_vec(self).map_err(|error| error.to_string())
                }

                fn meta(&self) -> &ObjectMeta {
                    &self.metadata
                }

                fn meta_mut(&mut self) -> &mut ObjectMeta {
                    &mut self.metadata
                }
            }
        };
    )*};
}

views! {
    k8s_openapi::api::core::v1 {
        ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
        PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
    }
    k8s_openapi::api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
    k8s_openapi::api::authentication::v1 { TokenReview }
    k8s_openapi::api::authorization::v1 { SubjectAccessReview }
    k8s_openapi::api::batch::v1 { CronJob Job }
    k8s_openapi::api::certificates::v1 { CertificateSigningRequest }
    k8s_openapi::api::coordination::v1 { Lease }
    k8s_openapi::api::discovery::v1 { EndpointSlice }
    k8s_openapi::api::networking::v1 { IPAddress IngressClass NetworkPolicy ServiceCIDR }
    k8s_openapi::api::node::v1 { RuntimeClass }
    k8s_openapi::api::policy::v1 { PodDisruptionBudget }
    k8s_openapi::api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
    k8s_openapi::api::scheduling::v1 { PriorityClass }
    k8s_openapi::api::storage::v1 { CSIDriver CSINode StorageClass VolumeAttachment VolumeAttributesClass }
}

/// An object of any kind, reduced to its metadata (`PartialObjectMetadata`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialObject {
    /// The API version of the object itself, when the server tells it.
    #[serde(default)]
    pub api_version: String,
    /// The kind of the object itself, when the server tells it.
    #[serde(default)]
    pub kind: String,
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl View for PartialObject {
    const RESOURCE: Resource = Resource::fixed("meta.k8s.io", "v1", "PartialObjectMetadata", "", true);

    #[inline(never)]
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    #[inline(never)]
    fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;

    #[test]
    fn views_know_their_place() {
        assert_eq!(Pod::RESOURCE.path("a", "b", ""), "/api/v1/namespaces/a/pods/b");
        assert_eq!(Node::RESOURCE.path("", "b", ""), "/api/v1/nodes/b");
        assert_eq!(Deployment::RESOURCE.api_version(), "apps/v1");
    }

    #[test]
    fn a_view_reads_and_writes_its_kind() {
        let pod = Pod::decode(br#"{"metadata":{"name":"a"},"spec":{"containers":[]},"unknown":1}"#).unwrap();
        assert_eq!(pod.meta().name.as_deref(), Some("a"));
        let text = String::from_utf8(pod.encode().unwrap()).unwrap();
        assert!(text.starts_with(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}"#), "{text}");
        assert!(Node::decode(br#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#).is_err());
    }
}
