//! Own writes that the cache has not shown yet.
//!
//! A plan made from a cache that lacks our last write would repeat it. Where names are generated
//! (EndpointSlices) the server cannot tell; so the next plan waits for the event.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use skiff_client::ObjectKey;
use tokio::time::Instant;

/// After this long the write must have been overtaken by something we missed.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Written {
    owners: Mutex<BTreeMap<ObjectKey, Writes>>,
}

/// By name of the written object: its version, and when it was written.
type Writes = BTreeMap<String, (u64, Instant)>;

impl Written {
    /// `object` (as the server answered) was written for `owner`.
    pub(crate) fn note(&self, owner: &ObjectKey, object: &ObjectMeta) {
        let mut owners = self.owners.lock();
        let name = object.name.clone().unwrap_or_default();
        owners.entry(owner.clone()).or_default().insert(name, (version(object), Instant::now()));
    }

    /// The cache shows `object` now.
    pub(crate) fn seen(&self, owner: &ObjectKey, object: &ObjectMeta) {
        self.change(owner, |written| {
            written.retain(|name, (noted, _)| Some(name) != object.name.as_ref() || *noted > version(object));
        });
    }

    /// The object is gone from the cache.
    pub(crate) fn gone(&self, owner: &ObjectKey, name: &str) {
        self.change(owner, |written| {
            written.remove(name);
        });
    }

    /// Whether the cache lacks a write for `owner`.
    pub(crate) fn is_awaited(&self, owner: &ObjectKey) -> bool {
        let owners = self.owners.lock();
        owners.get(owner).is_some_and(|written| written.values().any(|(_, since)| since.elapsed() < TIMEOUT))
    }

    fn change(&self, owner: &ObjectKey, change: impl FnOnce(&mut Writes)) {
        let mut owners = self.owners.lock();
        let Some(written) = owners.get_mut(owner) else { return };
        change(written);
        if written.is_empty() {
            owners.remove(owner);
        }
    }
}

/// Resource versions are comparable integers (KEP-5504).
fn version(object: &ObjectMeta) -> u64 {
    object.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
