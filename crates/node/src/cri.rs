//! Between the pod and CRI messages: names, labels, and the observation of the runtime.

use std::collections::HashMap;

use skiff_base::Timestamp;
use skiff_runtime::RuntimeService;
use skiff_runtime::cri;

use crate::observed::{ContainerView, Observed, Run, SandboxView};
use crate::pod::{ContainerSpec, PodView};

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// The longest termination message kept.
pub(crate) const TERMINATION_BYTES_MAX: usize = 4096;
/// With `FallbackToLogsOnError`, at most so much of the log's end.
const FALLBACK_BYTES_MAX: usize = 2048;
const FALLBACK_LINES_MAX: usize = 80;

/// The labels of a sandbox: the pod's own and who it is.
pub(crate) fn sandbox_labels(pod: &PodView) -> HashMap<String, String> {
    let own = pod.pod.metadata.labels.clone().unwrap_or_default();
    own.into_iter().chain(identity(pod)).collect()
}

fn identity(pod: &PodView) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), pod.name.clone()),
        (POD_NAMESPACE.to_owned(), pod.namespace.clone()),
        (POD_UID.to_owned(), pod.uid.clone()),
    ]
}

/// The labels of a container.
pub(crate) fn container_labels(pod: &PodView, spec: &ContainerSpec) -> HashMap<String, String> {
    identity(pod).into_iter().chain([(CONTAINER_NAME.to_owned(), spec.name().to_owned())]).collect()
}

/// What must survive a restart of the kubelet, kept with the container.
pub(crate) fn container_annotations(
    pod: &PodView,
    spec: &ContainerSpec,
    restart_count: i32,
) -> HashMap<String, String> {
    let container = &spec.container;
    HashMap::from([
        (CONTAINER_HASH.to_owned(), spec.hash.clone()),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (TERMINATION_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (TERMINATION_POLICY.to_owned(), container.termination_message_policy.clone().unwrap_or_default()),
        (GRACE_PERIOD.to_owned(), pod.grace_seconds().to_string()),
    ])
}

/// Everything the runtime has for the pod `uid`.
///
/// # Errors
/// The runtime's own.
pub(crate) async fn observe(runtime: &dyn RuntimeService, uid: &str) -> Result<Observed, tonic::Status> {
    let labels = HashMap::from([(POD_UID.to_owned(), uid.to_owned())]);
    let filter = cri::PodSandboxFilter { label_selector: labels.clone(), ..cri::PodSandboxFilter::default() };
    let listed = runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }).await?;
    let mut sandboxes = Vec::with_capacity(listed.items.len());
    for item in listed.items {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: item.id, verbose: false };
        match runtime.pod_sandbox_status(request).await {
            Ok(answer) => sandboxes.extend(answer.status.map(|status| (status.created_at, sandbox_view(status)))),
            Err(error) if error.code() == tonic::Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sandboxes.sort_by_key(|(created, sandbox)| std::cmp::Reverse((sandbox.attempt, *created)));
    let filter = cri::ContainerFilter { label_selector: labels, ..cri::ContainerFilter::default() };
    let listed = runtime.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?;
    let mut containers = Vec::with_capacity(listed.containers.len());
    for item in listed.containers {
        let request = cri::ContainerStatusRequest { container_id: item.id, verbose: false };
        match runtime.container_status(request).await {
            Ok(answer) => containers.extend(answer.status.map(|status| container_view(status, &item.pod_sandbox_id))),
            Err(error) if error.code() == tonic::Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    containers.sort_by(|a, b| {
        a.name.cmp(&b.name).then(b.restart_count.cmp(&a.restart_count)).then(b.created_at.cmp(&a.created_at))
    });
    Ok(Observed { sandboxes: sandboxes.into_iter().map(|(_, view)| view).collect(), containers })
}

fn sandbox_view(status: cri::PodSandboxStatus) -> SandboxView {
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    SandboxView {
        id: status.id,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
    }
}

fn container_view(status: cri::ContainerStatus, sandbox_id: &str) -> ContainerView {
    let run = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => Run::Created,
        Ok(cri::ContainerState::ContainerRunning) => Run::Running,
        Ok(cri::ContainerState::ContainerExited) => Run::Exited,
        _ => Run::Unknown,
    };
    let metadata = status.metadata.clone().unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let message = if run == Run::Exited { termination_message(&status) } else { None };
    let restart_count = annotation(RESTART_COUNT).parse().unwrap_or(0);
    ContainerView {
        name: metadata.name,
        attempt: metadata.attempt,
        restart_count,
        sandbox_id: sandbox_id.to_owned(),
        hash: annotation(CONTAINER_HASH),
        run,
        created_at: Timestamp::from_nanos(status.created_at),
        started_at: Timestamp::from_nanos(status.started_at),
        finished_at: Timestamp::from_nanos(status.finished_at),
        exit_code: status.exit_code,
        message: message.unwrap_or(status.message),
        reason: status.reason,
        image: status
            .image
            .map(|image| if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image })
            .unwrap_or_default(),
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        log_path: status.log_path,
        user: status.user.and_then(|user| user.linux).map(|user| (user.uid, user.gid, user.supplemental_groups)),
        id: status.id,
    }
}

/// What the container wrote about its end, or the end of its log when it failed in silence.
fn termination_message(status: &cri::ContainerStatus) -> Option<String> {
    let path = status.annotations.get(TERMINATION_PATH).filter(|path| !path.is_empty())?;
    let mount = status.mounts.iter().find(|mount| &mount.container_path == path)?;
    let written = read_tail(&mount.host_path, TERMINATION_BYTES_MAX).unwrap_or_default();
    if !written.is_empty() {
        return Some(written);
    }
    let fallback = status.annotations.get(TERMINATION_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    if !fallback || (status.exit_code == 0 && status.reason != "ContainerCannotRun") {
        return None;
    }
    let raw = read_tail(&status.log_path, FALLBACK_BYTES_MAX * 8)?;
    let text: String = raw.split_inclusive('\n').filter_map(crate::logs::content_of).collect();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let kept = lines[lines.len().saturating_sub(FALLBACK_LINES_MAX)..].concat();
    let mut from = kept.len().saturating_sub(FALLBACK_BYTES_MAX);
    while !kept.is_char_boundary(from) {
        from += 1;
    }
    Some(kept[from..].to_owned())
}

fn read_tail(path: &str, bytes_max: usize) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max as u64))).ok()?;
    let mut data = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut data).ok()?;
    Some(String::from_utf8_lossy(&data).into_owned())
}
