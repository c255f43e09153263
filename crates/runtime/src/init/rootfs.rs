//! The file tree of a container, built in its own mount namespace.
//!
//! Sources are cloned in the host's namespace first ([`Sources`]); everything else is made by
//! descriptor and attached below the new root, each target resolved beneath it. The image decides
//! what is in the tree, so no path in it is trusted.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::spec::{ContainerSpec, DeviceNode, MountAccess, MountFlow};
use crate::sys::{
    Attempt, Beneath, Propagation, c_path, check, clone_tree, filesystem, move_onto, open, set_attributes,
    set_propagation,
};

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Detached copies of what the host lends.
pub(super) struct Sources {
    /// In the order of the specification's mounts.
    binds: Vec<OwnedFd>,
    shm: Option<OwnedFd>,
    null: Option<OwnedFd>,
    cgroups: Vec<(PathBuf, OwnedFd)>,
}

impl Sources {
    /// Clones; to be called before the mount namespace is left.
    pub(super) fn collect(spec: &ContainerSpec) -> io::Result<Self> {
        let mut binds = Vec::with_capacity(spec.mounts.len());
        for mount in &spec.mounts {
            let describe = || format!("mount {} at {}", mount.source.display(), mount.target.display());
            let tree = clone_tree(None, &mount.source, true).attempt(describe)?;
            let propagation = match mount.propagation {
                MountFlow::Private => Propagation::Private,
                MountFlow::HostToContainer => Propagation::Slave,
                MountFlow::Bidirectional => Propagation::Shared,
            };
            set_propagation(&tree, propagation).attempt(describe)?;
            match mount.access {
                MountAccess::Write => {}
                MountAccess::Read => set_attributes(&tree, READ_ONLY, false).attempt(describe)?,
                MountAccess::ReadRecursive => set_attributes(&tree, READ_ONLY, true).attempt(describe)?,
            }
            binds.push(tree);
        }
        let private = |path: &Path, recursive| {
            let tree = clone_tree(None, path, recursive).attempt(|| format!("clone {}", path.display()))?;
            set_propagation(&tree, Propagation::Private)?;
            Ok::<_, io::Error>(tree)
        };
        let shm = spec.shm_dir.as_deref().map(|path| private(path, false)).transpose()?;
        let null = (!spec.masked_paths.is_empty()).then(|| private(Path::new("/dev/null"), false)).transpose()?;
        let mut cgroups = Vec::new();
        for (controller, dir) in &spec.join.v1 {
            cgroups.push((PathBuf::from(controller), private(dir, false)?));
        }
        Ok(Self { binds, shm, null, cgroups })
    }
}

/// Builds the tree and makes it the root of the calling process.
///
/// `terminal` is the process end of a terminal that is opened in the new tree.
pub(super) fn enter(spec: &ContainerSpec, sources: Sources) -> io::Result<Beneath> {
    // Nothing that happens below may travel to the host; host events may still arrive for mounts
    // that want them, which are separate clones.
    change_root_propagation()?;
    let root = overlay(spec)?;
    let is_given = |path: &str| spec.mounts.iter().any(|mount| mount.target == Path::new(path));
    kernel_filesystems(spec, &root, sources.cgroups).attempt(|| "mount the kernel's filesystems".into())?;
    if !is_given("/dev") {
        devices(spec, &root, if is_given("/dev/shm") { None } else { sources.shm })
            .attempt(|| "populate /dev".into())?;
    }
    let mut order: Vec<_> = spec.mounts.iter().zip(&sources.binds).collect();
    // Outer before inner, whatever order the pod has them in.
    order.sort_by_key(|(mount, _)| mount.target.components().count());
    for (mount, tree) in order {
        bind(&root, tree, &mount.target)
            .attempt(|| format!("mount {} at {}", mount.source.display(), mount.target.display()))?;
    }
    for device in &spec.devices {
        make_device(&root, device).attempt(|| format!("make device {}", device.path.display()))?;
    }
    if spec.process.cwd != Path::new("/") {
        root.directory(&spec.process.cwd).attempt(|| format!("make working directory {:?}", spec.process.cwd))?;
    }
    hide(spec, &root, sources.null.as_ref())?;
    if spec.readonly_rootfs {
        set_attributes(&root.0, READ_ONLY, false).attempt(|| "make the root read-only".into())?;
    }
    Ok(root)
}

/// Makes `root` the root directory and lets the old one go.
pub(super) fn pivot(root: &Beneath) -> io::Result<()> {
    // SAFETY: valid C strings and open descriptors throughout. The old root ends up mounted over
    // the new one and is detached from there (pivot_root(2), "pivot_root(".", ".")").
    unsafe {
        check(libc::fchdir(root.0.as_raw_fd()))?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr())).attempt(|| "pivot_root".into())?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH)).attempt(|| "detach the old root".into())?;
        check(libc::chdir(c"/".as_ptr())).map(drop)
    }
}

/// Cuts this mount namespace off from its origin.
pub(super) fn change_root_propagation() -> io::Result<()> {
    // SAFETY: null and valid C strings as mount(2) wants them.
    check(unsafe {
        libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    })
    .attempt(|| "make mounts private".into())
    .map(drop)
}

fn overlay(spec: &ContainerSpec) -> io::Result<Beneath> {
    let mount_point = spec.io.run_dir.join("rootfs");
    let text = |path: PathBuf| path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("path is not UTF-8"));
    let mut options = Vec::new();
    for layer in &spec.layers {
        options.push(("lowerdir+", text(spec.layers_dir.join(layer))?));
    }
    options.push(("upperdir", text(spec.scratch_dir.join("upper"))?));
    options.push(("workdir", text(spec.scratch_dir.join("work"))?));
    // The upper directory never outlives a crash of the machine with meaning, so nothing is synced.
    options.push(("volatile", String::new()));
    let borrowed: Vec<_> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let target = open(&mount_point, libc::O_PATH | libc::O_DIRECTORY)?;
    match filesystem(c"overlay", &borrowed, 0) {
        Ok(mount) => {
            move_onto(&mount, &target).attempt(|| "attach the root filesystem".into())?;
            Ok(Beneath(mount))
        }
        // `lowerdir+` is Linux ≥ 6.7.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) || error.kind() == io::ErrorKind::InvalidInput => {
            overlay_by_path(spec, &mount_point).attempt(|| format!("mount the root filesystem (after {error})"))?;
            Beneath::open(&mount_point)
        }
        Err(error) => Err(error).attempt(|| "mount the root filesystem".into()),
    }
}

/// The same by mount(2), whose options must fit a page: layers are named relative to their
/// directory.
fn overlay_by_path(spec: &ContainerSpec, mount_point: &Path) -> io::Result<()> {
    let layers = c_path(&spec.layers_dir)?;
    let scratch = spec.scratch_dir.display();
    let options =
        format!("lowerdir={},upperdir={scratch}/upper,workdir={scratch}/work,volatile", spec.layers.join(":"));
    let options = CString::new(options)?;
    let target = c_path(mount_point)?;
    // SAFETY: valid C strings.
    unsafe {
        check(libc::chdir(layers.as_ptr()))?;
        check(libc::mount(c"overlay".as_ptr(), target.as_ptr(), c"overlay".as_ptr(), 0, options.as_ptr().cast()))
            .map(drop)
    }
}

/// A directory for one of the kernel's filesystems. An image in which it is a link would make us
/// mount, and later mask, somewhere else (CVE-2019-19921).
fn fixed_directory(root: &Beneath, path: &str) -> io::Result<OwnedFd> {
    let found = crate::sys::open_beneath(&root.0, Path::new(path), libc::O_PATH | libc::O_NOFOLLOW);
    if let Ok(found) = found
        && mode(&found)? & libc::S_IFMT != libc::S_IFDIR
    {
        return Err(io::Error::other(format!("/{path} in the image is not a directory")));
    }
    root.directory(Path::new(path))
}

fn mode(fd: &OwnedFd) -> io::Result<u32> {
    // SAFETY: all-zero is a valid stat buffer for the call to fill.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &raw mut stat))?;
        Ok(stat.st_mode)
    }
}

fn kernel_filesystems(spec: &ContainerSpec, root: &Beneath, cgroups: Vec<(PathBuf, OwnedFd)>) -> io::Result<()> {
    let locked = NO_SUID | NO_DEV | NO_EXEC;
    let access = if spec.privileged { 0 } else { READ_ONLY };
    let proc = filesystem(c"proc", &[], locked).attempt(|| "proc".into())?;
    move_onto(&proc, &fixed_directory(root, "proc")?)?;
    let sys = filesystem(c"sysfs", &[], locked | access).attempt(|| "sysfs".into())?;
    move_onto(&sys, &fixed_directory(root, "sys")?)?;
    let target = match root.find(Path::new("sys/fs/cgroup")) {
        Ok(target) => target,
        Err(_) => return Ok(()), // a kernel without control groups below sysfs
    };
    if spec.join.v2.is_some() {
        let groups = filesystem(c"cgroup2", &[], locked | access).attempt(|| "cgroup2".into())?;
        return move_onto(&groups, &target);
    }
    let shelf = filesystem(c"tmpfs", &[("mode", "755"), ("size", "64k")], locked)?;
    let shelf_tree = Beneath(shelf.try_clone()?);
    for (controller, _) in &cgroups {
        shelf_tree.directory(controller)?;
    }
    set_attributes(&shelf, access, false)?;
    move_onto(&shelf, &target)?;
    for (controller, tree) in cgroups {
        set_attributes(&tree, locked | access, false)?;
        move_onto(&tree, &shelf_tree.find(&controller)?)?;
    }
    Ok(())
}

fn devices(spec: &ContainerSpec, root: &Beneath, shm: Option<OwnedFd>) -> io::Result<()> {
    let dev = filesystem(c"tmpfs", &[("mode", "755"), ("size", "64m")], NO_SUID)?;
    let tree = Beneath(dev);
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let device = DeviceNode { path: name.into(), block: false, major, minor, mode: 0o666, uid: 0, gid: 0 };
        make_device(&tree, &device)?;
    }
    for (name, target) in [
        (c"fd", c"/proc/self/fd"),
        (c"stdin", c"/proc/self/fd/0"),
        (c"stdout", c"/proc/self/fd/1"),
        (c"stderr", c"/proc/self/fd/2"),
        (c"core", c"/proc/kcore"),
        (c"ptmx", c"pts/ptmx"),
    ] {
        // SAFETY: valid C strings below an open directory.
        check(unsafe { libc::symlinkat(target.as_ptr(), tree.0.as_raw_fd(), name.as_ptr()) })?;
    }
    for name in ["pts", "shm", "mqueue"] {
        tree.directory(Path::new(name))?;
    }
    move_onto(&tree.0, &fixed_directory(root, "dev")?)?;
    let pts = filesystem(
        c"devpts",
        &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
        NO_SUID | NO_EXEC,
    )?;
    move_onto(&pts, &tree.find(Path::new("pts"))?)?;
    if let Some(shm) = shm {
        move_onto(&shm, &tree.find(Path::new("shm"))?)?;
    }
    if !spec.host_ipc || spec.privileged {
        let queues = filesystem(c"mqueue", &[], NO_SUID | NO_DEV | NO_EXEC)?;
        move_onto(&queues, &tree.find(Path::new("mqueue"))?)?;
    }
    Ok(())
}

fn make_device(root: &Beneath, device: &DeviceNode) -> io::Result<()> {
    let (parent, name) = root.parent(&device.path)?;
    let name = c_path(&name)?;
    let kind = if device.block { libc::S_IFBLK } else { libc::S_IFCHR };
    // SAFETY: valid C strings below an open directory.
    unsafe {
        let made = check(libc::mknodat(
            parent.as_raw_fd(),
            name.as_ptr(),
            kind | device.mode,
            libc::makedev(device.major, device.minor),
        ));
        match made {
            // One of ours, or listed twice.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => drop(other?),
        }
        if device.uid != 0 || device.gid != 0 {
            check(libc::fchownat(
                parent.as_raw_fd(),
                name.as_ptr(),
                device.uid,
                device.gid,
                libc::AT_SYMLINK_NOFOLLOW,
            ))?;
        }
    }
    Ok(())
}

/// `PROC_SUPER_MAGIC`.
const PROC_MAGIC: i64 = 0x9fa0;

fn bind(root: &Beneath, tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = if mode(tree)? & libc::S_IFMT == libc::S_IFDIR { root.directory(target)? } else { root.file(target)? };
    // SAFETY: all-zero is a valid buffer for the call to fill.
    let magic = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        check(libc::fstatfs(target.as_raw_fd(), &raw mut stat))?;
        stat.f_type
    };
    if magic as i64 == PROC_MAGIC {
        return Err(io::Error::other("the target is inside /proc"));
    }
    move_onto(tree, &target)
}

/// Masks and write-protects paths of the kernel's filesystems. Absent ones need nothing.
fn hide(spec: &ContainerSpec, root: &Beneath, null: Option<&OwnedFd>) -> io::Result<()> {
    let mut empty = None;
    for path in &spec.masked_paths {
        let Ok(target) = root.find(path) else { continue };
        let cover = if mode(&target)? & libc::S_IFMT == libc::S_IFDIR {
            if empty.is_none() {
                empty = Some(filesystem(c"tmpfs", &[("mode", "555"), ("size", "4k")], READ_ONLY | NO_SUID | NO_DEV)?);
            }
            empty.as_ref()
        } else {
            null
        };
        let Some(cover) = cover else { continue };
        // A mount that is attached already can be cloned within the namespace; a detached one only
        // on Linux ≥ 6.15, so the first use attaches the original.
        let copy = clone_tree(Some(cover), Path::new(""), false);
        match copy {
            Ok(copy) => move_onto(&copy, &target),
            Err(_) => move_onto(cover, &target),
        }
        .attempt(|| format!("mask {}", path.display()))?;
    }
    for path in &spec.readonly_paths {
        let Ok(target) = root.find(path) else { continue };
        let describe = || format!("protect {}", path.display());
        let tree = clone_tree(Some(&target), Path::new(""), true).attempt(describe)?;
        set_attributes(&tree, READ_ONLY, true).attempt(describe)?;
        move_onto(&tree, &target).attempt(describe)?;
    }
    Ok(())
}

/// Shows the terminal as `/dev/console`.
pub(super) fn console(root: &Beneath, master: &OwnedFd) -> io::Result<()> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the request writes one unsigned int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    let terminal = root.find(Path::new(&format!("dev/pts/{number}")))?;
    let tree = clone_tree(Some(&terminal), Path::new(""), false)?;
    move_onto(&tree, &root.file(Path::new("dev/console"))?)
}
