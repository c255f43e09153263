//! What several controllers need: ownership, expectations, pods, templates, selectors.

pub(crate) mod batch;
pub(crate) mod bootstrap_tokens;
pub(crate) mod certificates;
pub(crate) mod claim;
pub(crate) mod disruption;
pub(crate) mod expectations;
pub(crate) mod pods;
pub(crate) mod rank;
pub(crate) mod revisions;
pub(crate) mod selector;
pub(crate) mod services;
pub(crate) mod taints;
pub(crate) mod template;
pub(crate) mod written;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skiff_client::View;

/// The values of an object's name that every function needs, empty when absent.
pub(crate) trait Meta {
    fn ns(&self) -> &str;
    fn id(&self) -> &str;
    fn uid(&self) -> &str;
    fn is_deleting(&self) -> bool;
    fn label(&self, name: &str) -> Option<&str>;
    fn annotation(&self, name: &str) -> Option<&str>;
    fn controller(&self) -> Option<&OwnerReference>;
    fn has_finalizer(&self, name: &str) -> bool;
}

impl Meta for ObjectMeta {
    fn ns(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    fn id(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    fn uid(&self) -> &str {
        self.uid.as_deref().unwrap_or("")
    }

    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.as_ref()?.get(name).map(String::as_str)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.as_deref().unwrap_or_default().iter().find(|owner| owner.controller == Some(true))
    }

    fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.as_deref().unwrap_or_default().iter().any(|finalizer| finalizer == name)
    }
}

/// The reference by which `owner` controls an object.
pub(crate) fn controller_reference<K: View>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::RESOURCE.api_version(),
        kind: K::RESOURCE.kind.to_string(),
        name: owner.meta().id().to_owned(),
        uid: owner.meta().uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Which way a share of a total is rounded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Up,
    Down,
}

/// A number, or a percentage of `total`; `None` when the text is no percentage.
pub(crate) fn scaled(value: &IntOrString, total: i32, round: Round) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let product = percent.saturating_mul(i64::from(total));
            let rounded = if round == Round::Up { product.saturating_add(99).div_euclid(100) } else { product / 100 };
            Some(i32::try_from(rounded).unwrap_or(i32::MAX))
        }
    }
}

/// `count` as the API's integers, which it never reaches.
pub(crate) fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
