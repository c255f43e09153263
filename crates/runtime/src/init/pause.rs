//! The pause process: it holds a sandbox's namespaces and reaps what is orphaned in them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::process::set_oom_score;
use super::rootfs::change_root_propagation;
use crate::security::capabilities;
use crate::spec::SandboxSpec;
use crate::sys::{Attempt, Beneath, check, filesystem, move_onto, open, send, setns, write_existing};

/// Nobody's user, as in upstream's pause image.
const PAUSE_ID: u32 = 65_535;

/// Becomes the pause process. Sends an empty `R` when the sandbox is ready and `E` with a text
/// when it cannot be. Never returns.
pub(crate) fn run(spec: &SandboxSpec, status: OwnedFd) -> ! {
    match prepare(spec) {
        Ok(()) => {
            let _ = send(&status, b"R", &[]);
            drop(status);
            hold()
        }
        Err(error) => {
            let _ = send(&status, format!("E{error}").as_bytes(), &[]);
            // SAFETY: ends this process without running anything of the shim's.
            unsafe { libc::_exit(128) }
        }
    }
}

fn prepare(spec: &SandboxSpec) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    set_oom_score(spec.oom_score_adj)?;
    spec.join.enter_v1()?;
    match (&spec.node_netns, spec.own_network) {
        (_, true) => bring_up_loopback().attempt(|| "bring up the loopback interface".into())?,
        (Some(path), false) => {
            let namespace = open(path, libc::O_RDONLY)?;
            setns(&namespace, libc::CLONE_NEWNET).attempt(|| format!("join {}", path.display()))?;
        }
        (None, false) => {}
    }
    if !spec.hostname.is_empty() {
        // SAFETY: the pointer is valid for the length.
        check(unsafe { libc::sethostname(spec.hostname.as_ptr().cast(), spec.hostname.len()) })
            .attempt(|| format!("set hostname {:?}", spec.hostname))?;
    }
    for (path, value) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(path);
        write_existing(&path, value).attempt(|| format!("set sysctl {} to {value:?}", path.display()))?;
    }
    leave_host_files()?;
    drop_everything()
}

fn bring_up_loopback() -> io::Result<()> {
    // SAFETY: the request structure is zeroed, its name is terminated, and both calls get its
    // address.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = crate::sys::owned(socket.into());
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&socket), libc::SIOCSIFFLAGS, &raw mut request)).map(drop)
    }
}

/// A container that shares the pod's processes can reach `/proc/1/root`: it must find nothing.
fn leave_host_files() -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP) })?;
    change_root_propagation()?;
    let empty = filesystem(
        c"tmpfs",
        &[("mode", "555"), ("size", "4k")],
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
    )?;
    move_onto(&empty, &open(Path::new("/proc"), libc::O_PATH)?)?;
    super::rootfs::pivot(&Beneath(empty))
}

fn drop_everything() -> io::Result<()> {
    let none = capabilities::Sets::default();
    capabilities::bound(none)?;
    // SAFETY: plain calls without memory.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(PAUSE_ID, PAUSE_ID, PAUSE_ID))?;
        check(libc::setresuid(PAUSE_ID, PAUSE_ID, PAUSE_ID))?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        libc::setsid();
    }
    capabilities::apply(none)
}

/// Waits for the end, reaping children on the way.
fn hold() -> ! {
    crate::sys::forget_program();
    // SAFETY: the set is initialised by the first call; waiting and exiting involve no memory of
    // ours. The shim has blocked all signals, so none is lost between the calls.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        loop {
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
            match signal {
                libc::SIGCHLD => while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {},
                libc::SIGTERM | libc::SIGINT => libc::_exit(0),
                _ => {}
            }
        }
    }
}
