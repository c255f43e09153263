//! exec, attach and port-forward.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::sync::mpsc;
use tonic::Status;

use super::Runtime;
use super::shim::Client;
use super::state::{Container, blocking, failed, load_json};
use crate::cri as v1;
use crate::shim;
use crate::spec::{ContainerSpec, ExecSpec, file};
use crate::streaming::{Connection, RESIZE_BUFFER, Session, Streaming, TerminalSize};
use crate::sys::{self, PidFd, check, on_reactor, open, pipe, receive, set_nonblocking, socket_pair, spawn};

/// The interface's bound on each stream of `ExecSync` (CVE-2022-1708).
const EXEC_SYNC_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a connection inside a sandbox may take; it is on a loopback interface.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait]
impl Streaming for Runtime {
    async fn exec(&self, request: v1::ExecRequest) -> Result<Session, Status> {
        let container = self.container(&request.container_id)?;
        self.exec_in(&container, &request).await
    }

    async fn attach(&self, request: v1::AttachRequest) -> Result<Session, Status> {
        let container = self.container(&request.container_id)?;
        container.process()?;
        attach(&container, &request).await
    }

    async fn port_forward(&self, pod_sandbox_id: &str, port: u16) -> Result<Connection, Status> {
        let sandbox = self.sandbox(pod_sandbox_id)?;
        if !sandbox.state.lock().ready {
            return Err(Status::failed_precondition(format!("sandbox container {} is not running", sandbox.id)));
        }
        let netns = if sandbox.own_network() { Some(sandbox.netns()) } else { self.0.config.network.node_netns() };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread of its own: it changes its namespace and ends, and the socket stays behind.
        std::thread::Builder::new()
            .name("port-forward".into())
            .spawn(move || drop(sender.send(connect(netns.as_deref(), port))))
            .map_err(|error| failed("start a thread", error))?;
        let stream = receiver.await.map_err(|error| failed("connect", error))?;
        let stream = stream
            .map_err(|error| failed(&format!("connect to localhost:{port} inside sandbox {}", sandbox.id), error))?;
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        let (reader, writer) = stream.map_err(|error| failed("use the connection", error))?.into_split();
        Ok(Connection { reader: Box::new(reader), writer: Box::new(writer) })
    }
}

fn connect(netns: Option<&std::path::Path>, port: u16) -> io::Result<TcpStream> {
    if let Some(path) = netns {
        sys::setns(&open(path, libc::O_RDONLY)?, libc::CLONE_NEWNET)?;
    }
    let first = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_TIMEOUT);
    first.or_else(|error| {
        TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), CONNECT_TIMEOUT).map_err(|_| error)
    })
}

impl Runtime {
    pub(super) async fn exec_synchronously(
        &self,
        request: v1::ExecSyncRequest,
    ) -> Result<v1::ExecSyncResponse, Status> {
        let container = self.container(&request.container_id)?;
        let wanted = v1::ExecRequest {
            container_id: container.id.clone(),
            cmd: request.cmd,
            tty: false,
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let session = self.exec_in(&container, &wanted).await?;
        let Session { stdout, stderr, exit, .. } = session;
        let run = async move {
            let (stdout, stderr, code) = tokio::join!(biased; collect(stdout), collect(stderr), exit);
            Ok::<_, Status>(v1::ExecSyncResponse { stdout, stderr, exit_code: code? })
        };
        if request.timeout <= 0 {
            return run.await;
        }
        let timeout = Duration::from_secs(request.timeout.unsigned_abs());
        // Dropping the session kills the command.
        tokio::time::timeout(timeout, run).await.map_err(|_| {
            let text = format!("failed to exec in container: timeout {timeout:?} exceeded: context deadline exceeded");
            Status::deadline_exceeded(text)
        })?
    }

    async fn exec_in(&self, container: &Arc<Container>, request: &v1::ExecRequest) -> Result<Session, Status> {
        if request.cmd.is_empty() {
            return Err(Status::invalid_argument("exec needs a command"));
        }
        let (started, _) = container.process()?;
        let spec: ContainerSpec = load_json(&container.state_dir.join(file::SPEC))
            .ok_or_else(|| failed("exec in container", "its specification is gone"))?;
        let mut process = spec.process;
        process.args.clone_from(&request.cmd);
        process.tty = request.tty;
        process.ends_with_parent = true;
        if request.tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        let spec = ExecSpec { pid: started.pid, start_time: started.start_time, join: spec.join, process };
        let (executable, request) = (self.0.config.executable.clone(), request.clone());
        let pipes = blocking("exec in container", move || start_helper(&executable, &spec, &request)).await?;
        pipes.into_session().await
    }
}

async fn collect(reader: Option<crate::streaming::Reader>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut reader) = reader {
        let mut buffer = [0; 16 * 1024];
        // What is beyond the bound is read and thrown away, so that the command goes on.
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            let room = EXEC_SYNC_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
    bytes
}

/// A helper under way.
struct Helper {
    process: PidFd,
    status: OwnedFd,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    wants: v1::ExecRequest,
}

fn start_helper(executable: &std::path::Path, spec: &ExecSpec, request: &v1::ExecRequest) -> io::Result<Helper> {
    let null = open(std::path::Path::new("/dev/null"), libc::O_RDWR)?;
    let memory = memory_file(&serde_json::to_vec(spec).map_err(io::Error::other)?)?;
    let (status, theirs) = socket_pair()?;
    let plain = !request.tty;
    let stdin = if plain && request.stdin { Some(pipe()?) } else { None };
    let stdout = if plain && request.stdout { Some(pipe()?) } else { None };
    let stderr = if plain && request.stderr { Some(pipe()?) } else { None };
    let fds = [
        stdin.as_ref().map_or(&null, |(read, _)| read),
        stdout.as_ref().map_or(&null, |(_, write)| write),
        stderr.as_ref().map_or(&null, |(_, write)| write),
        &memory,
        &theirs,
    ];
    let (_, process) = spawn(executable, &[shim::EXEC], &fds)?;
    set_nonblocking(&status)?;
    Ok(Helper {
        process,
        status,
        stdin: stdin.map(|(_, write)| write),
        stdout: stdout.map(|(read, _)| read),
        stderr: stderr.map(|(read, _)| read),
        wants: request.clone(),
    })
}

fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: a valid C string; gives a fresh descriptor.
    let fd = unsafe { sys::owned(check(libc::memfd_create(c"exec".as_ptr(), libc::MFD_CLOEXEC))?.into()) };
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[sys::write(&fd, rest)?..];
    }
    Ok(fd)
}

/// Ends the command through its helper when the session is dropped early. Reaps the helper.
struct Guard {
    process: Arc<PidFd>,
    done: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            // The helper kills and reaps the command; its own zombie must not stay either. A
            // command stuck in the kernel must not hold up whoever drops a session.
            let _ = self.process.signal(libc::SIGTERM);
            let process = self.process.clone();
            let _ = std::thread::Builder::new().name("reap-exec".into()).spawn(move || sys::reap(&process));
        }
    }
}

impl Helper {
    /// Waits until the command runs (or cannot) and gives its streams.
    async fn into_session(self) -> Result<Session, Status> {
        let error = |error: io::Error| failed("exec in container", error);
        let mut guard = Guard { process: Arc::new(self.process), done: false };
        let status = on_reactor(self.status, Interest::READABLE).map_err(error)?;
        let mut terminal = None;
        let mut code = None;
        loop {
            let (message, fds) = next(&status).await.map_err(error)?;
            match message.first() {
                Some(b'T') => terminal = fds.into_iter().next(),
                Some(b'{') => break,
                Some(b'E') => {
                    let text = String::from_utf8_lossy(&message[1..]).into_owned();
                    return Err(failed("exec in container", format!("failed to start exec: {text}")));
                }
                Some(b'X') => {
                    code = Some(parse_code(&message));
                    break;
                }
                _ => return Err(failed("exec in container", "the helper died")),
            }
        }
        let terminal = terminal.map(Arc::new);
        let (stdin, stdout) = match &terminal {
            Some(master) => {
                let duplicate = || master.try_clone().map_err(error);
                (
                    if self.wants.stdin { Some(duplicate()?) } else { None },
                    if self.wants.stdout { Some(duplicate()?) } else { None },
                )
            }
            None => (self.stdin, self.stdout),
        };
        let exit = async move {
            let code = match code {
                Some(code) => code,
                None => loop {
                    let (message, _) = next(&status).await.map_err(error)?;
                    match message.first() {
                        Some(b'X') => break parse_code(&message),
                        // exec itself failed after the identity was sent.
                        Some(b'E') => {
                            let text = String::from_utf8_lossy(&message[1..]).into_owned();
                            return Err(failed("exec in container", format!("failed to start exec: {text}")));
                        }
                        None => return Err(failed("exec in container", "the helper died")),
                        _ => {}
                    }
                },
            };
            guard.done = true;
            // It has said its last word.
            sys::reap(&guard.process);
            Ok(code)
        };
        Ok(Session {
            stdin: stdin.map(writer).transpose()?,
            stdout: stdout.map(reader).transpose()?,
            stderr: self.stderr.map(reader).transpose()?,
            resize: resizer(terminal),
            exit: Box::pin(exit),
        })
    }
}

fn parse_code(message: &[u8]) -> i32 {
    std::str::from_utf8(&message[1..]).ok().and_then(|text| text.parse().ok()).unwrap_or(255)
}

async fn next(status: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; 4_096];
    loop {
        let mut guard = status.readable().await?;
        if let Ok(outcome) = guard.try_io(|fd| receive(fd.get_ref(), &mut buffer)) {
            let (count, fds) = outcome?;
            buffer.truncate(count);
            return Ok((buffer, fds));
        }
    }
}

async fn attach(container: &Arc<Container>, request: &v1::AttachRequest) -> Result<Session, Status> {
    let error = |error: io::Error| failed("attach to container", error);
    let tty = container.config.tty;
    let (out_read, out_write) = pipe().map_err(error)?;
    let (err_read, err_write) = pipe().map_err(error)?;
    let client = Client::new(&container.sandbox.run_dir);
    let text = format!("attach {}", container.id);
    let closing = client.clone();
    let (_, fds) =
        blocking("attach to container", move || client.request(&text, &[out_write.as_raw_fd(), err_write.as_raw_fd()]))
            .await?;
    let terminal = fds.into_iter().next().map(Arc::new);
    let stdin = match (&terminal, request.stdin && container.config.stdin) {
        (_, false) => None,
        (Some(master), true) => Some(writer(master.try_clone().map_err(error)?)?),
        (None, true) => {
            let fifo = open(&container.run_dir.join("stdin"), libc::O_WRONLY | libc::O_NONBLOCK).map_err(error)?;
            let inner = writer(fifo)?;
            if container.config.stdin_once {
                let text = format!("close-stdin {}", container.id);
                Some(Box::new(Once { inner, close: Some((closing, text)) }) as crate::streaming::Writer)
            } else {
                Some(inner)
            }
        }
    };
    let mut exit = container.exit.subscribe();
    let exit = async move {
        let exited = exit.wait_for(Option::is_some).await.map_err(|error| failed("wait for container", error))?;
        Ok(exited.as_ref().map_or(255, |exited| exited.code))
    };
    Ok(Session {
        stdin,
        stdout: if request.stdout { Some(reader(out_read)?) } else { None },
        stderr: if request.stderr && !tty { Some(reader(err_read)?) } else { None },
        resize: resizer(terminal),
        exit: Box::pin(exit),
    })
}

/// Standard input that ends with its first client: the shim lets go of its end too.
struct Once {
    inner: crate::streaming::Writer,
    close: Option<(Client, String)>,
}

impl Once {
    fn close(&mut self) {
        if let Some((client, text)) = self.close.take() {
            // One message to a local process that answers at once.
            let _ = client.request(&text, &[]);
        }
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncWrite for Once {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Applies terminal sizes as they come; ends with the session.
fn resizer(terminal: Option<Arc<OwnedFd>>) -> mpsc::Sender<TerminalSize> {
    let (sender, mut receiver) = mpsc::channel::<TerminalSize>(RESIZE_BUFFER);
    // Not supervised: it lives exactly as long as the sender in the session.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        while let Some(size) = receiver.recv().await {
            if let Some(terminal) = &terminal {
                let size = libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
                // SAFETY: the request reads one winsize.
                unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            }
        }
    });
    sender
}

fn reader(fd: OwnedFd) -> Result<crate::streaming::Reader, Status> {
    Ok(Box::new(Pollable::new(fd, Interest::READABLE)?))
}

fn writer(fd: OwnedFd) -> Result<crate::streaming::Writer, Status> {
    Ok(Box::new(Pollable::new(fd, Interest::WRITABLE)?))
}

/// A pipe or terminal end on the reactor.
struct Pollable(Option<AsyncFd<OwnedFd>>);

impl Pollable {
    fn new(fd: OwnedFd, interest: Interest) -> Result<Self, Status> {
        let ready = set_nonblocking(&fd).and_then(|()| on_reactor(fd, interest));
        ready.map(|fd| Self(Some(fd))).map_err(|error| failed("use a stream", error))
    }
}

impl AsyncRead for Pollable {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Ok(())) };
        loop {
            let mut guard = std::task::ready!(fd.poll_read_ready(cx))?;
            match guard.try_io(|fd| sys::read(fd.get_ref(), buffer.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last user of a terminal has gone.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Pollable {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(fd) = &self.0 else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        loop {
            let mut guard = std::task::ready!(fd.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| sys::write(fd.get_ref(), bytes)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
