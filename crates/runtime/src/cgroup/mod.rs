//! Control groups, version 1 and 2 behind one face. Nothing else knows which one the machine has.
//!
//! Paths are those of the kubelet (`/kubepods/burstable/podUID/ID`), relative to the root of the
//! hierarchy. Version 2 is used when it holds the memory controller.

mod devices;
mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use devices::DeviceRule;
pub(crate) use usage::Usage;

use crate::cri::LinuxContainerResources;
use crate::sys::{Attempt, write_existing};

/// The hierarchies of the machine.
#[derive(Clone, Debug)]
pub(crate) enum Cgroups {
    /// Mount point by controller.
    V1(BTreeMap<&'static str, PathBuf>),
    /// The one mount point.
    V2(PathBuf),
}

/// The controllers that every group gets in version 1.
const ALWAYS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];
/// The controllers that a group gets in version 1 when it needs them.
const ON_DEMAND: [&str; 2] = ["cpuset", "hugetlb"];

/// How a process enters a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// Version 1: directories, one in each hierarchy.
    pub(crate) v1: BTreeMap<String, PathBuf>,
    /// Version 2: the directory.
    pub(crate) v2: Option<PathBuf>,
}

impl Join {
    /// Moves the calling single-threaded process. Version 2 is entered at clone time instead.
    ///
    /// Writing `0` to `tasks` (not `cgroup.procs`) moves the caller only and so spares the
    /// kernel a global lock and its grace period.
    pub(crate) fn enter_v1(&self) -> io::Result<()> {
        for dir in self.v1.values() {
            let tasks = dir.join("tasks");
            write_existing(&tasks, "0").attempt(|| format!("join {}", tasks.display()))?;
        }
        Ok(())
    }
}

impl Cgroups {
    /// Looks at what is mounted.
    ///
    /// # Errors
    /// When neither version is usable.
    pub(crate) fn detect() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        Self::from_mounts(&mounts, |path| fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default())
    }

    fn from_mounts(mounts: &str, controllers: impl Fn(&Path) -> String) -> io::Result<Self> {
        let mut v1 = BTreeMap::new();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(path), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let path = Path::new(path);
            if kind == "cgroup2" && controllers(path).split_whitespace().any(|name| name == "memory") {
                return Ok(Self::V2(path.to_path_buf()));
            }
            if kind == "cgroup" {
                for option in options.split(',') {
                    if let Some(name) = ALWAYS.iter().chain(&ON_DEMAND).find(|name| **name == option) {
                        v1.entry(*name).or_insert_with(|| path.to_path_buf());
                    }
                }
            }
        }
        if v1.contains_key("memory") && v1.contains_key("cpu") {
            Ok(Self::V1(v1))
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy with the memory controller is mounted"))
        }
    }

    /// How a process will enter the group; nothing is made yet.
    pub(crate) fn join(&self, path: &str, limits: &Limits) -> io::Result<Join> {
        let relative = safe(path)?;
        Ok(match self {
            Self::V1(hierarchies) => {
                let wanted = hierarchies.iter().filter(|(name, _)| !ON_DEMAND.contains(*name) || limits.need(name));
                let v1 = wanted.map(|(name, root)| ((*name).to_owned(), root.join(&relative))).collect();
                Join { v1, v2: None }
            }
            Self::V2(root) => Join { v1: BTreeMap::new(), v2: Some(root.join(relative)) },
        })
    }

    /// Makes the group (and its parents) and sets its limits.
    pub(crate) fn create(&self, path: &str, limits: &Limits, devices: Option<&[DeviceRule]>) -> io::Result<()> {
        let relative = safe(path)?;
        match self {
            Self::V1(hierarchies) => {
                for controller in self.join(path, limits)?.v1.keys() {
                    let root = &hierarchies[controller.as_str()];
                    make_v1(controller, root, &relative)
                        .attempt(|| format!("make cgroup {}", root.join(&relative).display()))?;
                }
                if let (Some(rules), Some(root)) = (devices, hierarchies.get("devices")) {
                    devices::set_v1(&root.join(&relative), rules)?;
                }
            }
            Self::V2(root) => {
                let dir = root.join(&relative);
                make_v2(root, &relative).attempt(|| format!("make cgroup {}", dir.display()))?;
                if let Some(rules) = devices {
                    devices::set_v2(&dir, rules).attempt(|| format!("limit devices of {}", dir.display()))?;
                }
            }
        }
        self.update(path, limits)
    }

    /// Sets limits of an existing group; absent ones stay as they are.
    pub(crate) fn update(&self, path: &str, limits: &Limits) -> io::Result<()> {
        let relative = safe(path)?;
        for (controller, file, value) in limits.files(matches!(self, Self::V2(_))) {
            let root = match self {
                Self::V1(hierarchies) => match hierarchies.get(controller) {
                    Some(root) => root,
                    // A limit that cannot be kept is an error, swap accounting aside.
                    None => return Err(io::Error::other(format!("no cgroup controller {controller} for {file}"))),
                },
                Self::V2(root) => root,
            };
            let target = root.join(&relative).join(&file);
            match write_existing(&target, &value) {
                // Kernels without swap accounting lack these files.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && (file.contains("memsw") || file.contains("swap")) => {
                }
                other => other.attempt(|| format!("write {value:?} to {}", target.display()))?,
            }
        }
        Ok(())
    }

    /// The processes of the group and below.
    pub(crate) fn processes(&self, path: &str) -> Vec<i32> {
        let Ok(relative) = safe(path) else { return Vec::new() };
        let root = match self {
            Self::V1(hierarchies) => hierarchies.get("pids").or_else(|| hierarchies.get("memory")),
            Self::V2(root) => Some(root),
        };
        let mut found = Vec::new();
        if let Some(root) = root {
            walk(&root.join(relative), &mut |dir| {
                let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        found
    }

    /// Kills every process of the group.
    pub(crate) fn kill(&self, path: &str) {
        if let (Self::V2(root), Ok(relative)) = (self, safe(path))
            && write_existing(&root.join(relative).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        // Forks may race with the list: bounded rounds, the last of which finds nobody.
        for _ in 0..16 {
            let processes = self.processes(path);
            if processes.is_empty() {
                return;
            }
            for pid in processes {
                // SAFETY: no memory is involved; a vanished process is no error.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }

    /// Removes the group with everything below it. Processes must be dying or dead; the kernel
    /// needs a moment to forget them, and version 1 has no event for that, so this waits in small
    /// steps up to a bound.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let relative = safe(path)?;
        if relative.as_os_str().is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root cgroup cannot be removed"));
        }
        let roots: Vec<&PathBuf> = match self {
            Self::V1(hierarchies) => hierarchies.values().collect(),
            Self::V2(root) => vec![root],
        };
        for root in roots {
            let dir = root.join(&relative);
            let mut step = 0;
            while let Err(error) = remove_tree(&dir) {
                if error.raw_os_error() != Some(libc::EBUSY) || step == REMOVE_STEPS_MAX {
                    return Err(error).attempt(|| format!("remove cgroup {}", dir.display()));
                }
                step += 1;
                std::thread::sleep(REMOVE_STEP);
            }
        }
        Ok(())
    }
}

/// One second in all: longer means that a process is stuck in the kernel.
const REMOVE_STEPS_MAX: u32 = 500;
const REMOVE_STEP: Duration = Duration::from_millis(2);

/// A cgroup path as a relative one without `..`.
fn safe(path: &str) -> io::Result<PathBuf> {
    let mut safe = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => safe.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("cgroup path {path:?} is not absolute"),
                ));
            }
        }
    }
    Ok(safe)
}

fn make_v1(controller: &str, root: &Path, relative: &Path) -> io::Result<()> {
    let dir = root.join(relative);
    if controller != "cpuset" {
        return match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&dir),
            other => other,
        };
    }
    // A new cpuset is empty and takes nobody until it has the processors of its parent.
    let mut current = root.to_path_buf();
    for component in relative.components() {
        let parent = current.clone();
        current.push(component);
        if fs::create_dir(&current).is_ok() {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read_to_string(parent.join(file))?;
                write_existing(&current.join(file), value.trim())?;
            }
        }
    }
    Ok(())
}

fn make_v2(root: &Path, relative: &Path) -> io::Result<()> {
    let mut current = root.to_path_buf();
    for component in relative.components() {
        let available = fs::read_to_string(current.join("cgroup.controllers"))?;
        let enabled = fs::read_to_string(current.join("cgroup.subtree_control"))?;
        for wanted in ["cpu", "cpuset", "memory", "pids", "hugetlb", "io"] {
            let has = |text: &str| text.split_whitespace().any(|name| name == wanted);
            if has(&available) && !has(&enabled) {
                write_existing(&current.join("cgroup.subtree_control"), &format!("+{wanted}"))
                    .attempt(|| format!("enable controller {wanted} below {}", current.display()))?;
            }
        }
        current.push(component);
        match fs::create_dir(&current) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}

/// Calls `visit` for `dir` and every group below, deepest first. Bounded by the kernel's own
/// limits on nesting.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(dir);
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    // The common case is a group without children: one call.
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    let mut result = Ok(());
    walk(dir, &mut |dir| match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => result = Err(error),
        _ => {}
    });
    result
}

/// Limits of a group; `None` leaves the kernel's value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpu_quota_us: Option<i64>,
    pub(crate) cpu_period_us: Option<u64>,
    pub(crate) memory_bytes: Option<i64>,
    /// Memory and swap together.
    pub(crate) memory_and_swap_bytes: Option<i64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes by page size (`2MB`).
    pub(crate) hugepages: BTreeMap<String, u64>,
    /// Files of version 2, as given.
    pub(crate) unified: BTreeMap<String, String>,
}

impl From<&LinuxContainerResources> for Limits {
    /// Zero means "not set" in CRI.
    fn from(resources: &LinuxContainerResources) -> Self {
        let some = |value: i64| (value != 0).then_some(value);
        let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        Self {
            cpu_shares: some(resources.cpu_shares).map(|value| value.clamp(2, 262_144) as u64),
            cpu_quota_us: some(resources.cpu_quota),
            cpu_period_us: some(resources.cpu_period).map(|value| value.max(0) as u64),
            memory_bytes: some(resources.memory_limit_in_bytes),
            memory_and_swap_bytes: some(resources.memory_swap_limit_in_bytes),
            cpuset_cpus: text(&resources.cpuset_cpus),
            cpuset_mems: text(&resources.cpuset_mems),
            hugepages: resources.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
            unified: resources.unified.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}

impl Limits {
    fn need(&self, controller: &str) -> bool {
        match controller {
            "cpuset" => self.cpuset_cpus.is_some() || self.cpuset_mems.is_some(),
            "hugetlb" => self.hugepages.values().any(|&bytes| bytes > 0),
            _ => true,
        }
    }

    /// Controller, file and value, in the order to write them.
    fn files(&self, v2: bool) -> Vec<(&'static str, String, String)> {
        let mut files = Vec::new();
        let mut put = |controller, file: &str, value: String| files.push((controller, file.to_owned(), value));
        if v2 {
            self.files_v2(&mut put);
        } else {
            self.files_v1(&mut put);
        }
        files
    }

    fn files_v1(&self, put: &mut dyn FnMut(&'static str, &str, String)) {
        if let Some(shares) = self.cpu_shares {
            put("cpu", "cpu.shares", shares.to_string());
        }
        if let Some(period) = self.cpu_period_us {
            put("cpu", "cpu.cfs_period_us", period.to_string());
        }
        if let Some(quota) = self.cpu_quota_us {
            put("cpu", "cpu.cfs_quota_us", quota.to_string());
        }
        if let Some(bytes) = self.memory_bytes {
            put("memory", "memory.limit_in_bytes", bytes.to_string());
        }
        if let Some(bytes) = self.memory_and_swap_bytes {
            put("memory", "memory.memsw.limit_in_bytes", bytes.to_string());
        }
        self.files_common(put, "limit_in_bytes");
    }

    fn files_v2(&self, put: &mut dyn FnMut(&'static str, &str, String)) {
        if let Some(shares) = self.cpu_shares {
            put("cpu", "cpu.weight", weight(shares).to_string());
        }
        if let Some(quota) = self.cpu_quota_us {
            let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
            put("cpu", "cpu.max", format!("{quota} {}", self.cpu_period_us.unwrap_or(100_000)));
        }
        let bytes = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        if let Some(memory) = self.memory_bytes {
            put("memory", "memory.max", bytes(memory));
        }
        if let Some(both) = self.memory_and_swap_bytes {
            let swap = if both < 0 { both } else { (both - self.memory_bytes.unwrap_or(0)).max(0) };
            put("memory", "memory.swap.max", bytes(swap));
        }
        self.files_common(put, "max");
        for (file, value) in &self.unified {
            put("memory", file, value.clone());
        }
    }

    fn files_common(&self, put: &mut dyn FnMut(&'static str, &str, String), hugepage_suffix: &str) {
        if let Some(cpus) = &self.cpuset_cpus {
            put("cpuset", "cpuset.cpus", cpus.clone());
        }
        if let Some(mems) = &self.cpuset_mems {
            put("cpuset", "cpuset.mems", mems.clone());
        }
        if self.need("hugetlb") {
            for (size, bytes) in &self.hugepages {
                put("hugetlb", &format!("hugetlb.{size}.{hugepage_suffix}"), bytes.to_string());
            }
        }
    }
}

/// CPU shares (2..=262144) as a weight (1..=10000) that keeps 1024 at 100
/// (<https://github.com/kubernetes/kubernetes/issues/131216>).
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_the_memory_controller() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let Cgroups::V1(found) = Cgroups::from_mounts(hybrid, |_| "hugetlb".into()).unwrap() else { panic!("not v1") };
        assert_eq!(found["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert!(matches!(Cgroups::from_mounts(unified, |_| "cpu memory pids".into()), Ok(Cgroups::V2(_))));
        assert!(Cgroups::from_mounts("", |_| String::new()).is_err());
    }

    #[test]
    fn weights_keep_the_landmarks() {
        assert_eq!([2, 256, 1_024, 262_144].map(weight), [1, 35, 100, 10_000]);
    }

    #[test]
    fn paths_cannot_climb() {
        assert!(safe("/kubepods/../..").is_err());
        assert_eq!(safe("/kubepods/pod1").unwrap(), Path::new("kubepods/pod1"));
    }
}
