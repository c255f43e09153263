//! The configuration of one container: command, variables, mounts, security, limits.

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Capabilities, Container, SecurityContext, VolumeMount};
use skiff_runtime::cri;

use crate::cri::{container_annotations, container_labels};
use crate::env::{ConfigError, Sources, expand, service_variables, variables};
use crate::images::{Present, Wanted, ensure};
use crate::node::Node;
use crate::observed::{Observed, Waiting};
use crate::pod::{ContainerSpec, PodView};
use crate::resources::{KernelLimits, QUOTA_PERIOD_US, oom_score_adj};
use crate::sandbox::{groups, hosts_file, namespaces, seccomp};
use crate::volumes::{Source, Volumes, subpath};

/// What runtimes hide from unprivileged containers.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What they show read-only.
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a configuration is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pod: &'a PodView,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) observed: &'a Observed,
    pub(crate) volumes: &'a Volumes,
    pub(crate) image: &'a Present,
    pub(crate) restart_count: i32,
}

fn config_error(message: impl Into<String>) -> Waiting {
    Waiting::new("CreateContainerConfigError", message)
}

/// Makes the configuration, with everything it needs on disk.
pub(crate) async fn config(inputs: &Inputs<'_>) -> Result<cri::ContainerConfig, Waiting> {
    let Inputs { node, pod, spec, .. } = inputs;
    let container = &spec.container;
    let envs = environment(inputs).await.map_err(|error| config_error(error.0))?;
    let values: HashMap<&str, &str> = envs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let lookup = |name: &str| values.get(name).map(|value| (*value).to_owned());
    let expanded =
        |list: Option<&Vec<String>>| list.into_iter().flatten().map(|text| expand(text, &lookup)).collect::<Vec<_>>();
    let security = security(inputs)?;
    let mounts = mounts(inputs, &lookup).await?;
    let limits = KernelLimits::of(container.resources.as_ref());
    let user_specified_image = container.image.clone().unwrap_or_default();
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(inputs.restart_count).unwrap_or(0),
        }),
        image: Some(cri::ImageSpec {
            image: inputs.image.reference.clone(),
            user_specified_image,
            ..cri::ImageSpec::default()
        }),
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels: container_labels(pod, spec),
        annotations: container_annotations(pod, spec, inputs.restart_count),
        log_path: format!("{}/{}.log", container.name, inputs.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                cpu_period: QUOTA_PERIOD_US,
                cpu_quota: limits.cpu_quota_us,
                cpu_shares: limits.cpu_shares,
                memory_limit_in_bytes: limits.memory_bytes,
                // No swap unless the node is told to use it.
                memory_swap_limit_in_bytes: limits.memory_bytes,
                oom_score_adj: oom_score_adj(pod, container, node.machine.memory_bytes),
                ..cri::LinuxContainerResources::default()
            }),
            security_context: Some(security),
        }),
        stop_signal: stop_signal(container),
        envs: envs.into_iter().map(|(key, value)| cri::KeyValue { key, value: value.into_bytes() }).collect(),
        ..cri::ContainerConfig::default()
    })
}

fn stop_signal(container: &Container) -> i32 {
    let name = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref()).unwrap_or_default();
    cri::Signal::from_str_name(name).unwrap_or(cri::Signal::RuntimeDefault) as i32
}

async fn environment(inputs: &Inputs<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let Inputs { node, pod, spec, observed, .. } = inputs;
    let mut config_maps = HashMap::new();
    let mut secrets = HashMap::new();
    let container = &spec.container;
    let from = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let all = container.env_from.iter().flatten();
    let map_names = from.clone().filter_map(|from| from.config_map_key_ref.as_ref().map(|source| &source.name));
    let secret_names = from.filter_map(|from| from.secret_key_ref.as_ref().map(|source| &source.name));
    for name in map_names.chain(all.clone().filter_map(|from| from.config_map_ref.as_ref().map(|source| &source.name)))
    {
        let found = node.objects.config_map(&pod.namespace, name).await;
        config_maps.insert(name.clone(), found.map(|map| (*map).clone()));
    }
    for name in secret_names.chain(all.filter_map(|from| from.secret_ref.as_ref().map(|source| &source.name))) {
        let found = node.objects.secret(&pod.namespace, name).await;
        secrets.insert(name.clone(), found.map(|secret| (*secret).clone()));
    }
    let services = {
        let known = node.services.read();
        let list: Vec<_> = known.values().map(AsRef::as_ref).collect();
        service_variables(&list, &pod.namespace, pod.spec().enable_service_links.unwrap_or(true))
    };
    let host_ips = node.config.host_ips();
    let pod_ips = pod_ips(pod, observed, &host_ips);
    let sources = Sources {
        config_maps: &config_maps,
        secrets: &secrets,
        services: &services,
        pod,
        pod_ips: &pod_ips,
        host_ips: &host_ips,
        allocatable: &node.allocatable(),
    };
    variables(container, &sources)
}

/// The pod's addresses: the node's for a pod in the node's network.
pub(crate) fn pod_ips(pod: &PodView, observed: &Observed, host_ips: &[String]) -> Vec<String> {
    if pod.host_network() {
        return host_ips.to_vec();
    }
    observed.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
}

fn security(inputs: &Inputs<'_>) -> Result<cri::LinuxContainerSecurityContext, Waiting> {
    let Inputs { pod, spec, image, observed, .. } = inputs;
    let of_pod = pod.spec().security_context.clone().unwrap_or_default();
    let own = spec.container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let user = own.run_as_user.or(of_pod.run_as_user);
    check_non_root(pod, spec, own.run_as_non_root.or(of_pod.run_as_non_root), user, image)?;
    let user = user.or(image.uid);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths =
        |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() };
    let mut namespaces = namespaces(pod);
    if let Some(target) = spec.target.as_deref().and_then(|name| observed.latest(name)) {
        namespaces.pid = cri::NamespaceMode::Target as i32;
        namespaces.target_id.clone_from(&target.id);
    }
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: user.map(|value| cri::Int64Value { value }),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| cri::Int64Value { value }),
        run_as_username: if user.is_none() { image.username.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: if of_pod.supplemental_groups_policy.as_deref() == Some("Strict") {
            cri::SupplementalGroupsPolicy::Strict
        } else {
            cri::SupplementalGroupsPolicy::Merge
        } as i32,
        no_new_privs: no_new_privileges(&own),
        masked_paths: paths(MASKED_PATHS),
        readonly_paths: paths(READONLY_PATHS),
        seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()), privileged)),
        ..cri::LinuxContainerSecurityContext::default()
    })
}

fn no_new_privileges(security: &SecurityContext) -> bool {
    security.allow_privilege_escalation == Some(false)
}

fn capabilities(wanted: &Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn check_non_root(
    pod: &PodView,
    spec: &ContainerSpec,
    wanted: Option<bool>,
    user: Option<i64>,
    image: &Present,
) -> Result<(), Waiting> {
    if wanted != Some(true) {
        return Ok(());
    }
    let who = format!("(pod: \"{}_{}({})\", container: {})", pod.name, pod.namespace, pod.uid, spec.name());
    match user {
        Some(0) => Err(config_error(format!("container's runAsUser breaks non-root policy {who}"))),
        Some(_) => Ok(()),
        None if image.uid == Some(0) => {
            Err(config_error(format!("container has runAsNonRoot and image will run as root {who}")))
        }
        None if image.uid.is_none() && image.username.is_empty() => {
            Err(config_error(format!("container has runAsNonRoot and image will run as root {who}")))
        }
        None if image.uid.is_none() => Err(config_error(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {who}",
            image.username
        ))),
        None => Ok(()),
    }
}

async fn mounts(
    inputs: &Inputs<'_>,
    lookup: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<Vec<cri::Mount>, Waiting> {
    let container = &inputs.spec.container;
    let mut out = Vec::new();
    let mut own_hosts = false;
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        own_hosts |= mount.mount_path == "/etc/hosts";
        out.push(one_mount(inputs, index, mount, lookup).await?);
    }
    let files = inputs.node.config.pod_dir(&inputs.pod.uid);
    if !own_hosts {
        out.push(hosts_mount(inputs, files.join("etc-hosts"))?);
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|path| !path.is_empty()) {
        out.push(termination_mount(inputs, files, path)?);
    }
    Ok(out)
}

async fn one_mount(
    inputs: &Inputs<'_>,
    index: usize,
    mount: &VolumeMount,
    lookup: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<cri::Mount, Waiting> {
    let ready = inputs.volumes.by_name.get(&mount.name).ok_or_else(|| {
        config_error(format!(
            "cannot find volume \"{}\" to mount into container \"{}\"",
            mount.name,
            inputs.spec.name()
        ))
    })?;
    let expression = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty());
    let sub_path = match expression {
        Some(text) => {
            let path = expand(text, lookup);
            if path.contains("$(") {
                return Err(config_error(format!("cannot expand subPathExpr {text:?}: missing value")));
            }
            path
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let read_only = mount.read_only.unwrap_or(false) || ready.read_only;
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    let mut out = cri::Mount {
        container_path: absolute(&mount.mount_path),
        readonly: read_only,
        recursive_read_only: read_only && recursive,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        } as i32,
        ..cri::Mount::default()
    };
    match &ready.source {
        Source::Image { reference, pull_policy } => {
            let wanted =
                Wanted { image: reference, policy: pull_policy.as_deref(), container: Some(inputs.spec.name()) };
            let present = ensure(inputs.node, inputs.pod, &wanted).await?;
            let user_specified_image = reference.clone();
            out.image =
                Some(cri::ImageSpec { image: present.reference, user_specified_image, ..cri::ImageSpec::default() });
            out.image_sub_path = sub_path;
        }
        Source::Path(path) if sub_path.is_empty() => out.host_path = path.to_string_lossy().into_owned(),
        Source::Path(path) => {
            let root = path.clone();
            let dir = inputs.node.config.pod_dir(&inputs.pod.uid);
            let target = dir.join("volume-subpaths").join(&mount.name).join(inputs.spec.name()).join(index.to_string());
            let bound = tokio::task::spawn_blocking(move || subpath::bind(&root, &sub_path, &target)).await;
            let bound = bound.map_err(|error| config_error(error.to_string()))?;
            let failed = |error| {
                config_error(format!(
                    "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                    mount.name,
                    inputs.spec.name()
                ))
            };
            out.host_path = bound.map_err(failed)?.to_string_lossy().into_owned();
        }
    }
    Ok(out)
}

/// Older objects may carry a mount path relative to the root.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn hosts_mount(inputs: &Inputs<'_>, file: PathBuf) -> Result<cri::Mount, Waiting> {
    let host_file = if inputs.pod.host_network() {
        std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        String::new()
    };
    let ips = inputs.observed.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
    let text = hosts_file(inputs.pod, &inputs.node.config.cluster_domain, &ips, &host_file);
    let failed = |error: std::io::Error| config_error(format!("write {}: {error}", file.display()));
    if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&file, text).map_err(failed)?;
    }
    Ok(cri::Mount {
        container_path: "/etc/hosts".into(),
        host_path: file.to_string_lossy().into_owned(),
        ..cri::Mount::default()
    })
}

fn termination_mount(inputs: &Inputs<'_>, files: PathBuf, path: &str) -> Result<cri::Mount, Waiting> {
    use std::os::unix::fs::PermissionsExt;
    let dir = files.join("containers").join(inputs.spec.name());
    let file = dir.join(format!("{}.termination", inputs.restart_count));
    let failed = |error: std::io::Error| config_error(format!("write {}: {error}", file.display()));
    std::fs::create_dir_all(&dir).map_err(failed)?;
    std::fs::write(&file, b"").map_err(failed)?;
    // Whatever user the container runs as may write its message.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(cri::Mount {
        container_path: path.to_owned(),
        host_path: file.to_string_lossy().into_owned(),
        ..cri::Mount::default()
    })
}
