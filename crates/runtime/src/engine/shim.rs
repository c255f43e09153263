//! The server's side of the conversation with shims.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::shim;
use crate::sys::{Attempt, PidFd, check, on_reactor, open, owned, pipe, read, receive, send, set_nonblocking, spawn};

/// How long a start may take: pulling nothing, but perhaps waiting for a slow volume. The kubelet
/// gives up after two minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Starts a shim and waits until its sandbox is ready. Blocking.
pub(super) fn start(executable: &Path, state_dir: &Path, mode: &str) -> io::Result<PidFd> {
    let null = open(Path::new("/dev/null"), libc::O_RDWR)?;
    let log = open(&state_dir.join("shim.log"), libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND)?;
    let (ready, theirs) = pipe()?;
    let state = state_dir.to_str().ok_or_else(|| io::Error::other("the state directory is not UTF-8"))?;
    let (_, child) = spawn(executable, &[shim::SHIM, state, mode], &[&null, &null, &log, &theirs])
        .attempt(|| format!("start {}", executable.display()))?;
    drop(theirs);
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    loop {
        match read(&ready, &mut buffer)? {
            0 => break,
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
    match text.split_first() {
        Some((b'R', _)) => Ok(child),
        Some((_, reason)) => {
            crate::sys::reap(&child);
            Err(io::Error::other(String::from_utf8_lossy(reason).into_owned()))
        }
        None => {
            crate::sys::reap(&child);
            Err(io::Error::other("the shim died while it started"))
        }
    }
}

/// Reaches the shim of the sandbox whose files are in `run_dir`.
#[derive(Clone, Debug)]
pub(super) struct Client {
    run_dir: PathBuf,
}

impl Client {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_path_buf() }
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let dir = open(&self.run_dir, libc::O_PATH | libc::O_DIRECTORY)?;
        let (address, length) = shim::socket_address(&dir)?;
        // SAFETY: plain values, and a valid address of the given length.
        unsafe {
            let socket =
                owned(check(libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0))?.into());
            check(libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length))
                .attempt(|| format!("connect to the shim in {}", self.run_dir.display()))?;
            let timeout = libc::timeval { tv_sec: ANSWER_TIMEOUT.as_secs() as i64, tv_usec: 0 };
            check(libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                size_of::<libc::timeval>() as libc::socklen_t,
            ))?;
            Ok(socket)
        }
    }

    /// Sends one request and gives what the shim answers. Blocking.
    pub(super) fn request(&self, text: &str, fds: &[RawFd]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let socket = self.connect()?;
        send(&socket, text.as_bytes(), fds)?;
        answer(&socket)
    }

    /// A connection that is told about exits.
    pub(super) fn watch(&self) -> io::Result<Watch> {
        let socket = self.connect()?;
        send(&socket, b"watch", &[])?;
        answer(&socket)?;
        set_nonblocking(&socket)?;
        Ok(Watch(on_reactor(socket, Interest::READABLE)?))
    }
}

fn answer(socket: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; 8_192];
    let (count, fds) = receive(socket, &mut buffer)?;
    match buffer[..count].split_first() {
        Some((b'+', rest)) => Ok((rest.to_vec(), fds)),
        Some((_, reason)) => Err(io::Error::other(String::from_utf8_lossy(reason).into_owned())),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the shim hung up")),
    }
}

/// News from a shim.
pub(super) struct Watch(AsyncFd<OwnedFd>);

/// One piece of news.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A container ended.
    Exit(String),
    /// The pause process ended.
    Pause,
    /// The shim is gone.
    Gone,
}

impl Watch {
    /// Waits for news.
    pub(super) async fn next(&mut self) -> News {
        let mut buffer = [0; 256];
        loop {
            let Ok(mut guard) = self.0.readable().await else { return News::Gone };
            let outcome = guard.try_io(|fd| receive(fd.get_ref(), &mut buffer));
            match outcome {
                Err(_) => {} // woken for nothing
                Ok(Ok((0, _)) | Err(_)) => return News::Gone,
                Ok(Ok((count, _))) => {
                    let text = String::from_utf8_lossy(&buffer[..count]);
                    return match text.strip_prefix("exit ") {
                        Some(id) => News::Exit(id.to_owned()),
                        None => News::Pause,
                    };
                }
            }
        }
    }
}
