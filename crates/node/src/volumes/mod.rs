//! Volumes: what a pod's containers see at their mount points.
//!
//! Setting up is idempotent: it is repeated after a restart of this process and whenever an
//! object that a volume shows has changed.

pub(crate) mod atomic;
pub(crate) mod payload;
pub(crate) mod subpath;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Volume,
};
use nix::mount::{MntFlags, MsFlags};
use skiff_base::Timestamp;

use crate::node::Node;
use crate::pod::PodView;
use crate::resources::units;

/// Why a volume is not there: the message of the event `FailedMount`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct VolumeError(pub(crate) String);

/// What a mount of a volume shows.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A directory or file of the node.
    Path(PathBuf),
    /// The content of an image.
    Image { reference: String, pull_policy: Option<String> },
}

/// A volume that is ready.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    /// The volume itself says it is read-only.
    pub(crate) read_only: bool,
}

/// The volumes of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Volumes {
    pub(crate) by_name: BTreeMap<String, Ready>,
    /// When tokens among them are to be renewed.
    pub(crate) refresh_at: Option<Timestamp>,
}

/// Sets up (or brings up to date) every volume of `pod`.
pub(crate) async fn set_up(node: &Node, pod: &PodView) -> Result<Volumes, VolumeError> {
    let mut out = Volumes::default();
    for volume in pod.spec().volumes.iter().flatten() {
        let fail = |error: VolumeError| {
            VolumeError(format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name))
        };
        let ready = one(node, pod, volume, &mut out.refresh_at).await.map_err(fail)?;
        out.by_name.insert(volume.name.clone(), ready);
    }
    Ok(out)
}

/// Brings the files of configMap, secret, projected and downwardAPI volumes up to date.
pub(crate) async fn refresh(node: &Node, pod: &PodView, volumes: &mut Volumes) -> Result<(), VolumeError> {
    volumes.refresh_at = None;
    for volume in pod.spec().volumes.iter().flatten() {
        if let Some(made) = payload::make(node, pod, volume).await? {
            write_payload(node, pod, volume, made, &mut volumes.refresh_at).await?;
        }
    }
    Ok(())
}

async fn one(
    node: &Node,
    pod: &PodView,
    volume: &Volume,
    refresh_at: &mut Option<Timestamp>,
) -> Result<Ready, VolumeError> {
    if let Some(made) = payload::make(node, pod, volume).await? {
        let path = write_payload(node, pod, volume, made, refresh_at).await?;
        return Ok(Ready { source: Source::Path(path), read_only: true });
    }
    let writable = |path| Ready { source: Source::Path(path), read_only: false };
    if let Some(source) = &volume.host_path {
        let source = source.clone();
        return blocking(move || host_path(&source)).await.map(writable);
    }
    if let Some(source) = &volume.empty_dir {
        let dir = node.config.pod_dir(&pod.uid).join("volumes/kubernetes.io~empty-dir").join(&volume.name);
        let (source, group) = (source.clone(), fs_group(pod));
        return blocking(move || empty_dir(&source, dir, group)).await.map(writable);
    }
    if let Some(source) = &volume.image {
        let reference = source.reference.clone().unwrap_or_default();
        return Ok(Ready {
            source: Source::Image { reference, pull_policy: source.pull_policy.clone() },
            read_only: true,
        });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return claim(node, pod, &source.claim_name, source.read_only.unwrap_or(false)).await;
    }
    Err(VolumeError("no volume plugin matched: this volume type is not supported by this node".into()))
}

async fn write_payload(
    node: &Node,
    pod: &PodView,
    volume: &Volume,
    mut made: payload::Made,
    refresh_at: &mut Option<Timestamp>,
) -> Result<PathBuf, VolumeError> {
    let plugin = match volume {
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { secret: Some(_), .. } => "secret",
        Volume { downward_api: Some(_), .. } => "downward-api",
        _ => "projected",
    };
    let dir = node.config.pod_memory_dir(&pod.uid).join(format!("volumes/kubernetes.io~{plugin}")).join(&volume.name);
    if let Some(at) = made.refresh_at {
        *refresh_at = Some(refresh_at.map_or(at, |known| known.min(at)));
    }
    let group = fs_group(pod);
    if group.is_some() {
        made.payload.values_mut().for_each(|file| file.mode |= 0o440);
    }
    let (random, now) = (node.random.clone(), node.clock.now());
    blocking(move || {
        atomic::write(&dir, &made.payload, group, now, &random)
            .map_err(|error| VolumeError(format!("write {}: {error}", dir.display())))?;
        Ok(dir)
    })
    .await
}

/// Runs file system work where it holds up no other task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(VolumeError(format!("volume work was interrupted: {error}"))),
    }
}

fn fs_group(pod: &PodView) -> Option<u32> {
    let group = pod.spec().security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let failed = |what: &str| VolumeError(format!("hostPath type check failed: {} is not {what}", path.display()));
    let attempt = |error: io::Error| VolumeError(format!("hostPath {}: {error}", path.display()));
    let found = fs::metadata(&path).ok().map(|meta| meta.file_type());
    let kind = source.type_.as_deref().unwrap_or("");
    match (kind, found) {
        ("", Some(_)) => {}
        // As container runtimes do for a bind mount whose source is missing.
        ("", None) | ("DirectoryOrCreate", None) => {
            fs::create_dir_all(&path).map_err(attempt)?;
            if !kind.is_empty() {
                fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(attempt)?;
            }
        }
        ("FileOrCreate", None) => {
            fs::write(&path, b"").map_err(attempt)?;
            fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(attempt)?;
        }
        ("Directory" | "DirectoryOrCreate", Some(found)) if found.is_dir() => {}
        ("File" | "FileOrCreate", Some(found)) if found.is_file() => {}
        ("Socket", Some(found)) if found.is_socket() => {}
        ("CharDevice", Some(found)) if found.is_char_device() => {}
        ("BlockDevice", Some(found)) if found.is_block_device() => {}
        ("Directory" | "DirectoryOrCreate", _) => return Err(failed("a directory")),
        ("File" | "FileOrCreate", _) => return Err(failed("a file")),
        ("Socket", _) => return Err(failed("a socket file")),
        ("CharDevice", _) => return Err(failed("a character device")),
        ("BlockDevice", _) => return Err(failed("a block device")),
        (other, _) => return Err(VolumeError(format!("{other} is an invalid volume type"))),
    }
    Ok(path)
}

fn empty_dir(source: &EmptyDirVolumeSource, dir: PathBuf, group: Option<u32>) -> Result<PathBuf, VolumeError> {
    let attempt = |error: io::Error| VolumeError(format!("emptyDir {}: {error}", dir.display()));
    let fresh = !dir.exists();
    fs::create_dir_all(&dir).map_err(attempt)?;
    match source.medium.as_deref().unwrap_or("") {
        "" => {}
        "Memory" => {
            if !is_mount_point(&dir).map_err(attempt)? {
                let size = source.size_limit.as_ref().and_then(units).filter(|size| *size > 0);
                let options = size.map(|size| format!("size={size}"));
                nix::mount::mount(
                    Some("tmpfs"),
                    &dir,
                    Some("tmpfs"),
                    MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                    options.as_deref(),
                )
                .map_err(|error| VolumeError(format!("mount tmpfs at {}: {error}", dir.display())))?;
            } else {
                return Ok(dir);
            }
        }
        other => return Err(VolumeError(format!("unknown storage medium {other:?}"))),
    }
    if fresh || source.medium.is_some() {
        if let Some(group) = group {
            chown(&dir, None, Some(group)).map_err(attempt)?;
        }
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        fs::set_permissions(&dir, Permissions::from_mode(mode)).map_err(attempt)?;
    }
    Ok(dir)
}

async fn claim(node: &Node, pod: &PodView, name: &str, read_only: bool) -> Result<Ready, VolumeError> {
    let api = |error: skiff_client::Error| VolumeError(format!("persistentvolumeclaim \"{name}\": {error}"));
    let claim = node.client.get::<PersistentVolumeClaim>(&pod.namespace, name).await.map_err(api)?;
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume_name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
    let volume_name = volume_name.ok_or_else(|| VolumeError(format!("PVC {}/{name} is not bound", pod.namespace)))?;
    let volume = node.client.get::<PersistentVolume>("", &volume_name).await.map_err(api)?;
    let spec = volume.spec.unwrap_or_default();
    let path = match (&spec.host_path, &spec.local) {
        (Some(source), _) => {
            let source = source.clone();
            blocking(move || host_path(&source)).await?
        }
        (None, Some(source)) => {
            let path = PathBuf::from(&source.path);
            if !path.exists() {
                return Err(VolumeError(format!("path {:?} does not exist", source.path)));
            }
            path
        }
        _ => {
            return Err(VolumeError(format!(
                "persistentvolume \"{volume_name}\": this volume type is not supported by this node"
            )));
        }
    };
    if let (Some(group), Some(_)) = (fs_group(pod), &spec.local) {
        let path = path.clone();
        blocking(move || {
            own(&path, group).map_err(|error| VolumeError(format!("set group of {}: {error}", path.display())))
        })
        .await?;
    }
    Ok(Ready { source: Source::Path(path), read_only })
}

/// Gives a volume's files to `group` unless its root already belongs to it.
fn own(root: &Path, group: u32) -> io::Result<()> {
    if fs::metadata(root)?.gid() == group {
        return Ok(());
    }
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_symlink() {
            continue;
        }
        chown(&path, None, Some(group))?;
        let extra = if meta.is_dir() { 0o2770 } else { 0o660 };
        fs::set_permissions(&path, Permissions::from_mode(meta.mode() & 0o7777 | extra))?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Removes everything of the pod from the disk: mounts first, and nothing when one cannot go.
pub(crate) async fn tear_down(node: &Node, uid: &str) -> Result<(), VolumeError> {
    let dirs = [node.config.pod_dir(uid), node.config.pod_memory_dir(uid)];
    node.tokens.lock().retain(|key, _| key.0 != uid);
    blocking(move || dirs.iter().try_for_each(|dir| remove(dir))).await
}

fn remove(dir: &Path) -> Result<(), VolumeError> {
    let attempt = |error: io::Error| VolumeError(format!("remove {}: {error}", dir.display()));
    if !dir.exists() {
        return Ok(());
    }
    let mut mounts = mounts_below(dir).map_err(attempt)?;
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.as_os_str().len()));
    for mount in &mounts {
        let _ = nix::mount::umount2(mount, MntFlags::MNT_DETACH);
    }
    // Recursing into a mount would delete what it shows.
    if let Some(left) = mounts_below(dir).map_err(attempt)?.first() {
        return Err(VolumeError(format!("remove {}: {} is still mounted", dir.display(), left.display())));
    }
    fs::remove_dir_all(dir).map_err(attempt)
}

fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let real = fs::canonicalize(dir)?;
    Ok(points.filter(|point| point.starts_with(&real)).collect())
}

/// The kernel writes blanks and backslashes of paths as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

pub(crate) fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let real = fs::canonicalize(dir)?;
    Ok(mounts_below(&real)?.contains(&real))
}
