//! Pods from templates, and the hash that names a template.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skiff_client::{Client, Events, Result, Severity, View};

use super::{Meta, controller_reference};

/// The label that tells the pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";

/// The pod that `owner` makes from `template`; the server completes its name.
pub(crate) fn pod<K: View>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.meta().id())),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates `pod` and records that on its owner.
///
/// # Errors
/// The request's error.
pub(crate) async fn create<K: View>(client: &Client, events: &Events, owner: &K, pod: &Pod) -> Result<()> {
    match client.create(pod).await {
        Ok(created) => {
            let message = format!("Created pod: {}", created.metadata.id());
            events.record(owner, Severity::Normal, "SuccessfulCreate", message);
            Ok(())
        }
        Err(error) => {
            if !error.is_namespace_terminating() {
                events.record(owner, Severity::Warning, "FailedCreate", format!("Error creating: {}", text(&error)));
            }
            Err(error)
        }
    }
}

/// Deletes `pod` and records that on its owner. A pod that is gone already counts as deleted.
///
/// # Errors
/// The request's error.
pub(crate) async fn delete<K: View>(client: &Client, events: &Events, owner: &K, pod: &Pod) -> Result<()> {
    let options = skiff_client::DeleteOptions::default();
    match client.delete::<Pod>(pod.metadata.ns(), pod.metadata.id(), &options).await {
        Ok(()) => {
            let message = format!("Deleted pod: {}", pod.metadata.id());
            events.record(owner, Severity::Normal, "SuccessfulDelete", message);
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => {
            events.record(owner, Severity::Warning, "FailedDelete", format!("Error deleting: {}", text(&error)));
            Err(error)
        }
    }
}

/// What the server said, without our own attempt around it.
pub(crate) fn text(error: &skiff_client::Error) -> String {
    error.status().and_then(|status| status.message.clone()).unwrap_or_else(|| error.to_string())
}

/// A stable name for the content of `template`, different again for every `collisions`.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    // Serialised structs have one order of fields and their maps are sorted.
    let mut bytes = serde_json::to_vec(&template).unwrap_or_default();
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe_encode(fnv32a(&bytes))
}

/// FNV-1a, 32 bits.
pub(crate) fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The decimal digits of `hash` in the alphabet of generated names.
pub(crate) fn safe_encode(hash: u32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// Whether two templates ask for the same pods: equal but for the hash label.
pub(crate) fn same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let meta = template.metadata.get_or_insert_default();
        if let Some(labels) = meta.labels.as_mut() {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.take().filter(|annotations| !annotations.is_empty());
        template
    };
    bare(one) == bare(other)
}
