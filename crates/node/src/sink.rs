//! Writes a pod's status to the API: in the background, the newest one only, until it is there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Map, Value, json};
use skiff_base::Shutdown;
use skiff_client::Patch;
use tokio::sync::watch;

use crate::node::Node;
use crate::pod::PodView;

/// The first and the longest pause after a failed write.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The status writer of one pod.
pub(crate) struct Sink {
    wanted: watch::Sender<(u64, Option<Arc<PodStatus>>)>,
    written: watch::Receiver<u64>,
    stop: Shutdown,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.signal();
    }
}

impl Sink {
    pub(crate) fn start(node: &Arc<Node>, pod: &Arc<PodView>) -> Self {
        let (wanted, receiver) = watch::channel((0, None));
        let (acknowledge, written) = watch::channel(0);
        let stop = node.tasks.shutdown().child();
        let writer = Writer { node: Arc::clone(node), pod: Arc::clone(pod), base: pod.status() };
        let until = stop.clone();
        node.tasks.spawn("pod-status", async move {
            until.until(writer.run(receiver, acknowledge)).await;
        });
        Self { wanted, written, stop }
    }

    /// Wants the API to show `status`; an older one not written yet is skipped.
    pub(crate) fn put(&self, status: PodStatus) {
        self.wanted.send_if_modified(|(version, current)| {
            let changed = current.as_deref() != Some(&status);
            if changed {
                *version += 1;
                *current = Some(Arc::new(status));
            }
            changed
        });
    }

    /// Waits until the newest status is written or the pod is gone.
    pub(crate) async fn flushed(&self) {
        let version = self.wanted.borrow().0;
        drop(self.written.clone().wait_for(|written| *written >= version).await);
    }
}

struct Writer {
    node: Arc<Node>,
    pod: Arc<PodView>,
    /// What the API shows, as far as known.
    base: PodStatus,
}

impl Writer {
    async fn run(mut self, mut wanted: watch::Receiver<(u64, Option<Arc<PodStatus>>)>, written: watch::Sender<u64>) {
        let mut pause = RETRY_FIRST;
        let mut fresh = false;
        loop {
            if !fresh && wanted.changed().await.is_err() {
                return;
            }
            let (version, status) = wanted.borrow_and_update().clone();
            let Some(status) = status else { continue };
            match self.write(&status).await {
                Ok(()) => {
                    written.send_replace(version);
                    (pause, fresh) = (RETRY_FIRST, false);
                }
                Err(error) if error.is_not_found() || error.is_conflict() => {
                    // The pod is gone, or its name belongs to another one now.
                    written.send_replace(u64::MAX);
                    return;
                }
                Err(error) => {
                    tracing::debug!(pod = %self.pod.name, namespace = %self.pod.namespace, %error, "pod status not written");
                    self.node.clock.sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                    fresh = true;
                }
            }
        }
    }

    async fn write(&mut self, status: &PodStatus) -> skiff_client::Result<()> {
        let Some(patch) = patch(&self.base, status) else { return Ok(()) };
        let body = json!({"metadata": {"uid": self.pod.uid}, "status": patch});
        let (namespace, name) = (&self.pod.namespace, &self.pod.name);
        let pod = self.node.client.patch_subresource::<Pod>(namespace, name, "status", &Patch::Strategic(body)).await?;
        self.base = pod.status.unwrap_or_default();
        Ok(())
    }
}

/// The strategic merge patch from `base` to `wanted`; `None` when nothing differs. Conditions merge
/// by type, so those of others stay.
fn patch(base: &PodStatus, wanted: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(base), object(wanted));
    let mut out = Map::new();
    for (key, value) in &new {
        match key.as_str() {
            "conditions" => {
                if let Some(list) = conditions(old.get(key), value) {
                    out.insert(key.clone(), list);
                }
            }
            // These merge by address; a new address must not join the old one.
            "podIPs" | "hostIPs" if old.get(key) != Some(value) => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                let list = if old.contains_key(key) { list } else { list.split_off(1) };
                out.insert(key.clone(), Value::Array(list));
            }
            _ if old.get(key) != Some(value) => {
                out.insert(key.clone(), merged(old.get(key), value));
            }
            _ => {}
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        // Written by others, or kept because the kubelet has nothing to say about it.
        if !matches!(key.as_str(), "conditions" | "nominatedNodeName" | "resourceClaimStatuses" | "resize") {
            out.insert(key.clone(), Value::Null);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// An object of the patch: keys that went away are named.
fn merged(old: Option<&Value>, new: &Value) -> Value {
    let (Some(Value::Object(old)), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut out = new.clone();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        out.insert(key.clone(), Value::Null);
    }
    Value::Object(out)
}

fn conditions(old: Option<&Value>, new: &Value) -> Option<Value> {
    let old = old.and_then(Value::as_array);
    let before = |type_: &Value| old.into_iter().flatten().find(|condition| condition.get("type") == Some(type_));
    let mut out = Vec::new();
    for condition in new.as_array().into_iter().flatten() {
        let Some(type_) = condition.get("type") else { continue };
        let before = before(type_);
        if before.is_some_and(|before| same(before, condition)) {
            continue;
        }
        let mut change = merged(before, condition);
        if let Some(map) = change.as_object_mut() {
            map.remove("lastProbeTime");
        }
        out.push(change);
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

/// Equal but for explicit nulls.
fn same(a: &Value, b: &Value) -> bool {
    let strip = |value: &Value| -> Map<String, Value> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    strip(a) == strip(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> PodStatus {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_what_changed_is_sent_and_other_conditions_stay() {
        let base = status(
            r#"{"phase":"Pending","reason":"x","conditions":[{"type":"Ready","status":"False","reason":"r"},{"type":"own/gate","status":"True"}]}"#,
        );
        let wanted = status(r#"{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}"#);
        let patch = patch(&base, &wanted).unwrap();
        assert_eq!(
            patch,
            json!({"phase": "Running", "reason": null, "conditions": [{"type": "Ready", "status": "True", "reason": null}]})
        );
    }

    #[test]
    fn an_equal_status_is_not_written() {
        let base = status(
            r#"{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastProbeTime":null},{"type":"other","status":"True"}]}"#,
        );
        let wanted = status(r#"{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}"#);
        assert_eq!(patch(&base, &wanted), None);
    }

    #[test]
    fn a_new_address_replaces_the_old_one() {
        let base = status(r#"{"podIP":"1.1.1.1","podIPs":[{"ip":"1.1.1.1"}]}"#);
        let wanted = status(r#"{"podIP":"1.1.1.2","podIPs":[{"ip":"1.1.1.2"}]}"#);
        assert_eq!(patch(&base, &wanted).unwrap()["podIPs"], json!([{"$patch": "replace"}, {"ip": "1.1.1.2"}]));
    }
}
