//! A network namespace: made, kept by a bind-mounted file, entered for a moment.

use std::fs::File;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::error::{NetError, Result};

/// Connections that wait to be accepted by a listener of ours.
const LISTEN_BACKLOG: u32 = 1_024;
const NSFS: FsType = FsType(0x6e73_6673);

/// A handle on a network namespace; it lives at least as long as the handle. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    path: Arc<Path>,
}

impl Namespace {
    /// Makes a namespace kept by `path`, or opens the one that is kept there already.
    ///
    /// # Errors
    /// When the kernel refuses the namespace or the mount, or `path` is taken by something else.
    pub fn ensure(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Ok(namespace) => return Ok(namespace),
            Err(error) if error.kernel() == Some(Errno::ENOENT) => {
                File::create(path).map_err(|error| NetError::io("create", path.display().to_string(), &error))?;
            }
            // An empty file is what a crash between the two steps leaves.
            Err(_) if std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0) => {}
            Err(error) => return Err(error),
        }
        let keep = |errno| NetError::errno("make network namespace", path.display().to_string(), errno);
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        })
        .map_err(keep)?
        .map_err(keep)?;
        Self::open(path)
    }

    /// Opens the namespace that `path` keeps, or that of a process (`/proc/PID/ns/net`).
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let object = || path.display().to_string();
        let file = File::open(path).map_err(|error| NetError::io("open network namespace", object(), &error))?;
        let kind = fstatfs(&file).map_err(|errno| NetError::errno("open network namespace", object(), errno))?;
        if kind.filesystem_type() != NSFS {
            return Err(NetError::invalid("open network namespace", object(), "the file keeps no namespace"));
        }
        Ok(Self { file: Arc::new(file), path: path.into() })
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Stops keeping the namespace at `path`: it ends with its last process and handle.
    ///
    /// # Errors
    /// When the mount or the file cannot be removed; success when nothing is there.
    pub fn remove(path: &Path) -> Result<()> {
        let fail = |errno| NetError::errno("remove network namespace", path.display().to_string(), errno);
        loop {
            match umount2(path, MntFlags::MNT_DETACH) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(fail(errno)),
            }
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(NetError::io("remove network namespace", path.display().to_string(), &error))
            }
            _ => Ok(()),
        }
    }

    /// Where the namespace was opened.
    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }

    /// Runs `work` inside, on a thread of its own (about 60 µs), and waits for it. Sockets made
    /// inside stay inside; `/proc/sys/net` is the namespace's own.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let fail = |errno| NetError::errno("enter network namespace", self.path.display().to_string(), errno);
        let file = &self.file;
        on_thread(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(fail)?
        .map_err(fail)
    }

    /// Connects to `address` from inside. The caller sets the deadline.
    ///
    /// # Errors
    /// As a connection fails.
    pub async fn tcp_connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let socket = self.tcp_socket("connect", address)?;
        socket.connect(address).await.map_err(|error| NetError::io("connect", address.to_string(), &error))
    }

    /// Listens on `address` inside.
    ///
    /// # Errors
    /// When the address is taken or not there.
    pub fn tcp_listen(&self, address: SocketAddr) -> Result<TcpListener> {
        let fail = |error: std::io::Error| NetError::io("listen on", address.to_string(), &error);
        let socket = self.tcp_socket("listen on", address)?;
        socket.set_reuseaddr(true).map_err(fail)?;
        socket.bind(address).map_err(fail)?;
        socket.listen(LISTEN_BACKLOG).map_err(fail)
    }

    /// Binds a datagram socket on `address` inside.
    ///
    /// # Errors
    /// When the address is taken or not there.
    pub fn udp_bind(&self, address: SocketAddrV4) -> Result<UdpSocket> {
        let fail = |error: std::io::Error| NetError::io("bind", address.to_string(), &error);
        let socket = self.run(|| std::net::UdpSocket::bind(address))?.map_err(fail)?;
        socket.set_nonblocking(true).map_err(fail)?;
        UdpSocket::from_std(socket).map_err(fail)
    }

    fn tcp_socket(&self, attempt: &'static str, address: SocketAddr) -> Result<TcpSocket> {
        // A socket's namespace is fixed when it is made; connecting may happen anywhere.
        self.run(|| if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?
            .map_err(|error| NetError::io(attempt, address.to_string(), &error))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` on a fresh thread, because a namespace change must not outlive it.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)
            .map_err(|error| error.raw_os_error().map_or(Errno::EAGAIN, Errno::from_raw))?;
        thread.join().map_err(|_| Errno::EFAULT)
    })
}
