//! Follows objects of the API: present state, then changes, across broken watches.

use std::collections::BTreeMap;
use std::time::Duration;

use skiff_base::Clock;
use skiff_client::{Client, ObjectKey, Selection, View, WatchEvent, WatchOptions};

/// The first and the longest pause before a broken watch is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// One step of the followed state.
#[derive(Clone, Debug)]
pub(crate) enum Change<K> {
    /// The object exists in this version.
    Put(K),
    /// The object is gone; its last known version.
    Gone(K),
    /// Everything that exists has been told once. Told again after every resynchronisation.
    Synced,
}

/// Follows the selected objects until the task ends, telling `tell` every change in order.
pub(crate) async fn follow<K: View>(
    client: Client,
    clock: Clock,
    namespace: String,
    selection: Selection,
    mut tell: impl FnMut(Change<K>) + Send,
) {
    let mut known: BTreeMap<ObjectKey, K> = BTreeMap::new();
    let mut pause = RETRY_FIRST;
    let mut version = String::new();
    loop {
        match watch_once(&client, &namespace, &selection, &mut known, &mut version, &mut tell).await {
            Ok(()) => pause = RETRY_FIRST,
            Err(error) => {
                if error.is_expired() || error.code() > 0 {
                    version.clear();
                }
                if !error.is_expired() {
                    tracing::debug!(resource = %K::RESOURCE, %error, "watch ended");
                    clock.sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

async fn watch_once<K: View>(
    client: &Client,
    namespace: &str,
    selection: &Selection,
    known: &mut BTreeMap<ObjectKey, K>,
    version: &mut String,
    tell: &mut (impl FnMut(Change<K>) + Send),
) -> skiff_client::Result<()> {
    let fresh = version.is_empty();
    let options = WatchOptions {
        selection: selection.clone(),
        resource_version: version.clone(),
        initial_events: fresh,
        timeout_secs: 0,
    };
    let mut watch = client.watch::<K>(namespace, &options).await?;
    let mut seen: Option<BTreeMap<ObjectKey, K>> = fresh.then(BTreeMap::new);
    while let Some(event) = watch.next().await? {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let key = ObjectKey::of(object.meta());
                if let Some(next) = object.meta().resource_version.clone().filter(|_| seen.is_none()) {
                    *version = next;
                }
                if let Some(seen) = &mut seen {
                    seen.insert(key.clone(), object.clone());
                }
                // Recreated under the same name while the watch was down.
                if let Some(old) = known.get(&key).filter(|old| old.meta().uid != object.meta().uid) {
                    tell(Change::Gone(old.clone()));
                }
                known.insert(key, object.clone());
                tell(Change::Put(object));
            }
            WatchEvent::Deleted(object) => {
                let key = ObjectKey::of(object.meta());
                if let Some(next) = object.meta().resource_version.clone().filter(|_| seen.is_none()) {
                    *version = next;
                }
                if let Some(seen) = &mut seen {
                    seen.remove(&key);
                }
                known.remove(&key);
                tell(Change::Gone(object));
            }
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                if !resource_version.is_empty() && (seen.is_none() || initial_events_end) {
                    *version = resource_version;
                }
                if initial_events_end && let Some(seen) = seen.take() {
                    let stale: Vec<ObjectKey> = known.keys().filter(|key| !seen.contains_key(*key)).cloned().collect();
                    for key in stale {
                        if let Some(object) = known.remove(&key) {
                            tell(Change::Gone(object));
                        }
                    }
                    tell(Change::Synced);
                }
            }
        }
    }
    Ok(())
}
