//! Cleaning: log rotation, unused images when the disk fills, directories of pods long gone, and
//! eviction when memory runs out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skiff_runtime::cri;

use crate::events::Severity;
use crate::node::{Node, meminfo};
use crate::observed::{Run, Waiting};
use crate::resources::Qos;
use crate::worker::Handle;

/// How often logs, disk and memory are looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// A container's log is rotated at this size, and this many files are kept.
const LOG_BYTES_MAX: u64 = 10 << 20;
const LOG_FILES_MAX: usize = 5;
/// Images are removed above the first and until the second share of the disk is used, in per cent.
const IMAGE_DISK_HIGH: u64 = 85;
const IMAGE_DISK_LOW: u64 = 80;
/// Below this much available memory pods are evicted.
const MEMORY_AVAILABLE_MIN: i64 = 100 << 20;

/// Cleans until the task ends.
pub(crate) async fn run(node: Arc<Node>) {
    let mut last_eviction = skiff_base::Timestamp::EPOCH;
    loop {
        node.clock.sleep(PERIOD).await;
        if node.pods.lock().is_empty() {
            continue;
        }
        rotate_logs(&node).await;
        collect_images(&node).await;
        let now = node.clock.now();
        // A stopped pod's memory takes a while to come back.
        if now.since(last_eviction) > Duration::from_secs(30) && evict(&node) {
            last_eviction = now;
        }
    }
}

async fn rotate_logs(node: &Node) {
    let handles: Vec<Handle> = node.pods.lock().values().cloned().collect();
    for handle in handles {
        let observed = handle.observed();
        for container in observed.containers.iter().filter(|container| container.run == Run::Running) {
            let path = PathBuf::from(&container.log_path);
            let large = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
            if large && let Err(error) = rotate(node, &container.id, &path).await {
                tracing::warn!(path = %path.display(), %error, "log not rotated");
            }
        }
    }
}

async fn rotate(node: &Node, id: &str, path: &Path) -> std::io::Result<()> {
    let time = k8s_openapi::jiff::Timestamp::from_second(node.clock.now().as_secs()).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rotated = path.with_file_name(format!("{name}.{}", time.strftime("%Y%m%d-%H%M%S")));
    std::fs::rename(path, &rotated)?;
    let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
    if let Err(status) = node.runtime.reopen_container_log(request).await {
        // Back to its name, or the container writes where nobody looks.
        std::fs::rename(&rotated, path)?;
        return Err(std::io::Error::other(status.message().to_owned()));
    }
    let Some(dir) = path.parent() else { return Ok(()) };
    let mut old: Vec<PathBuf> = std::fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|old| old.file_name().is_some_and(|old| old.to_string_lossy().starts_with(&format!("{name}."))))
        .collect();
    old.sort();
    let surplus = old.len().saturating_sub(LOG_FILES_MAX - 1);
    old.iter().take(surplus).try_for_each(std::fs::remove_file)
}

fn disk_used_percent(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path)
        .map_or(0, |stat| if stat.blocks() == 0 { 0 } else { 100 - stat.blocks_available() * 100 / stat.blocks() })
}

async fn collect_images(node: &Node) {
    if disk_used_percent(&node.config.data_dir) < IMAGE_DISK_HIGH {
        return;
    }
    let containers =
        node.runtime.list_containers(cri::ListContainersRequest::default()).await.unwrap_or_default().containers;
    let used: BTreeSet<String> = containers
        .into_iter()
        .flat_map(|container| [container.image_ref, container.image_id, container.image.unwrap_or_default().image])
        .collect();
    let images = node.images.list_images(cri::ListImagesRequest::default()).await.unwrap_or_default().images;
    let is_used = |image: &cri::Image| {
        used.contains(&image.id) || image.repo_tags.iter().chain(&image.repo_digests).any(|name| used.contains(name))
    };
    for image in images.iter().filter(|image| !image.pinned && !is_used(image)) {
        let spec = cri::ImageSpec { image: image.id.clone(), ..cri::ImageSpec::default() };
        match node.images.remove_image(cri::RemoveImageRequest { image: Some(spec) }).await {
            Ok(_) => tracing::info!(image = %image.id, "unused image removed: the disk is filling up"),
            Err(error) => tracing::debug!(image = %image.id, %error, "unused image not removed"),
        }
        if disk_used_percent(&node.config.data_dir) <= IMAGE_DISK_LOW {
            return;
        }
    }
}

/// Evicts the pod that is to go first when memory runs out; whether one was.
fn evict(node: &Node) -> bool {
    let Some(available) =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo(&text, "MemAvailable:"))
    else {
        return false;
    };
    if available >= MEMORY_AVAILABLE_MIN {
        return false;
    }
    let handles: Vec<Handle> = node.pods.lock().values().cloned().collect();
    let rank = |handle: &Handle| {
        let pod = handle.pod();
        let class = match Qos::of(&pod) {
            Qos::BestEffort => 0,
            Qos::Burstable => 1,
            Qos::Guaranteed => 2,
        };
        (class, pod.spec().priority.unwrap_or(0), std::cmp::Reverse(pod.pod.metadata.creation_timestamp.clone()))
    };
    let candidates = handles.iter().filter(|handle| {
        let pod = handle.pod();
        !pod.is_critical() && !pod.is_terminal() && pod.deleted_at().is_none() && handle.observed().any_running()
    });
    let Some(victim) = candidates.min_by_key(|handle| rank(handle)) else { return false };
    let message =
        format!("The node was low on resource: memory. Threshold quantity: 100Mi, available: {}Ki. ", available / 1024);
    let pod = victim.pod();
    node.events.pod(&pod, None, Severity::Warning, "Evicted", message.clone());
    victim.evict(Waiting::new("Evicted", message));
    true
}

/// Removes directories of pods that neither the API nor the runtime has.
pub(crate) async fn orphaned_dirs(node: &Node) {
    let Ok(listed) = node.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await else { return };
    let mut known: BTreeSet<String> =
        listed.items.into_iter().filter_map(|item| item.metadata).map(|metadata| metadata.uid).collect();
    known.extend(node.pods.lock().keys().cloned());
    for root in [node.config.data_dir.join("pods"), node.config.runtime_dir.join("pods")] {
        let entries = std::fs::read_dir(&root).into_iter().flatten().filter_map(Result::ok);
        for uid in
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|uid| !known.contains(uid))
        {
            if let Err(error) = crate::volumes::tear_down(node, &uid).await {
                tracing::warn!(%uid, %error, "directory of a gone pod not removed");
            }
        }
    }
    let logs = node.config.data_dir.join("logs/pods");
    for entry in std::fs::read_dir(&logs).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let uid = name.rsplit('_').next().unwrap_or_default();
        if !known.contains(uid) {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}
